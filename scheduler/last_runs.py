"""Whether the last run of a schedule has ended: read from the state topics, never remembered."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

from taskmill.producer.reader import StateReader
from taskmill.producer.watch import Seen
from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import DecodeError, TaskmillError
from taskmill.schemas.models import ScheduleState
from taskmill.schemas.states import is_terminal

logger = logging.getLogger("taskmill.scheduler")

#: Our clock may be ahead of the brokers', whose stamps the reader looks back by.
_SKEW_MS = 5_000
_PAUSE_S = 1.0

Answer = Future[Seen | None]


class _Run:
    """What is being found out of one run. `end` tells of it by itself; `asked` looks now."""

    __slots__ = ("again_at", "asked", "end", "is_over", "queue", "since", "task_id")

    def __init__(self, task_id: str, queue: str, fired_at: int) -> None:
        self.task_id = task_id
        self.queue = queue
        self.since = max(0, fired_at - _SKEW_MS)
        self.is_over = False
        self.end: Answer | None = None
        self.asked: Answer | None = None
        #: Monotonic seconds before which nothing is asked, after an answer that was none.
        self.again_at = 0.0


class LastRuns:
    """Answers for the schedules of one thread, which is told by `tell` (any thread) when to ask
    again: its ID is given once an answer has come."""

    def __init__(
        self,
        reader: StateReader,
        forgotten_after_ms: int,
        clock: Clock,
        tell: Callable[[str], None],
    ) -> None:
        """Of a run that was fired longer ago than `forgotten_after_ms` no state may be left."""
        self._reader = reader
        self._forgotten_after_ms = forgotten_after_ms
        self._clock = clock
        self._tell = tell
        self._runs: dict[str, _Run] = {}

    def follow(self, state: ScheduleState) -> None:
        """A run was fired: have its end told."""
        self._run(state)

    def forget(self, schedule_id: str) -> None:
        """Nobody asks for that schedule any more."""
        run = self._runs.pop(schedule_id, None)
        if run is not None:
            _cancel(run)

    def is_over(self, state: ScheduleState) -> bool | None:
        """Whether the last run of `state` has ended, as of now; None: not known yet."""
        run = self._run(state)
        if run.is_over or self._has_told(state, run):
            return True
        if self._clock.monotonic() < run.again_at:
            return None
        if run.end is None:
            run.end = self._reader.end(run.queue, run.task_id, run.since)
            self._listen(state.id, run.end)
        if run.asked is None:
            # The end is told as soon as it was read; whether there is one already, by looking now.
            run.asked = self._reader.newest(run.queue, run.task_id, run.since)
            self._listen(state.id, run.asked)
            return None
        if not run.asked.done():
            return None
        answer = self._answer(state, run, run.asked)
        run.asked = None
        run.is_over = answer is True
        return answer

    def _has_told(self, state: ScheduleState, run: _Run) -> bool:
        """Whether its end has come by itself."""
        if run.end is not None and run.end.done():
            run.is_over = self._answer(state, run, run.end) is True
            run.end = None
        return run.is_over

    def close(self) -> None:
        """Forget all."""
        for schedule_id in list(self._runs):
            self.forget(schedule_id)

    def _run(self, state: ScheduleState) -> _Run:
        run = self._runs.get(state.id)
        if run is None or run.task_id != state.last_task_id:
            if run is not None:
                _cancel(run)
            assert state.last_task_id is not None, "asked of those that ran"
            queue = state.last_queue or "default"
            run = self._runs[state.id] = _Run(state.last_task_id, queue, state.fired_at or 0)
            run.end = self._reader.end(run.queue, run.task_id, run.since)
            self._listen(state.id, run.end)
        return run

    def _listen(self, schedule_id: str, answer: Answer) -> None:
        answer.add_done_callback(lambda _: self._tell(schedule_id))

    def _answer(self, state: ScheduleState, run: _Run, answer: Answer) -> bool | None:
        try:
            seen = answer.result()
        except CancelledError:
            return None
        except DecodeError as error:
            logger.warning("schedule %r: its last run counts as ended: %s", state.id, error)
            return True
        except TaskmillError as error:
            logger.warning("schedule %r: its last run: %s", state.id, error)
            run.again_at = self._clock.monotonic() + _PAUSE_S
            return None
        if seen is None:
            # Nothing of it yet, or nothing any more.
            return self._clock.now_ms() - (state.fired_at or 0) > self._forgotten_after_ms
        return is_terminal(seen.state.status)


def _cancel(run: _Run) -> None:
    for answer in (run.end, run.asked):
        if answer is not None:
            answer.cancel()
