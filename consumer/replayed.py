"""What was replayed: one record each on `<prefix>.replayed.<queue>`, in the replay's transaction.

A letter stays where it lies; it no longer counts once such a record names its place. And no ID is
given a generation twice: the greatest that a replay gave it is found here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from taskmill.consumer.admin import Admin
from taskmill.consumer.bounded import Reader
from taskmill.runtime.errors import TaskmillError


class Place(NamedTuple):
    """Where a letter lies in the DLQ."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


class Replayed(NamedTuple):
    """One replay of one letter or task: by which replay, when (UTC ms), as which generation."""

    replay: str
    at: int
    generation: int


class Entry(NamedTuple):
    """A record of the topic. `known`: its key is known to be its task's ID, whose generations it
    counts among; garbage may have any key. `letters`: those that count no more."""

    one: Replayed
    known: bool
    letters: tuple[Place, ...]


class ReplayedIndex:
    """All that was replayed of a queue. `dlq_id`: the UUID of its DLQ as it is now; the offsets of
    one that was made anew mean other letters."""

    def __init__(self, topic: str, dlq_id: str | None) -> None:
        self.topic = topic
        self.dlq_id = dlq_id
        self.letters: dict[Place, Replayed] = {}
        #: The greatest generation that each key was given, and by which replay.
        self.generations: dict[bytes, int] = {}
        self.replays: dict[bytes, str] = {}
        #: How many each replay has replayed.
        self.counts: Counter[str] = Counter()
        self._reached: dict[int, int] = {}

    def refresh(self, admin: Admin, reader: Reader) -> None:
        """Read what was added."""
        for key, value in self._read(admin, reader, self._reached):
            self.add(key, value)

    def pairs(self, admin: Admin, reader: Reader, replay: str) -> list[tuple[bytes | None, int]]:
        """Key and generation of all that a replay has replayed, read anew."""
        records = self._read(admin, reader, {})
        entries = ((key, self._parse(value).one) for key, value in records)
        return [(key, one.generation) for key, one in entries if one.replay == replay]

    def _read(
        self, admin: Admin, reader: Reader, reached: dict[int, int]
    ) -> Iterator[tuple[bytes | None, bytes | None]]:
        """Keys and values from where `reached` says, by partition; it is moved on."""
        count = admin.partitions(self.topic)
        if count is None:
            return
        starts, ends = admin.starts(self.topic, count), admin.ends(self.topic, count)
        for p, (start, end) in enumerate(zip(starts, ends, strict=True)):
            begin = max(start, reached.get(p, 0))
            for messages, position in reader.read(self.topic, p, begin, end):
                yield from ((message.key(), message.value()) for message in messages)
                reached[p] = position

    def add(self, key: bytes | None, value: bytes | None) -> None:
        """Take in one record. Raises TaskmillError for what `record` did not write."""
        one, known, letters = self._parse(value)
        self.letters.update(dict.fromkeys(letters, one))
        self.counts[one.replay] += 1
        if key is not None and known and one.generation >= self.generations.get(key, 0):
            self.generations[key], self.replays[key] = one.generation, one.replay

    def _parse(self, value: bytes | None) -> Entry:
        try:
            told: dict[str, Any] = json.loads(value or b"")
            one = Replayed(str(told["replay"]), int(told["at"]), int(told["generation"]))
            places = told["letters"] if told["dlq_id"] == self.dlq_id else ()
            return Entry(one, bool(told["known"]), tuple(Place(*place) for place in places))
        except (ValueError, KeyError, TypeError) as error:
            raise TaskmillError(
                f"a record of {self.topic} cannot be read, another version's? ({error!r})"
            ) from None

    def next_generation(self, key: bytes, generation: int) -> int:
        """What a record of that generation is replayed as: greater than any that its ID had. It is
        given to nobody else from now on."""
        given = max(generation, self.generations.get(key, 0)) + 1
        self.generations[key] = given
        return given

    def record(self, key: bytes | None, entry: Entry) -> dict[str, Any]:
        """The arguments of `produce` that say so of `key`'s record."""
        one, known, letters = entry
        told = {**one._asdict(), "known": known, "dlq_id": self.dlq_id, "letters": letters}
        return {"topic": self.topic, "key": key, "value": json.dumps(told).encode()}
