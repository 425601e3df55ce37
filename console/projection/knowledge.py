"""Up to when everything is known: of each partition, of each topic, of all. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from taskmill.console.projection.sight import Partition, Sight
from taskmill.console.projection.writer import Progress


class Knowledge:
    """`as_of` of each partition: the time (UTC ms) up to which all of its records were read.

    A partition read up to its end is known up to when that end was asked for; one that is not, up
    to its last record's time, since the next is not older. Neither takes back what was known, but
    for what is in the future by this console's clock.
    """

    def __init__(self, as_of: int) -> None:
        """`as_of`: what the store knew."""
        self._known: dict[Partition, int] = {}
        self._as_of = as_of
        self._told: dict[str, tuple[int, int]] = {}

    def begin(self, partitions: Iterable[Partition]) -> None:
        """Read from now on. One that is new to the store was not there at `as_of`, or it would have
        been seen: it had nothing by then."""
        for one in partitions:
            self._known[one] = self._as_of

    def end(self, partitions: Iterable[Partition]) -> None:
        """They are read no more."""
        for one in partitions:
            self._known.pop(one, None)

    def read(self, partition: Partition, time: int, now: int) -> None:
        """A record of that time was read, and all before it."""
        known = self._known.get(partition)
        if known is not None and known < time:
            # A time of a client's own, not the broker's, may be any.
            self._known[partition] = min(time, max(now, known))

    def progress(self, sight: Sight | None, positions: Mapping[Partition, int]) -> Progress:
        """How far the store is once all that was read up to `positions` is in it."""
        if sight is None:
            return Progress(self._as_of, self._told)
        topics: dict[str, tuple[int, int]] = {}
        unread = not sight.is_whole
        for one, end in sight.ends.items():
            position = positions.get(one)
            if position is None:
                unread = True  # seen a moment ago, and not begun
                continue
            lag = max(end - position, 0)
            # Not beyond the question: a clock that was ahead (another console's, or this one's
            # before it was set right) would vouch, for as long, for what is not read.
            known = min(self._known.get(one, 0), sight.asked_at) if lag else sight.asked_at
            self._known[one] = known
            before = topics.get(one[0], (0, known))
            topics[one[0]] = before[0] + lag, min(before[1], known)
        as_of = min((known for _, known in topics.values()), default=sight.asked_at)
        if len(sight.ends) < sum(topic.partitions for topic in sight.topics.values()):
            unread = True  # of a partition without a leader no end is told
        known = self._as_of if unread else max(self._as_of, as_of)
        self._as_of = min(known, sight.asked_at)
        self._told = topics
        return Progress(self._as_of, topics)
