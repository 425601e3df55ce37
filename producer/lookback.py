"""Reads a bounded stretch of a partition's past, for those who want the records of a few keys."""

from __future__ import annotations

from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition

from taskmill.producer.tail import Place, raise_if_lasting
from taskmill.producer.watch import Seeker

#: Records taken from the client in one go: a millisecond or two, so that the tail is not held up.
_BATCH = 1_000


class Stretch(NamedTuple):
    """What somebody wants read: from `start` up to, not including, `end`; None: to the end."""

    start: int
    end: int | None
    seeker: Seeker


class _Scan:
    """One partition being read, and for whom."""

    __slots__ = ("end", "seekers", "wanted")

    def __init__(self, stretches: list[Stretch]) -> None:
        self.seekers = [s.seeker for s in stretches]
        ends = [s.end for s in stretches]
        self.end = None if None in ends else max(e for e in ends if e is not None)
        self.wanted: dict[bytes, list[Seeker]] = {}
        for seeker in self.seekers:
            self.wanted.setdefault(seeker.key, []).append(seeker)


class LookBack:
    """Scans partitions, each once at a time, all side by side. Owned by one thread."""

    def __init__(self, consumer: Consumer) -> None:
        """`consumer` reads committed records and reports the ends of partitions."""
        self._consumer = consumer
        self._scans: dict[Place, _Scan] = {}
        self._next: dict[Place, list[Stretch]] = {}

    @property
    def is_busy(self) -> bool:
        return bool(self._scans)

    def add(self, place: Place, stretch: Stretch) -> None:
        """Read `stretch`, after what is being read of that partition. One scan serves many."""
        self._next.setdefault(place, []).append(stretch)

    def poll(self) -> int:
        """Start what waits, take what has come; returns how many records that were."""
        for place in [place for place in self._next if place not in self._scans]:
            self._start(place, self._next.pop(place))
        if not self._scans:
            return 0
        messages = self._consumer.consume(_BATCH, 0)
        for message in messages:
            topic, partition = message.topic(), message.partition()
            if topic is None or partition is None:
                continue
            scan = self._scans.get((topic, partition))
            if scan is None:
                continue  # fetched before its scan ended
            error, offset = message.error(), message.offset()
            if error is None:
                for seeker in scan.wanted.get(message.key() or b"", ()):
                    seeker.offer(message)
                if scan.end is not None and offset is not None and offset >= scan.end - 1:
                    self._finish((topic, partition), scan)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._finish((topic, partition), scan)
            else:
                raise_if_lasting(error)
        return len(messages)

    def _start(self, place: Place, stretches: list[Stretch]) -> None:
        start = min(s.start for s in stretches)
        self._scans[place] = _Scan(stretches)
        self._consumer.incremental_assign([TopicPartition(*place, start)])

    def _finish(self, place: Place, scan: _Scan) -> None:
        del self._scans[place]
        self._consumer.incremental_unassign([TopicPartition(*place)])
        for seeker in scan.seekers:
            seeker.looked_back()
