"""Attempts inside PostgreSQL transactions, without a worker and without Kafka round them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from support.postgres import Postgres
from taskmill import App, Context
from taskmill.consumer.attempt import Attempts, definitions_by_name
from taskmill.consumer.outcomes import PostgresOutcomes
from taskmill.consumer.outcomes_pool import finish, settled
from taskmill.consumer.record import Lease, Outcome, Record, Source
from taskmill.producer.middleware import Hooks
from taskmill.producer.retry import ONCE, Retry
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import Settings
from taskmill.schemas.models import JSON, Task

#: A handler's body for both kinds of connection: it awaits `settled(…)`.
Body = Callable[[Context], Awaitable[Any]]

NAME = "effect"


def a_record(
    id: str = "a", generation: int = 0, seq: int = 0, lease: Lease | None = None, **fields: Any
) -> Record:
    """A record of the task NAME, as if it had come from Kafka."""
    task = Task(id, NAME, b"{}", JSON, 1, generation=generation, seq=seq, **fields)
    source = Source("tasks", 0, 0, 1, id.encode(), b"", ())
    lease = lease or Lease(0, 1, "default")
    return Record(lease, 0, id.encode(), generation, seq, task, source)


class Bench:
    """A worker's part that runs tasks with effects; several on one database are several workers.

    `kind` is "async" (an async def on a loop) or "thread" (a def).
    """

    def __init__(
        self, url: str, kind: str, body: Body, *, retry: Retry = ONCE, **settings: Any
    ) -> None:
        app = App("bench", retry=retry)
        if kind == "async":

            @app.task(name=NAME, effects="postgresql")
            async def coroutine(ctx: Context) -> Any:
                return await body(ctx)

        else:

            @app.task(name=NAME, effects="postgresql")
            def function(ctx: Context) -> Any:
                return finish(body(ctx))  # type: ignore[arg-type]

        self._kind = kind
        definitions = definitions_by_name(app.tasks)
        given = Settings(outcomes_url=url, **settings)
        attempts = Attempts(definitions, SYSTEM_CLOCK, Hooks(()), given.max_task_bytes)
        self.outcomes = PostgresOutcomes(definitions, attempts, given, SYSTEM_CLOCK)
        self._runner = asyncio.Runner()
        self._thread = ThreadPoolExecutor(1)

    def submit(self, record: Record) -> Future[Outcome | None]:
        """Run `record` in this worker's thread."""
        return self._thread.submit(self._run, record)

    def run(self, record: Record) -> Outcome:
        """The outcome of `record`, which is not dropped."""
        outcome = self.submit(record).result(30)
        assert outcome is not None
        return outcome

    def _run(self, record: Record) -> Outcome | None:
        if self._kind == "async":
            try:
                return self._runner.run(self.outcomes.run(record))
            except asyncio.CancelledError:  # as the loop's executor does
                return None
        return self.outcomes.run_in_thread(record)

    def close(self) -> None:
        self.outcomes.stop()
        self._thread.submit(self._close).result(30)
        self._thread.shutdown()

    def _close(self) -> None:
        self._runner.run(self.outcomes.close())
        self._runner.close()


@contextmanager
def bench(url: str, kind: str, body: Body, **settings: Any) -> Iterator[Bench]:
    """A Bench that has made the table, closed at the end."""
    one = Bench(url, kind, body, **settings)
    assert one.outcomes.start(lambda: False)
    try:
        yield one
    finally:
        one.close()


async def add(ctx: Context, n: int = 1) -> None:
    """One effect: a row of the table `effects`, named by the task's ID."""
    id = ctx.id.replace("\0", "")  # which text cannot hold
    await settled(ctx.connection.execute("INSERT INTO effects VALUES (%s, %s)", (id, n)))


def effects(postgres: Postgres, url: str) -> list[tuple[Any, ...]]:
    """The rows of the table `effects`."""
    return postgres.query("SELECT id, n FROM effects ORDER BY id, n", url)


class Counted:
    """A body that counts its runs, then does what `then` does."""

    def __init__(self, then: Body | None = None) -> None:
        self.runs = 0
        self._then = then

    async def __call__(self, ctx: Context) -> Any:
        self.runs += 1
        await add(ctx, self.runs)
        return await self._then(ctx) if self._then is not None else self.runs


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until `holds()`: what Postgres does, it tells nobody of."""
    for _ in range(2000):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("not in time")
