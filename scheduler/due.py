"""What is to be written of a partition's schedules now; made before it is due, where it can be.

A thousand schedules that are due in one instant cost their scheduler a tenth of a second of looks
and encoding. Most of that is done before, on the guess that a last run will have ended by then.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any, NamedTuple

from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.meter import Meter
from taskmill.scheduler.firing import Fired, Firing, with_traces
from taskmill.scheduler.last_runs import LastRuns
from taskmill.scheduler.owned import Entry, Owned
from taskmill.scheduler.policy import GRACE_MS, Look, delay_ms
from taskmill.schemas.models import Schedule

logger = logging.getLogger("taskmill.scheduler")

#: Schedules looked at, records written, and their bytes, in one transaction; one schedule's always
#: go together.
PER_PASS, PER_TRANSACTION, BYTES = 2_000, 4_000, 16 * 1024 * 1024
#: A schedule whose queue cannot be found now, or whose last run nothing is told of, is tried again.
AGAIN_MS = 1_000
#: How long before its time a run is made, and how many at once, which takes some milliseconds.
AHEAD_MS, AT_ONCE = 600, 50
#: One that was made is not used so long after its time: other times may be due too.
STALE_MS = 1_000


class Batch(NamedTuple):
    """What one transaction writes: runs and states, and removals of states, by key."""

    fired: list[Fired]
    orphans: list[bytes]
    messages: list[dict[str, Any]]


class Due:
    """Looks at schedules, for the one thread that serves them."""

    def __init__(self, firing: Firing, last_runs: LastRuns, clock: Clock, meter: Meter) -> None:
        self._meter = meter
        self._firing = firing
        self._last_runs = last_runs
        self._clock = clock
        self._complained: dict[str, str] = {}
        #: Schedules that wait for what became of their last run.
        self.asking: set[str] = set()
        #: Runs fired so far, by schedule.
        self.fired: Counter[str] = Counter()

    def forget(self, id: str) -> None:
        """That schedule is no longer ours."""
        self._last_runs.forget(id)
        self.asking.discard(id)
        self._complained.pop(id, None)

    def batch(self, owned: Owned) -> Batch | None:
        """What is to be written now, if anything."""
        now = self._clock.now_ms()
        owned.read_again(now)
        batch = Batch([], list(owned.orphans)[:PER_PASS], [])
        batch.messages.extend(self._firing.removal(key, owned.p) for key in batch.orphans)
        size = 0
        for entry in owned.due(now, PER_PASS):
            if len(batch.messages) >= PER_TRANSACTION or size >= BYTES:
                owned.wake(entry, now)
            elif (one := self._look(owned, entry, now)) is not None:
                one = with_traces(one)
                batch.fired.append(one)
                batch.messages.extend(one.messages)
                size += sum(len(message["value"]) for message in one.messages)
        return batch if batch.messages else None

    def settle(self, owned: Owned, batch: Batch) -> None:
        """It is written."""
        for key in batch.orphans:
            owned.removed(key)
        for entry, seen, state, _ in batch.fired:
            missed = state.missed - entry.state.missed
            if missed:
                logger.warning("schedule %r: %d times were missed", state.id, missed)
            self._count(entry.schedule, seen, missed)
            entry.state = state
            owned.wake(entry, seen.next_at)
            self.fired[state.id] += len(seen.fire)
            if state.last_task_id is not None and entry.schedule.overlap != "allow":
                self._last_runs.follow(state)

    def _count(self, schedule: Schedule, seen: Look, missed: int) -> None:
        labels, now = (schedule.queue, schedule.task), self._clock.now_ms()
        self._meter.add("taskmill_misfires_total", *labels, by=missed)
        if not seen.fire:
            return
        self._meter.add("taskmill_schedule_runs_total", *labels, by=len(seen.fire))
        self._meter.add("taskmill_tasks_enqueued_total", *labels, by=len(seen.fire))
        for nominal in seen.fire:
            late_ms = now - nominal - delay_ms(schedule, nominal)
            if late_ms <= GRACE_MS:
                seconds = max(0, late_ms) / 1000
                self._meter.observe("taskmill_schedule_lateness_seconds", *labels, seconds=seconds)

    def failed(self, batch: Batch) -> None:
        """It is not written, or perhaps it is: its queues may have other partitions than they
        had."""
        for queue in {one.entry.schedule.queue for one in batch.fired}:
            self._firing.forget(queue)

    def make_ahead(self, owned: Owned) -> bool:
        """Make what some of those write that are due soon. False: there are no more of them."""
        soon = owned.soon(self._clock.now_ms() + AHEAD_MS, AT_ONCE)
        for entry in soon:
            at = entry.at
            assert at is not None, "it is due soon"
            seen = entry.look(at, True)
            if seen.fire and not _is_past(seen.next_at, at):
                try:
                    entry.made = self._firing.fire(entry, seen, owned.p, at)
                except TaskmillError:
                    continue  # it is told when it is due
        return len(soon) == AT_ONCE

    def _look(self, owned: Owned, entry: Entry, now: int) -> Fired | None:
        """What is due of one schedule; where nothing is, it is looked at when something is."""
        made = self._made(entry, now)
        if made is not None:
            return made
        id = entry.schedule.id
        seen = entry.look(now, None)
        entry.asks = False
        if seen.asks:
            is_over = self._last_runs.is_over(entry.state)
            if is_over is None:
                entry.asks = True
                self.asking.add(id)
                owned.wake(entry, now + AGAIN_MS)
                return None
            seen = entry.look(now, is_over)
        self.asking.discard(id)
        if seen.state is entry.state:
            owned.wake(entry, seen.next_at)
            return None
        try:
            return self._firing.fire(entry, seen, owned.p, now)
        except TaskmillError as error:
            if self._complained.get(id) != str(error):
                self._complained[id] = str(error)
                logger.error("schedule %r cannot be fired: %s; tried on", id, error)
            owned.wake(entry, now + AGAIN_MS)
            return None

    def _made(self, entry: Entry, now: int) -> Fired | None:
        """What was made of it before, where that still holds."""
        made, entry.made = entry.made, None
        if made is None or now - made.state.written_at > STALE_MS:
            return None
        if _is_past(made.seen.next_at, now):
            return None
        waits = entry.schedule.overlap != "allow" and entry.state.last_task_id is not None
        return made if not waits or self._last_runs.is_over(entry.state) else None


def _is_past(at: int | None, now: int) -> bool:
    return at is not None and at <= now
