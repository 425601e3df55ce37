"""How many entries a topic holds that still count, kept up by reading what is new on it."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import NamedTuple

from confluent_kafka import Message

from taskmill.consumer.bounded import Reader
from taskmill.consumer.delayed import MOVE
from taskmill.consumer.replayed import Place

#: A topic that holds more offsets than this beyond what is known is not read.
MOST = 50_000


class Waiting(NamedTuple):
    """So many records, or, where not `is_exact`, so many at the most."""

    records: int
    is_exact: bool = True


class Tally:
    """The entries of one topic. For one thread."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._entries: dict[int, set[Hashable]] = {}
        self._reached: dict[int, int] = {}

    def _take(self, entries: set[Hashable], message: Message) -> None:
        """Enter what a record says."""
        raise NotImplementedError

    def _drop(self, entries: set[Hashable], start: int) -> None:
        """What lies before `start` is deleted."""

    def count(
        self,
        reader: Reader,
        spans: Mapping[int, tuple[int, int]],
        without: Collection[Hashable] = (),
    ) -> Waiting:
        """How many there are now, those in `without` aside; `spans` are the partitions' first and
        last offsets. Raises Unreachable, TaskmillError."""
        if any(end < self._reached.get(p, 0) for p, (_, end) in spans.items()):
            self.forget()  # made anew
        for p, (start, _) in spans.items():
            self._drop(self._entries.setdefault(p, set()), start)
            self._reached[p] = max(start, self._reached.get(p, 0))
        unread = sum(end - self._reached[p] for p, (_, end) in spans.items())
        if unread > MOST:
            return Waiting(sum(end - start for start, end in spans.values()), is_exact=False)
        for p, (_, end) in spans.items():
            for messages, reached in reader.read(self.topic, p, self._reached[p], end):
                for message in messages:
                    self._take(self._entries[p], message)
                self._reached[p] = reached
        found = sum(len(entries) for entries in self._entries.values())
        if without:
            found -= sum(1 for es in self._entries.values() for one in es if one in without)
        return Waiting(found)

    def forget(self) -> None:
        """Read all of it anew."""
        self._entries.clear()
        self._reached.clear()


class DelayedTally(Tally):
    """Tasks that wait for their time: a key each, deleted when it is passed on."""

    def _take(self, entries: set[Hashable], message: Message) -> None:
        key = message.key() or b""
        if message.value() is None:
            entries.discard(key)
        elif not key.startswith(MOVE):
            entries.add(key)


class LetterTally(Tally):
    """Dead letters, by their places."""

    def _take(self, entries: set[Hashable], message: Message) -> None:
        entries.add(Place(message.partition() or 0, message.offset() or 0))

    def _drop(self, entries: set[Hashable], start: int) -> None:
        gone = [one for one in entries if isinstance(one, Place) and one.offset < start]
        entries.difference_update(gone)
