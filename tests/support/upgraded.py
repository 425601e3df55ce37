"""An App that every version of taskmill since 0.1 can load, and a program that enqueues with it.

python -m support.upgraded TASK ID…
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from taskmill import App, Context

app = App("upgraded")


def _note(id: str) -> int:
    """One line a run, in the worker's working directory; how many there are of this ID."""
    with Path("runs").open("a") as file:
        file.write(f"{id}\n")
    return Path("runs").read_text().split("\n").count(id)


@app.task
async def note(ctx: Context) -> str:
    _note(ctx.id)
    return "x" * 300 if ctx.id.startswith("large") else "done"


@app.task
async def nap(ctx: Context) -> str:
    _note(ctx.id)
    await asyncio.sleep(0.2)
    return "rested"


@app.task
async def brittle(ctx: Context) -> int:
    """Fails at its first run."""
    times = _note(ctx.id)
    if times == 1:
        raise ValueError("the first time")
    return times


def main(name: str, delay: str, *ids: str) -> None:
    task = {"note": note, "nap": nap, "brittle": brittle}[name]
    options: Any = {"delay": delay} if delay else {}
    with app:
        app.enqueue_many([task.options(id=id, **options).call() for id in ids])


if __name__ == "__main__":
    main(*sys.argv[1:])
