"""Where a queue's tasks wait for their time: retry tiers, the delayed topic; made when needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from taskmill.consumer.record import Outcome
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.duration import parse_duration
from taskmill.runtime.errors import Unreachable
from taskmill.runtime.topic_table import Kind
from taskmill.runtime.topics import Topics, ensure, ensure_retry, partition_count


class Tier(NamedTuple):
    """One fixed delay: its name, which ends that of its topic, and its length."""

    name: str
    ms: int


def tier_of(tiers: Sequence[Tier], wait_ms: int) -> Tier | None:
    """The shortest of `tiers` (in rising order) that is at least `wait_ms`; None: all are less."""
    for tier in tiers:
        if tier.ms >= wait_ms:
            return tier
    return None


def tiers_of(settings: Settings) -> list[Tier]:
    """The tiers of every queue, in rising order."""
    return [Tier(name, round(parse_duration(name) * 1000)) for name in settings.retry_tiers]


class Tiers:
    """The tiers that `settings` name, and the delayed topic, of `topics`' queue.

    A wait rounds up to a tier; one that is longer than the last, or that has an exact end, is the
    delayed topic's.
    """

    def __init__(self, settings: Settings, topics: Topics, clock: Clock) -> None:
        self._settings = settings
        self._topics = topics
        self._clock = clock
        self._tiers = tiers_of(settings)
        self._names = {tier: topics.retry(tier.name) for tier in self._tiers}
        #: Of topics that are there: their partitions.
        self._counts: dict[str, int] = {}

    def _tier(self, outcome: Outcome) -> Tier | None:
        if outcome.due_at is not None or outcome.retry_ms is None:
            return None
        return tier_of(self._tiers, outcome.retry_ms)

    def topic(self, outcome: Outcome) -> str:
        """The topic in which `outcome`, which goes on, waits."""
        tier = self._tier(outcome)
        return self._topics.delayed if tier is None else self._names[tier]

    def is_delayed(self, outcome: Outcome) -> bool:
        """Whether that is the delayed topic."""
        return self._tier(outcome) is None

    def is_there(self, outcome: Outcome) -> bool:
        """Whether that topic is known to be there."""
        return self.topic(outcome) in self._counts

    def reach(self, outcome: Outcome, deadline: Deadline) -> int:
        """How many partitions that topic has, which is made now if need be.

        Raises TaskmillError where that cannot be said, or not be done.
        """
        topic, tier = self.topic(outcome), self._tier(outcome)
        if (known := self._counts.get(topic)) is not None:
            return known
        found = self._count(topic, deadline)
        if found is None:
            queue, left = self._topics.queue, max(0.1, deadline.left())
            if tier is None:
                ensure(self._settings, queue, [Kind.DELAYED], timeout_s=left, clock=self._clock)
            else:
                ensure_retry(self._settings, queue, [tier.name], timeout_s=left, clock=self._clock)
            found = self._count(topic, deadline)
        if found is None:
            raise Unreachable(f"topic {topic} is gone again, just after it was there")
        self._counts[topic] = found
        return found

    def _count(self, topic: str, deadline: Deadline) -> int | None:
        left = max(0.1, deadline.left())
        return partition_count(self._settings, topic, timeout_s=left, clock=self._clock)

    def partitions(self, outcome: Outcome) -> int:
        """As `reach`, which comes first."""
        return self._counts[self.topic(outcome)]

    def forget(self) -> None:
        """Ask anew which topics there are."""
        self._counts.clear()
