"""The retry tiers of a queue: which one a wait takes, and where its topic is, made when needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.duration import parse_duration
from taskmill.runtime.errors import Unreachable
from taskmill.runtime.topics import Topics, ensure_retry, partition_count


class Tier(NamedTuple):
    """One fixed delay: its name, which ends that of its topic, and its length."""

    name: str
    ms: int


class Pass(NamedTuple):
    """Through which tier a wait goes next, and how many milliseconds are left after it."""

    tier: Tier
    left_ms: int


def next_pass(tiers: Sequence[Tier], wait_ms: int) -> Pass:
    """The shortest of `tiers` (in rising order) that is at least `wait_ms`, else the last one."""
    for tier in tiers:
        if tier.ms >= wait_ms:
            return Pass(tier, 0)
    return Pass(tiers[-1], wait_ms - tiers[-1].ms)


def tiers_of(settings: Settings) -> list[Tier]:
    """The tiers of every queue, in rising order."""
    return [Tier(name, round(parse_duration(name) * 1000)) for name in settings.retry_tiers]


class Place(NamedTuple):
    """Where what waits is put, and how many milliseconds are left of its wait after that."""

    topic: str
    partitions: int
    left_ms: int


class Tiers:
    """The tiers that `settings` name, for `topics`' queue."""

    def __init__(self, settings: Settings, topics: Topics, clock: Clock) -> None:
        self._settings = settings
        self._topics = topics
        self._clock = clock
        self._tiers = tiers_of(settings)
        #: Of topics that are there: their partitions.
        self._counts: dict[str, int] = {}

    def topic(self, wait_ms: int) -> str:
        """The topic of what waits so long."""
        return self._topics.retry(next_pass(self._tiers, wait_ms).tier.name)

    def reach(self, wait_ms: int, deadline: Deadline) -> int:
        """How many partitions the topic for `wait_ms` has, which is made now if need be.

        Raises TaskmillError where that cannot be said, or not be done.
        """
        tier, _ = next_pass(self._tiers, wait_ms)
        if (known := self._counts.get(tier.name)) is not None:
            return known
        topic, left = self._topics.retry(tier.name), max(0.1, deadline.left())
        found = partition_count(self._settings, topic, timeout_s=left, clock=self._clock)
        if found is None:
            queue, left = self._topics.queue, max(0.1, deadline.left())
            ensure_retry(self._settings, queue, [tier.name], timeout_s=left, clock=self._clock)
            found = partition_count(self._settings, topic, timeout_s=left, clock=self._clock)
        if found is None:
            raise Unreachable(f"topic {topic} is gone again, just after it was there")
        self._counts[tier.name] = found
        return found

    def place(self, wait_ms: int) -> Place:
        """Where what waits so long is put; `reach` comes first."""
        tier, left_ms = next_pass(self._tiers, wait_ms)
        return Place(self._topics.retry(tier.name), self._counts[tier.name], left_ms)

    def forget(self) -> None:
        """Ask anew which topics there are."""
        self._counts.clear()
