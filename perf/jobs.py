"""The tasks that the benchmarks' workers run: nothing, a wait, a computation, a large argument."""

from __future__ import annotations

import asyncio
import time

from taskmill import App, Context
from taskmill.runtime.config import Settings


def make(settings: Settings | None = None) -> App:
    """An App with the tasks; without `settings`, by its environment."""
    app = App("perf", settings=settings)

    @app.task
    async def noop(n: int) -> None:
        return None

    @app.task
    async def fails_once(ctx: Context, n: int) -> None:
        if ctx.attempt == 1:
            raise ValueError(n)

    @app.task
    async def nap(ms: float) -> None:
        await asyncio.sleep(ms / 1000)

    @app.task
    async def burn(rounds: int) -> None:
        spin(rounds)

    @app.task
    async def swallow(data: str, ms: float = 0) -> None:
        if ms:
            await asyncio.sleep(ms / 1000)

    return app


def spin(rounds: int) -> int:
    """Pure Python work that holds the interpreter: the same amount wherever it runs."""
    total = 0
    for number in range(rounds):
        total += number
    return total


def rounds_of(ms: float) -> int:
    """How many rounds of `spin` take `ms` of this machine's CPU when nothing else runs: the best
    of several tries, since neighbours only ever make it slower."""
    rounds = 200_000
    best = float("inf")
    for _ in range(20):
        started = time.thread_time()
        spin(rounds)
        best = min(best, time.thread_time() - started)
    return int(rounds * ms / 1000 / best)


app = make()
