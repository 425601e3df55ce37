"""Async handlers, on one event loop in one thread.

A *runner* is an asyncio task that runs one handler after another for as long as records wait, so
that a handler which never suspends costs no task of its own. Whenever a runner suspends inside a
handler and records still wait, the next runner starts, up to `concurrency`.

Handlers must not see each other: a runner whose handler changed a context variable, or was
cancelled, ends there, and a fresh one with the loop's pristine context takes its place.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from typing import Any

from taskmill.consumer.attempt import Attempts, Effects, Prepared, cancelled, record_of
from taskmill.consumer.record import Lease, Outcome, Record
from taskmill.consumer.timeouts import Abandoned, frames_of_task
from taskmill.runtime.clock import Clock

Sink = Callable[[list[Outcome]], None]

#: How long cancelled handlers get to clean up when the worker stops.
STOP_S = 5.0

#: A runner of handlers that never suspend gives way after this long, so that timers, other
#: runners and finished outcomes are not held up. Two of these fit into the latency goal of 3 ms.
SLICE_S = 0.001


class LoopExecutor:
    """Runs async handlers; outcomes go to `sink` in lists, from the loop's thread."""

    def __init__(self, attempts: Attempts, concurrency: int, sink: Sink, clock: Clock) -> None:
        self._attempts = attempts
        self._concurrency = concurrency
        self._sink = sink
        self._clock = clock
        self._monotonic = clock.monotonic
        self._waiting: deque[Record] = deque()
        self._finished: list[Outcome] = []
        self._running: dict[asyncio.Task[None], Record | Prepared | None] = {}
        #: Runners whose handlers do not end, left behind.
        self._left: set[asyncio.Task[None]] = set()
        self._topping_up = False
        self._flushing = False
        self._stopping = False
        self._shedding = False
        self._has_shed = False
        self._active = 0
        self._pristine: Context | None = None
        self._thread = threading.Thread(target=self._main, name="taskmill-loop", daemon=True)

    # ---- any thread ---------------------------------------------------------------------------

    def start(self) -> None:
        # Not before: one that never runs is never closed, and complains of it at the very end.
        self.loop = asyncio.new_event_loop()
        self._thread.start()

    def submit(self, records: Sequence[Record]) -> None:
        """Queue `records`; runs them as runners come free."""
        self.loop.call_soon_threadsafe(self._enqueue, records)

    def cancel(self, leases: Sequence[Lease]) -> None:
        """Cancel what runs under ended leases; what waits is dropped when its turn comes."""
        if leases:
            self.loop.call_soon_threadsafe(self._cancel, frozenset(leases))

    def interrupt(self, records: Sequence[Record]) -> None:
        """They are to be cancelled (`Lease.cancelled` says so by now): what runs is told to end;
        what waits ends at once, but where its outcome may be stored already."""
        self.loop.call_soon_threadsafe(self._interrupt, records)

    def take_back(self, queue: str, give: Callable[[list[Record]], None]) -> None:
        """Hand what waits of `queue` to `give`, but for what has passed a gate."""
        self.loop.call_soon_threadsafe(self._take_back, queue, give)

    def shed(self) -> None:
        """Start nothing more: what waits is dropped, and what comes, but for what has passed a
        gate. What runs goes on."""
        self._shedding = True
        self.loop.call_soon_threadsafe(self._shed_all)

    def running(self) -> list[Record | Prepared]:
        """What is under way."""
        return [one for one in list(self._running.values()) if one is not None]

    def is_quiet(self) -> bool:
        """Whether nothing runs, and every outcome was handed to the sink."""
        if self._shedding and not self._has_shed:
            return False  # what was submitted before is still on its way to the loop
        return not (self._waiting or self._active or self._finished)

    def stop(self) -> None:
        """Cancel what runs, end the loop, wait for its thread."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._begin_stop)
            self._thread.join()

    # ---- the loop's thread --------------------------------------------------------------------

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        self._pristine = copy_context()
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def _begin_stop(self) -> None:
        self._stopping = True
        self._waiting.clear()
        for task in (*self._running, *self._left):
            task.cancel()
        self.loop.create_task(self._end())

    async def _end(self) -> None:
        if runners := (*self._running, *self._left):
            await asyncio.wait(runners, timeout=STOP_S)
        self._flush()
        self.loop.stop()

    def _enqueue(self, records: Sequence[Record]) -> None:
        self._waiting.extend(records)
        if self._shedding:
            self._shed()
        self._top_up()

    def _shed_all(self) -> None:
        self._shed()
        self._has_shed = True

    def _shed(self) -> None:
        gated = [record for record in self._waiting if record.is_gated]
        self._waiting.clear()
        self._waiting.extend(gated)

    def _take_back(self, queue: str, give: Callable[[list[Record]], None]) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        taken = [r for r in waiting if r.lease.queue == queue and not r.is_gated]
        self._waiting.extend(r for r in waiting if r.lease.queue != queue or r.is_gated)
        give(taken)

    def _cancel(self, leases: frozenset[Lease]) -> None:
        for task, one in self._running.items():
            if one is not None and record_of(one).lease in leases:
                task.cancel()

    def _interrupt(self, records: Sequence[Record]) -> None:
        wanted = {id(record): record for record in records}
        effects = self._attempts.effects
        waiting = list(self._waiting)
        self._waiting.clear()
        for record in waiting:
            if id(record) not in wanted or (effects is not None and effects.takes(record)):
                self._waiting.append(record)
            else:
                self._finish(cancelled(record, self._clock.now_ms()))
        for task, one in list(self._running.items()):
            if isinstance(one, Prepared):
                if id(one.record) in wanted:
                    task.cancel()
                    grace_s = self._attempts.timekeeper.grace_s
                    self.loop.call_later(grace_s, self._look_again, task, one)
            elif one is not None and id(one) in wanted:
                self._attempts.timekeeper.cancel(one)

    def _look_again(self, task: asyncio.Task[None], attempt: Prepared) -> None:
        """`attempt` was cancelled; the grace is over."""
        if self._running.get(task) is attempt:
            self._attempts.timekeeper.tell(attempt, is_left=True)
            self._leave(task, attempt)

    def _top_up(self) -> None:
        """Start one runner; once it has suspended, look whether another one is needed."""
        self._topping_up = False
        if self._waiting and len(self._running) < self._concurrency:
            assert self._pristine is not None, "the loop runs"
            task = self.loop.create_task(self._runner(), context=self._pristine.copy())
            self._running[task] = None
            task.add_done_callback(self._retire)
            self._topping_up = True
            self.loop.call_soon(self._top_up)

    def _retire(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._left.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.loop.call_exception_handler(
                {"message": "a runner failed outside its handler", "exception": error}
            )
        if self._waiting and not self._topping_up:
            self._top_up()

    async def _runner(self) -> None:
        me = asyncio.current_task()
        assert me is not None, "a runner is a task"
        waiting, prepare = self._waiting, self._attempts.prepare
        effects = self._attempts.effects
        until = self._monotonic() + SLICE_S
        while waiting:
            self._active += 1  # before the record is taken: `is_quiet` is asked by other threads
            record = waiting.popleft()
            if not record.lease.held:
                self._active -= 1
                continue
            outcome: Outcome | None
            if effects is not None and effects.takes(record):
                self._running[me] = record
                outcome = await self._run_with(effects, record)
                self._running[me] = None
            elif isinstance(attempt := prepare(record), Prepared):
                self._running[me] = attempt
                run = self._run if attempt.scope is None else self._run_in_scope
                outcome = await run(attempt, me)
                if me in self._left:
                    return  # its outcome was told when it was left
                self._running[me] = None
            else:
                outcome = attempt
            if outcome is None:
                self._active -= 1
                return
            self._finish(outcome)
            self._active -= 1
            if me.cancelling() or copy_context() != self._pristine:
                return
            if self._monotonic() >= until:
                await asyncio.sleep(0)
                until = self._monotonic() + SLICE_S

    async def _run_in_scope(self, attempt: Prepared, me: asyncio.Task[None]) -> Outcome | None:
        assert attempt.scope is not None, "whoever calls this has looked"
        with attempt.scope:
            return await self._run(attempt, me)

    async def _run(self, attempt: Prepared, me: asyncio.Task[None]) -> Outcome | None:
        try:
            if attempt.due is None:
                value = await attempt.definition.fn(**attempt.arguments)
            else:
                value = await self._run_in_time(attempt)
        except Abandoned:
            return None
        except asyncio.CancelledError as error:
            if me in self._left or self._stopping or not attempt.record.lease.held:
                return None  # cancelled by us: no outcome, whoever owns the record next runs it
            return self._attempts.fail(attempt, error)
        except BaseException as error:  # SystemExit and the like end the attempt, not the worker
            return None if me in self._left else self._attempts.fail(attempt, error)
        return None if me in self._left else self._attempts.succeed(attempt, value)

    async def _run_in_time(self, attempt: Prepared) -> Any:
        me = asyncio.current_task()
        assert me is not None, "a runner is a task"
        try:
            return await self._attempts.timekeeper.acall(attempt, lambda: self._leave(me, attempt))
        finally:
            if me in self._left:
                raise Abandoned

    def _leave(self, runner: asyncio.Task[None], attempt: Prepared) -> None:
        """Go on without `runner`, whose handler does not end: the next one takes its place."""
        if self._running.get(runner) is not attempt:
            return  # it was left when it was cancelled
        outcome = self._attempts.leave(attempt, frames_of_task(runner))
        del self._running[runner]
        self._left.add(runner)
        self._finish(outcome)
        self._active -= 1
        if not self._topping_up:
            self._top_up()

    async def _run_with(self, effects: Effects, record: Record) -> Outcome | None:
        try:
            return await effects.run(record)
        except asyncio.CancelledError:
            return None  # by us: a handler's own is an outcome

    def _finish(self, outcome: Outcome) -> None:
        self._finished.append(outcome)
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._finished:
            self._sink(self._finished.copy())
            self._finished.clear()
