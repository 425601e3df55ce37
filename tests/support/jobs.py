"""The App that the tests' workers run: a handler for each thing that a task can do."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from taskmill import App, Context, Middleware, Retry
from taskmill.producer.retry import ONCE

app = App("jobs", retry=ONCE)


def _note(id: str) -> None:
    """One line a run, in the worker's working directory; appended whole or not at all."""
    with Path("runs").open("a") as file:
        file.write(f"{id}\n")


def say(text: str) -> None:
    """A line of the worker's log."""
    print(text, file=sys.stderr, flush=True)


@app.lifespan
async def resources() -> AsyncIterator[dict[str, int]]:
    say("lifespan begins")
    yield {"pid": os.getpid()}
    say("lifespan ends")


@app.task
async def noop(ctx: Context) -> None:
    _note(ctx.id)


@app.task
async def nap(ctx: Context, ms: float) -> None:
    _note(ctx.id)
    await asyncio.sleep(ms / 1000)


@app.task(aliases=("repeat",))
async def echo(value: Any) -> Any:
    return value


@app.task
def in_thread() -> dict[str, Any]:
    return {"pid": os.getpid(), "main": threading.current_thread() is threading.main_thread()}


@app.task(isolate="process")
def in_process(ctx: Context) -> dict[str, Any]:
    return {"pid": os.getpid(), "parent": os.getppid(), "resources": ctx.resources}


@app.task(isolate="process")
def dies(how: int) -> None:
    os._exit(how)


@app.task
async def context(ctx: Context) -> dict[str, Any]:
    ctx.logger.info("in the handler of %s", ctx.id)
    return {
        "id": ctx.id,
        "name": ctx.name,
        "queue": ctx.queue,
        "generation": ctx.generation,
        "seq": ctx.seq,
        "attempt": ctx.attempt,
        "enqueued_at": ctx.enqueued_at,
        "headers": dict(ctx.headers),
        "resources": ctx.resources,
    }


@app.task
async def add(a: int, b: int = 1) -> int:
    return a + b


@app.task
async def fails(message: str) -> None:
    raise ValueError(message)


@app.task
async def brittle(ctx: Context, good: bool = False, kind: str = "") -> int:
    """Fails until its argument is good, or a file `mended` lies here; its generation."""
    _note(f"{ctx.id} {ctx.generation}")
    if not (good or Path("mended").exists()):
        raise {"key": KeyError, "type": TypeError}.get(kind, ValueError)("broken")
    return ctx.generation


@app.task
async def leaves() -> None:
    sys.exit("a handler may not end the worker")


@app.task
async def unserialisable() -> Any:
    return threading.Lock()


@app.task
async def large(size: int) -> str:
    return "x" * size


@app.task(store_result=False)
async def unkept(message: str = "") -> Any:
    if message:
        raise ValueError(message)
    return threading.Lock()


@app.task(result_ttl="1h")
async def brief(size: int) -> str:
    return "x" * size


@app.task(result_ttl="1h", isolate="process")
def brief_process(size: int) -> str:
    return "x" * size


@app.task
async def gated(ctx: Context) -> int:
    """Reports to the gate and waits for its word; the result is the worker's pid."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["JOBS_GATE"]))
    try:
        writer.write(f"{ctx.id}\n".encode())
        assert await reader.readline() == b"go\n"
    finally:
        writer.close()
    return os.getpid()


@app.task
def gated_thread(ctx: Context) -> int:
    """As `gated`, in a thread."""
    with socket.create_connection(("127.0.0.1", int(os.environ["JOBS_GATE"]))) as connection:
        connection.sendall(f"{ctx.id}\n".encode())
        assert connection.recv(3) == b"go\n"
    return os.getpid()


@app.task(isolate="process")
def gated_process(ctx: Context, spin: bool = False) -> int:
    """As `gated`, in a process; it never ends if it is to `spin`."""
    with socket.create_connection(("127.0.0.1", int(os.environ["JOBS_GATE"]))) as connection:
        connection.sendall(f"{ctx.id}\n".encode())
        assert connection.recv(3) == b"go\n"
    while spin:
        pass
    return os.getppid()


@app.task(retry=Retry(max_attempts=4, base="1ms", factor=1))
async def flaky(ctx: Context, fails: int, wait: str = "") -> dict[str, Any]:
    """Fails so many times, each time to be tried again after `wait`; what it saw in the end."""
    with Path("attempts").open("a") as file:
        file.write(f"{ctx.id} {ctx.attempt} {ctx.seq} {time.time_ns() // 1_000_000}\n")
    seen = [*(ctx.saved or []), ctx.attempt]
    ctx.save(seen)
    if ctx.attempt <= fails:
        raise Retry.after(wait) if wait else ValueError(f"attempt {ctx.attempt}")
    return {"attempt": ctx.attempt, "seq": ctx.seq, "saved": seen}


class Loud(Middleware):
    """Says each hook of the worker when it is called, if asked for (JOBS_LOUD)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def worker_started(self) -> None:
        say(f"{self.name}: worker_started")

    def worker_stopping(self) -> None:
        say(f"{self.name}: worker_stopping")

    def before_run(self, context: Context, arguments: dict[str, Any]) -> None:
        say(f"{self.name}: before_run {context.id} {sorted(arguments)}")

    def after_run(self, context: Context, outcome: Any) -> None:
        say(f"{self.name}: after_run {context.id} {outcome.status}")

    def after_commit(self, outcomes: Any) -> None:
        ids = [o.record.task.id for o in outcomes]
        say(f"{self.name}: after_commit {' '.join(ids)}")


if os.environ.get("JOBS_LOUD"):
    app.use(Loud("outer"))
    app.use(Loud("inner"))
