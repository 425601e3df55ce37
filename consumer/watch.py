"""What is known of handlers while they run: `running` states, and suspects that have survived.

A task's first state is its outcome, unless it lasts: then the next transaction says that it runs.
Short ones cost nothing but a look at what is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from taskmill.consumer.attempt import Prepared, record_of
from taskmill.consumer.core import Core
from taskmill.consumer.record import Record
from taskmill.consumer.upkeep import Job
from taskmill.runtime.clock import Clock

#: A task that runs for so long has a state that says so.
AFTER_S = 1.0
EVERY_S = 0.25
#: A suspect that has outlived one whole interval of this is let alone: the next one starts.
SURVIVED_S = 5.0


class _Seen(NamedTuple):
    """Something under way: since when (monotonic seconds, UTC ms), and when its state was written
    last, if it was."""

    one: Record | Prepared
    started: float
    started_at: int
    told: float | None


class Watch:
    """Looks at what a worker's handlers do. For the upkeep's thread."""

    def __init__(
        self,
        running: Callable[[], list[Record | Prepared]],
        cores: Mapping[str, Core],
        window_ms: int,
        clock: Clock,
    ) -> None:
        """`running` tells what is under way, `cores` are its queues'; `window_ms` is how long a
        state is remembered."""
        self._running = running
        self._cores = cores
        self._clock = clock
        #: A state is written again well before it is forgotten.
        self._again_s = window_ms / 4000
        self._seen: dict[int, _Seen] = {}

    def jobs(self) -> list[Job]:
        return [
            Job("running states", EVERY_S, self.look),
            Job("suspects", SURVIVED_S, self.let_next),
        ]

    def look(self) -> None:
        """Note what has run for long enough, and again what has run for very long."""
        now, before = self._clock.monotonic(), self._seen
        self._seen = {}
        for one in self._running():
            seen = before.get(id(one)) or self._first(one, now)
            due = seen.started + AFTER_S if seen.told is None else seen.told + self._again_s
            if now >= due:
                record = record_of(one)
                self._cores[record.lease.queue].note(record, seen.started_at)
                seen = seen._replace(told=now)
            # It holds `one`, so that its id() stays its own.
            self._seen[id(one)] = seen

    def _first(self, one: Record | Prepared, now: float) -> _Seen:
        if isinstance(one, Prepared):
            return _Seen(one, one.started, one.started_at, None)
        return _Seen(one, now, self._clock.now_ms(), None)

    def let_next(self) -> None:
        """Suspects run one after the other, but a long one must not hold up the rest."""
        for core in self._cores.values():
            core.let_next_suspect()
