"""The App that workers run under faults: every handler notes that it began, first of all."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from faults.history import StartFile
from taskmill import App, Context, Retry
from taskmill.producer.retry import ONCE

app = App("faults", retry=ONCE)

#: Of a flaky task.
MAX_ATTEMPTS = 4
#: In the worker's working directory, which the scene reads it from.
STARTS = "starts"


def began(ctx: Context) -> None:
    """Note the start of this attempt."""
    StartFile.note(Path(STARTS), ctx.id, ctx.generation, ctx.seq, ctx.attempt)


@app.task
async def nap(ctx: Context, ms: float) -> None:
    began(ctx)
    await asyncio.sleep(ms / 1000)


@app.task
def nap_in_thread(ctx: Context, ms: float) -> None:
    began(ctx)
    time.sleep(ms / 1000)


@app.task
async def fails(ctx: Context, message: str) -> None:
    began(ctx)
    raise ValueError(message)


@app.task(retry=Retry(max_attempts=MAX_ATTEMPTS, base="1ms", factor=300, max="300ms"))
async def flaky(ctx: Context, fails: int, ms: float) -> None:
    """Fails so many times: it waits for 1 ms, then for 300 ms, that is in two tiers."""
    began(ctx)
    await asyncio.sleep(ms / 1000)
    if ctx.attempt <= fails:
        raise ValueError(ctx.attempt)


@app.task(delivery="at_most_once")
async def once(ctx: Context, ms: float) -> None:
    began(ctx)
    await asyncio.sleep(ms / 1000)


@app.task
async def large(ctx: Context, size: int) -> str:
    """A result that goes to the results topic, in the same transaction."""
    began(ctx)
    return "x" * size
