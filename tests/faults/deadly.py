"""The App under faults, with handlers that take their process along, or never end."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

from faults.app import app, began
from taskmill import Context

__all__ = ["app"]


def _segfault() -> None:
    ctypes.string_at(0)


def _oom_kill() -> None:
    """What the kernel does to a process that has eaten all memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def _spin(until: str) -> None:
    """Burn a CPU until that file is there."""
    while not Path(until).exists():
        for _ in range(100_000):
            pass


@app.task
def segfault(ctx: Context) -> None:
    began(ctx)
    _segfault()


@app.task(isolate="process")
def segfault_isolated(ctx: Context) -> None:
    began(ctx)
    _segfault()


@app.task
async def oom_kill(ctx: Context) -> None:
    began(ctx)
    _oom_kill()


@app.task(isolate="process")
def oom_kill_isolated(ctx: Context) -> None:
    began(ctx)
    _oom_kill()


@app.task
def spin(ctx: Context, until: str) -> None:
    began(ctx)
    _spin(until)


@app.task(isolate="process")
def spin_isolated(ctx: Context, until: str) -> None:
    began(ctx)
    _spin(until)
