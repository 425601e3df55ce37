"""The schedules of one partition: their definitions, how far each has come, which is due next."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from taskmill.runtime.errors import TaskmillError, Unreachable
from taskmill.runtime.partition import partition_for
from taskmill.scheduler.calendar import Rule
from taskmill.scheduler.policy import Look, begin, look
from taskmill.scheduler.schedule import check
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import Schedule, ScheduleState

if TYPE_CHECKING:
    from taskmill.scheduler.firing import Fired

logger = logging.getLogger("taskmill.scheduler")

#: Between two questions to a registry that did not answer.
_AGAIN_MS = 5_000


class Entry:
    """One schedule. `state` is what Kafka holds, or what there is to begin with; `at` is when it is
    to be looked at next (UTC milliseconds; None: at no time)."""

    __slots__ = ("asks", "at", "made", "rule", "schedule", "state")

    def __init__(self, schedule: Schedule, rule: Rule, state: ScheduleState | None) -> None:
        self.schedule = schedule
        self.rule = rule
        self.state = begin(schedule, state)
        self.at: int | None = None
        #: It waits for what became of its last run.
        self.asks = False
        #: What it is to write at `at`, made before.
        self.made: Fired | None = None

    def look(self, now_ms: int, is_over: bool | None) -> Look:
        """What is due."""
        return look(self.schedule, self.rule, self.state, now_ms, is_over)


class Owned:
    """Partition `p` of `partitions`. For one thread."""

    def __init__(self, p: int, partitions: int, codec: Codec) -> None:
        self.p = p
        self._partitions = partitions
        self._codec = codec
        self.entries: dict[str, Entry] = {}
        #: States of no schedule, by key: to be removed.
        self.orphans: dict[bytes, None] = {}
        self._states: dict[bytes, ScheduleState] = {}
        self._broken: set[bytes] = set()
        #: What cannot be read before the registry answers.
        self._unread: dict[bytes, bytes] = {}
        self._tried_at = 0
        self._heap: list[tuple[int, str]] = []
        #: The same, of those for which nothing was made yet.
        self._ahead: list[tuple[int, str]] = []

    def load(
        self,
        states: Iterable[tuple[bytes, bytes]],
        definitions: Iterable[tuple[bytes, bytes]],
        now_ms: int,
    ) -> None:
        """Begin with what lies on the partition."""
        self._read_states(states)
        for key, value in definitions:
            self.define(key, value, now_ms)
        known = {id.encode() for id in self.entries} | self._broken | self._unread.keys()
        self.orphans = dict.fromkeys(key for key in self._states if key not in known)

    def reload(self, states: Iterable[tuple[bytes, bytes]], now_ms: int) -> None:
        """Go on from the states that lie there now, whatever was thought to have been written."""
        self._read_states(states)
        self.orphans = {key: None for key in self.orphans if key in self._states}
        for id, entry in self.entries.items():
            entry.state = begin(entry.schedule, self._states.get(id.encode()))
            self.wake(entry, now_ms)

    def define(self, key: bytes, value: bytes | None, now_ms: int) -> str | None:
        """A definition has come; no value removes it. The ID, where that is nobody's any more."""
        self._unread.pop(key, None)
        self._broken.discard(key)
        id = key.decode("utf-8", "replace")
        if value is not None:
            try:
                made = self._entry(key, value)
            except Unreachable:
                self._unread[key] = value
                return None
            except TaskmillError as error:
                self._broken.add(key)
                logger.error("schedule %r is not heeded: %s", id[:80], error)
            else:
                self.entries[id] = made
                self.orphans.pop(key, None)
                self.wake(made, now_ms)
                return None
        gone = self.entries.pop(id, None)
        if gone is not None:
            self._states[key] = gone.state
        if value is None and key in self._states:
            self.orphans[key] = None
        return id if gone is not None else None

    def read_again(self, now_ms: int) -> None:
        """Try those that could not be read for want of the registry, now and then: each try may
        take seconds."""
        if not self._unread or now_ms - self._tried_at < _AGAIN_MS:
            return
        for key, value in list(self._unread.items()):
            self.define(key, value, now_ms)
            if key in self._unread:
                break
        self._tried_at = now_ms

    def wake(self, entry: Entry, at_ms: int | None) -> None:
        """Have a schedule looked at, at a time."""
        entry.at, entry.made = at_ms, None
        if at_ms is not None:
            heappush(self._heap, (at_ms, entry.schedule.id))
            heappush(self._ahead, (at_ms, entry.schedule.id))

    @property
    def next_at(self) -> int | None:
        """When the next one is to be looked at."""
        return self._heap[0][0] if self._heap else None

    def due(self, now_ms: int, limit: int) -> list[Entry]:
        """Those that are to be looked at, at most `limit`; they come once."""
        found = self._pop(self._heap, now_ms, limit)
        for entry in found:
            entry.at = None
        return found

    def soon(self, until_ms: int, limit: int) -> list[Entry]:
        """Those that are to be looked at by then, at most `limit`; they come once for each time."""
        return self._pop(self._ahead, until_ms, limit)

    def _pop(self, heap: list[tuple[int, str]], until_ms: int, limit: int) -> list[Entry]:
        # Each once: the same time may be in a heap twice.
        found: dict[str, Entry] = {}
        while heap and heap[0][0] <= until_ms and len(found) < limit:
            at, id = heappop(heap)
            entry = self.entries.get(id)
            if entry is not None and entry.at == at:
                found[id] = entry
        return list(found.values())

    def removed(self, key: bytes) -> None:
        """An orphan's state is gone."""
        self.orphans.pop(key, None)
        self._states.pop(key, None)

    def _entry(self, key: bytes, value: bytes) -> Entry:
        schedule = self._codec.decode_schedule(value)
        if schedule.id.encode() != key:
            raise TaskmillError(f"its key is {key[:80]!r}, its ID {schedule.id!r:.80}")
        if (right := partition_for(key, self._partitions)) != self.p:
            raise TaskmillError(f"it lies on partition {self.p}; murmur2 of its key says {right}")
        old = self.entries.get(schedule.id)
        state = old.state if old is not None else self._states.get(key)
        return Entry(schedule, check(schedule), state)

    def _read_states(self, states: Iterable[tuple[bytes, bytes]]) -> None:
        self._states = {}
        for key, value in states:
            try:
                self._states[key] = self._codec.decode_schedule_state(value)
            except Unreachable:
                raise
            except TaskmillError as error:
                logger.error("the state of schedule %r is not heeded: %s", key[:80], error)
