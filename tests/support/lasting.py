"""The App of tasks that last: that save, enqueue, run at most once, or kill their worker."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from support.jobs import say
from taskmill import App, Context
from taskmill.producer.retry import ONCE

app = App("lasting", retry=ONCE)


def _note(id: str) -> None:
    with Path("runs").open("a") as file:
        file.write(f"{id}\n")


@app.task
async def lasts(ctx: Context, seconds: float) -> None:
    _note(ctx.id)
    await asyncio.sleep(seconds)


@app.task
async def pages(ctx: Context, total: int, stop_at: int) -> Any:
    """Goes on from what it saved; hangs at page `stop_at` where it begins from the start."""
    start = ctx.saved or 0
    for page in range(start, total):
        if start == 0 and page == stop_at:
            say(f"{ctx.id} stands at page {page}")
            await asyncio.sleep(600)
        ctx.save(page + 1)
    return {"from": start, "saved": ctx.saved}


@app.task(isolate="process")
def pages_apart(ctx: Context, total: int, stop_at: int) -> Any:
    """As `pages`, in a process of its own."""
    start = ctx.saved or 0
    for page in range(start, total):
        if start == 0 and page == stop_at:
            time.sleep(600)
        ctx.save(page + 1)
    return {"from": start, "saved": ctx.saved}


@app.task
async def saves(ctx: Context, size: int) -> None:
    ctx.save("x" * size)


@app.task(result_ttl="2s")
async def brief(size: int) -> str:
    return "x" * size


@app.task
async def child(number: int) -> int:
    return number


@app.task(queue="other")
async def elsewhere(number: int) -> int:
    return number


@app.task
async def spawns(ctx: Context, count: int, fail: bool = False) -> None:
    ctx.enqueue(*(child.options(id=f"{ctx.id}/{n}").call(number=n) for n in range(count)))
    ctx.enqueue(elsewhere.options(id=f"{ctx.id}/other").call(number=count))
    if fail:
        raise ValueError("after enqueueing")


@app.task(isolate="process")
def spawns_apart(ctx: Context, count: int) -> None:
    ctx.enqueue(*(child.options(id=f"{ctx.id}/{n}").call(number=n) for n in range(count)))


@app.task(delivery="at_most_once")
async def once(ctx: Context, seconds: float = 0.0) -> None:
    _note(ctx.id)
    await asyncio.sleep(seconds)


@app.task(delivery="at_most_once")
def once_in_thread(ctx: Context, seconds: float = 0.0) -> None:
    _note(ctx.id)
    time.sleep(seconds)


@app.task
async def kills(ctx: Context) -> None:
    _note(ctx.id)
    os.kill(os.getpid(), signal.SIGKILL)
