"""An App with a handler for each behaviour, and what its handlers note."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from taskmill import App, Context, Middleware, Reject, Retry, Settings, Task
from taskmill.producer.handle import Handle
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock


class Notes:
    """What handlers and hooks saw, by task ID. `clock` is that of the world they are in."""

    def __init__(self) -> None:
        self.clock: Clock = SYSTEM_CLOCK
        #: Attempts, in order, and when each began (UTC ms).
        self.attempts: defaultdict[str, list[int]] = defaultdict(list)
        self.times: defaultdict[str, list[int]] = defaultdict(list)
        #: What the handler has to say.
        self.said: defaultdict[str, list[Any]] = defaultdict(list)
        self.hooks: defaultdict[str, list[str]] = defaultdict(list)
        self.life: list[str] = []
        self.mended: set[str] = set()

    def began(self, ctx: Context) -> None:
        self.attempts[ctx.id].append(ctx.attempt)
        self.times[ctx.id].append(self.clock.now_ms())


class Order(BaseModel):
    number: int
    lines: list[str]
    placed: datetime


PLACED = datetime(2026, 1, 31, 8, tzinfo=UTC)
QUICK = Retry(max_attempts=3, base="100ms", factor=1)


class Watching(Middleware):
    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def before_enqueue(self, task: Task) -> Task | None:
        self._notes.hooks[task.id].append("before_enqueue")
        return task._replace(headers={**task.headers, "seen": "yes"})

    def after_enqueue(self, task: Task, handle: Handle[Any]) -> None:
        self._notes.hooks[task.id].append("after_enqueue")

    def worker_started(self) -> None:
        self._notes.life.append("worker_started")

    def worker_stopping(self) -> None:
        self._notes.life.append("worker_stopping")

    def before_run(self, context: Context, arguments: dict[str, Any]) -> None:
        self._notes.hooks[context.id].append("before_run")

    def after_run(self, context: Context, outcome: Any) -> None:
        self._notes.hooks[context.id].append(f"after_run {outcome.status.value}")

    def after_commit(self, outcomes: Sequence[Any]) -> None:
        for outcome in outcomes:
            if outcome.status is not None and outcome.record.task is not None:
                task = outcome.record.task
                self._notes.hooks[task.id].append(f"after_commit {outcome.status.value}")


def make_shop(notes: Notes, settings: Settings | None = None) -> App:
    """The App; `settings` where it talks to Kafka."""
    app = App("shop", settings, retry=Retry(max_attempts=1))
    app.use(Watching(notes))

    @app.lifespan
    def resources() -> Iterator[dict[str, str]]:
        notes.life.append("begins")
        yield {"till": "open"}
        notes.life.append("ends")

    _plain(app, notes)
    _failing(app, notes)
    _lasting(app, notes)
    app.schedule("tick", app.tasks["fired"], every="1s", args={"what": "tick"})
    app.schedule("tock", app.tasks["fired"], cron="* * * * * */2", args={"what": "tock"})
    return app


def _plain(app: App, notes: Notes) -> None:
    @app.task(aliases=("reverberate",))
    async def echo(ctx: Context, value: Any = None) -> Any:
        notes.began(ctx)
        notes.said[ctx.id].append(dict(ctx.headers))
        return value

    @app.task
    def echo_plainly(ctx: Context, value: Any = None) -> Any:
        notes.began(ctx)
        return value

    @app.task
    async def place(number: int) -> Order:
        return Order(number=number, lines=["tea"], placed=PLACED)

    @app.task
    async def typed(number: int) -> int:
        return number

    @app.task
    async def unjson() -> Any:
        return object()

    @app.task(store_result=False)
    async def silent() -> Any:
        return object()

    @app.task
    async def till(ctx: Context) -> Any:
        return ctx.resources["till"]

    @app.task
    def fired(ctx: Context, what: str) -> None:
        notes.times[what].append(notes.clock.now_ms())
        notes.said[what].append(ctx.headers["schedule-time"])


def _failing(app: App, notes: Notes) -> None:
    @app.task(retry=QUICK)
    async def flaky(ctx: Context, fails: int) -> int:
        notes.began(ctx)
        if ctx.attempt <= fails:
            raise ConnectionError(f"attempt {ctx.attempt}")
        return ctx.attempt

    @app.task(retry=QUICK)
    def rejects(ctx: Context) -> None:
        notes.began(ctx)
        raise Reject("never will")

    @app.task(retry=QUICK)
    async def later(ctx: Context) -> int:
        notes.began(ctx)
        if ctx.attempt == 1:
            raise Retry.after("700ms")
        return ctx.attempt

    @app.task(retry=QUICK)
    async def counts(ctx: Context) -> Any:
        before = ctx.saved or []
        ctx.save([*before, ctx.attempt])
        if ctx.attempt < 3:
            raise ConnectionError
        return before

    @app.task
    def brittle(ctx: Context) -> int:
        notes.began(ctx)
        if ctx.id not in notes.mended:
            raise ValueError("not mended")
        return ctx.generation

    @app.task(retry=QUICK)
    async def parent(ctx: Context, fails: int) -> None:
        ctx.enqueue(app.call("echo", {"value": ctx.attempt}, id=f"{ctx.id}/{ctx.attempt}"))
        if ctx.attempt <= fails:
            raise ConnectionError


def _lasting(app: App, notes: Notes) -> None:
    @app.task
    async def lasts(ctx: Context) -> None:
        notes.began(ctx)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            notes.said[ctx.id].append("cleaned up")
            raise

    @app.task(timeout="300ms")
    async def slow(ctx: Context) -> None:
        notes.began(ctx)
        await asyncio.sleep(3600)

    @app.task(delivery="at_most_once")
    async def once(ctx: Context) -> int:
        notes.began(ctx)
        return ctx.attempt
