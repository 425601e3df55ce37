"""Handlers that are plain functions, on a fixed number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextvars import copy_context
from queue import Empty, SimpleQueue
from types import FrameType

from taskmill.consumer.attempt import Attempts, Prepared, cancelled
from taskmill.consumer.executors.loop import Sink
from taskmill.consumer.record import Lease, Outcome, Record
from taskmill.consumer.timeouts import Abandoned

Run = Callable[[Prepared], Outcome]


class ThreadExecutor:
    """`size` threads that take records off one queue, each in a copy of its starter's context."""

    def __init__(self, attempts: Attempts, size: int, sink: Sink, name: str = "thread") -> None:
        self._attempts = attempts
        self._sink = sink
        self._queue: SimpleQueue[Record | None] = SimpleQueue()
        #: What is in the queue. Whoever takes a record out of here, in one step, has it: a thread,
        #: or a cancellation.
        self._waiting: dict[tuple[Lease, int], Record] = {}
        self._submitting = threading.Lock()
        self._submitted = 0
        self._shed = 0
        self._shedding = False
        # One count a thread: no lock, and no count lost.
        self._done = [0] * size
        self._now: list[Record | Prepared | None] = [None] * size
        self._name = name
        self._threads = [self._thread(index) for index in range(size)]
        #: Those whose handlers do not end, left behind.
        self._left: list[threading.Thread] = []

    def _thread(self, index: int) -> threading.Thread:
        return threading.Thread(
            target=self._main, args=(index,), name=f"taskmill-{self._name}-{index}", daemon=True
        )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit(self, records: Sequence[Record]) -> None:
        """Queue `records`; a thread takes each as it comes free."""
        with self._submitting:  # the poll thread, and for what has passed a gate the commit thread
            if self._shedding:
                records = [record for record in records if record.is_gated]
            self._submitted += len(records)
            for record in records:
                self._waiting[record.lease, record.offset] = record
                self._queue.put(record)

    def interrupt(self, records: Sequence[Record]) -> None:
        """They are to be cancelled (`Lease.cancelled` says so by now): what runs is told to end;
        what waits ends at once, but where its outcome may be stored already."""
        effects = self._attempts.effects
        for record in records:
            is_stored = effects is not None and effects.takes(record)
            if not is_stored and self._waiting.pop((record.lease, record.offset), None) is not None:
                self._sink([cancelled(record, self._attempts.clock.now_ms())])
            else:
                self._stop(record)

    def _stop(self, record: Record) -> None:
        """Have the handler of `record` end, if it runs."""
        self._attempts.timekeeper.cancel(record)

    def shed(self) -> None:
        """Start nothing more: what waits is dropped, and what comes, but for what has passed a
        gate. What runs goes on."""
        self._shedding = True
        self._take(lambda record: not record.is_gated)

    def take_back(self, queue: str, give: Callable[[list[Record]], None]) -> None:
        """Hand what waits of `queue` to `give`, but for what has passed a gate."""
        give(self._take(lambda r: r.lease.queue == queue and not r.is_gated))

    def _take(self, wanted: Callable[[Record], bool]) -> list[Record]:
        """What waits and is wanted, taken out."""
        taken: list[Record] = []
        with self._submitting:
            waiting: list[Record | None] = []
            try:
                while True:
                    waiting.append(self._queue.get_nowait())
            except Empty:
                pass
            for record in waiting:
                if record is None or not wanted(record):
                    self._queue.put(record)
                    continue
                self._shed += 1
                # Else it was cancelled, and its outcome is told.
                if self._waiting.pop((record.lease, record.offset), None) is not None:
                    taken.append(record)
        return taken

    def running(self) -> list[Record | Prepared]:
        """What is under way."""
        return [one for one in self._now if one is not None]

    def is_quiet(self) -> bool:
        """Whether nothing runs, and every outcome was handed to the sink."""
        return self._submitted == self._shed + sum(self._done)

    def stop(self, timeout_s: float) -> int:
        """End the threads; returns how many still run a handler (a thread cannot be killed)."""
        for _ in self._threads:
            self._queue.put(None)
        share = timeout_s / len(self._threads)
        for thread in self._threads:
            thread.join(share)
        return sum(thread.is_alive() for thread in (*self._threads, *self._left))

    def _main(self, index: int) -> None:
        while (record := self._queue.get()) is not None:
            is_ours = self._waiting.pop((record.lease, record.offset), None) is not None
            if not is_ours or not record.lease.held:
                self._done[index] += 1
                continue
            try:
                outcome = self._outcome(index, record)
            except Abandoned:
                return  # another thread has this place
            self._now[index] = None
            if outcome is not None:
                self._sink([outcome])
            self._done[index] += 1

    def _outcome(self, index: int, record: Record) -> Outcome | None:
        # A context of its own: variables that one handler sets do not reach the next.
        effects = self._attempts.effects
        if effects is not None and effects.takes(record):
            self._now[index] = record
            return copy_context().run(effects.run_in_thread, record)
        attempt = self._attempts.prepare(record)
        if isinstance(attempt, Prepared):
            self._now[index] = attempt
            run = self._run if attempt.scope is None else self._run_in_scope
            return copy_context().run(run, index, attempt)
        return attempt

    def _run_in_scope(self, index: int, attempt: Prepared) -> Outcome | None:
        assert attempt.scope is not None, "whoever calls this has looked"
        with attempt.scope:
            return self._run(index, attempt)

    def _run(self, index: int, attempt: Prepared) -> Outcome | None:
        """The outcome of `attempt`; None: it came to none, whoever owns the record next runs it."""
        try:
            value = self._attempts.timekeeper.call(attempt, self._leave)
        except Abandoned:
            raise
        except BaseException as error:  # SystemExit and the like end the attempt, not the thread
            return self._attempts.fail(attempt, error)
        return self._attempts.succeed(attempt, value)

    def _leave(self, attempt: Prepared, frames: list[FrameType]) -> None:
        """Go on without the thread that runs `attempt` and does not end: another takes its place.

        Called by the timekeeper.
        """
        index = next(i for i, one in enumerate(self._now) if one is attempt)
        outcome = self._attempts.leave(attempt, frames)
        self._left.append(self._threads[index])
        self._now[index] = None
        self._sink([outcome])
        self._done[index] += 1
        thread = self._threads[index] = self._thread(index)
        thread.start()
