"""Handlers, called in the thread of the test: coroutines on its loop, functions one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import copy_context

from taskmill.consumer.attempt import Attempts, Prepared
from taskmill.consumer.executors.loop import STOP_S, LoopExecutor, Sink
from taskmill.consumer.executors.threads import ThreadExecutor
from taskmill.consumer.record import Outcome, Record
from taskmill.consumer.timeouts import Leave, Timekeeper
from taskmill.producer.definition import TaskDefinition
from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import Interrupted, Reject
from taskmill.testing.clock import VirtualClock

#: As many as a worker runs at once.
CONCURRENCY = 100


class TurnKeeper(Timekeeper):
    """Looks at a function's time whenever it lets some pass by the clock, in its own thread."""

    def __init__(self, clock: VirtualClock, grace_s: float) -> None:
        super().__init__(clock, grace_s, interrupt=lambda ident: None)
        clock.slept = self._look

    def call(self, attempt: Prepared, leave: Leave | None = None) -> object:
        # Nobody can go on without it: it has the only thread.
        return super().call(attempt)

    def _start(self) -> None:
        """No thread watches."""

    def _look(self) -> None:
        now = self._monotonic()
        for call in self._running():
            if call.is_due(now):
                self._act(call, now)
        if self.strikes():
            raise Interrupted


class Coroutines(LoopExecutor):
    """Async handlers, on whichever loop is at hand."""

    def start(self) -> None:
        """No thread."""

    def use(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run on `loop` from now on; what handlers find in their context is what is there now."""
        self.loop = loop
        self._pristine = copy_context()

    def submit(self, records: Sequence[Record]) -> None:
        self._enqueue(records)

    def interrupt(self, records: Sequence[Record]) -> None:
        self._interrupt(records)

    async def end(self) -> None:
        """Cancel what runs, and wait for it."""
        self._stopping = True
        self._waiting.clear()
        runners = (*self._running, *self._left)
        for task in runners:
            task.cancel()
        # Those of a loop that is closed by now are gone with it.
        ours = [task for task in runners if task.get_loop() is asyncio.get_running_loop()]
        if ours:
            await asyncio.wait(ours, timeout=STOP_S)


class Functions(ThreadExecutor):
    """Handlers that are plain functions."""

    def __init__(self, attempts: Attempts, sink: Sink) -> None:
        super().__init__(attempts, 1, sink)

    def start(self) -> None:
        """No thread."""

    @property
    def wait(self) -> bool:
        """Whether one waits to be called."""
        return not self._queue.empty()

    def call_next(self) -> None:
        """Call the first of those that wait."""
        record = self._queue.get_nowait()
        if (
            record is not None
            and self._waiting.pop((record.lease, record.offset), None) is not None
        ):
            outcome = self._outcome(0, record)
            self._now[0] = None
            if outcome is not None:
                self._sink([outcome])
        self._done[0] += 1


class NoDatabase:
    """Stands for the PostgreSQL of tasks declared `effects="postgresql"`, which are refused."""

    def __init__(self, attempts: Attempts, names: frozenset[str]) -> None:
        self._attempts = attempts
        self._names = names

    def takes(self, record: Record) -> bool:
        return record.task is not None and record.task.name in self._names

    async def run(self, record: Record) -> Outcome | None:
        return self.run_in_thread(record)

    def run_in_thread(self, record: Record) -> Outcome | None:
        attempt = self._attempts.prepare(record)
        if isinstance(attempt, Outcome):
            return attempt
        why = 'effects="postgresql": a Harness has no database; test this task on Kafka'
        return self._attempts.fail(attempt, Reject(why))


class Handlers:
    """Hands records to the executor of their kind."""

    def __init__(
        self,
        definitions: Mapping[str, TaskDefinition],
        attempts: Attempts,
        sink: Sink,
        clock: Clock,
    ) -> None:
        self._definitions = definitions
        self.coroutines = Coroutines(attempts, CONCURRENCY, sink, clock)
        self.functions = Functions(attempts, sink)

    def submit(self, records: list[Record]) -> None:
        for record in records:
            self._of(record).submit([record])

    def interrupt(self, records: list[Record]) -> None:
        for record in records:
            self._of(record).interrupt([record])

    def running(self) -> list[Record | Prepared]:
        """What is under way."""
        return [*self.coroutines.running(), *self.functions.running()]

    def _of(self, record: Record) -> Coroutines | Functions:
        assert record.task is not None, "only decoded records are run"
        definition = self._definitions.get(record.task.name)
        # One that is not known is named so by either.
        return self.functions if definition and not definition.is_async else self.coroutines
