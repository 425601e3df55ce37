"""Waits for the end of a task, however long: one request after the other, as steps."""

from __future__ import annotations

from typing import NamedTuple

from taskmill.console.api.models import MAX_WAIT_S, TaskDetail
from taskmill.console.client import calls
from taskmill.console.client.wire import ATTEMPT_S, Pause, Steps, Way
from taskmill.runtime.clock import Deadline
from taskmill.runtime.errors import Gone, NotFound, ResultTimeout, Unreachable
from taskmill.schemas.states import Status, is_terminal

#: A request waits so long at the most: proxies cut what is silent for a minute.
_STRETCH_S = min(25.0, MAX_WAIT_S)
#: A large result that the store has not read by then is taken for one that is no longer kept.
_LATE_S = 12.0
#: Where an answer comes early, another one is asked for after this.
_EARLY_S = 0.5


class Ended(NamedTuple):
    """The task once it has ended, waited for `timeout_s`; None: as long as it takes.

    Raises ResultTimeout; Unreachable, where that is why nothing is known by then (without a time
    limit it is waited for).
    """

    id: str
    queue: str
    timeout_s: float | None

    def steps(self, way: Way) -> Steps[TaskDetail]:
        """Begin."""
        limit = Deadline(float("inf") if self.timeout_s is None else self.timeout_s, way.clock)
        while True:
            stretch = min(_STRETCH_S, limit.left())
            began = way.clock.monotonic()
            try:
                if (yield from self._wait(stretch, way, limit)):
                    found = yield from self._whole(way, limit)
                    if found is not None:
                        return found
            except Unreachable:
                if limit.over():
                    raise
            if limit.over():
                raise ResultTimeout(
                    f"task {self.id!r} has not ended within {self.timeout_s:g} s; it goes on"
                )
            if way.clock.monotonic() - began < min(_EARLY_S, stretch):
                yield Pause(min(_EARLY_S, limit.left()))

    def _wait(self, stretch: float, way: Way, limit: Deadline) -> Steps[bool]:
        asked = calls.result(self.id, queue=self.queue, wait=f"{stretch * 1000:.0f}ms")
        try:
            found = yield from asked.steps(_within(way, limit))
        except Gone:
            return True
        except NotFound:
            return False
        return is_terminal(found.status)

    def _whole(self, way: Way, limit: Deadline) -> Steps[TaskDetail | None]:
        """All of it; None where it has been begun anew meanwhile."""
        # A large result has a topic of its own, of which the store may read later.
        late = Deadline(_LATE_S, way.clock)
        while True:
            found = yield from calls.task(self.id, queue=self.queue).steps(_within(way, limit))
            is_late = found.large is not None and found.content_type is None
            if found.status is not Status.SUCCEEDED or not is_late or late.over():
                return found if is_terminal(found.status) else None
            yield Pause(_EARLY_S)


def _within(way: Way, limit: Deadline) -> Way:
    """One request's way: what is left, but no longer than an answer may take."""
    return way._replace(deadline=Deadline(min(max(limit.left(), 0.1), ATTEMPT_S), way.clock))


def ended(id: str, *, queue: str = "default", timeout_s: float | None = None) -> Ended:
    """A task once it has ended, waited for so many seconds (None: as long as it takes).

    Raises ResultTimeout where it goes on, or is not known, by then.
    """
    return Ended(id, queue, timeout_s)
