"""What was replayed: one record each on `<prefix>.replayed.<queue>`, in the replay's transaction.

A letter stays where it lies; it no longer counts once such a record names its place. And no ID is
given a generation twice: the greatest that a replay gave it is found here.
"""

from __future__ import annotations

import json
from collections import Counter
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


class ReplayedIndex:
    """All that was replayed of a queue. `dlq_id`: the UUID of its DLQ as it is now; the offsets of
    one that was made anew mean other letters."""

    def __init__(self, topic: str, dlq_id: str | None) -> None:
        self.topic = topic
        self.dlq_id = dlq_id
        self.letters: dict[Place, Replayed] = {}
        #: The greatest generation that was given, by key.
        self.generations: dict[bytes, int] = {}
        #: How many each replay has replayed.
        self.counts: Counter[str] = Counter()
        self._reached: dict[int, int] = {}

    def refresh(self, admin: Admin, reader: Reader) -> None:
        """Read what was added."""
        count = admin.partitions(self.topic)
        if count is None:
            return
        starts, ends = admin.starts(self.topic, count), admin.ends(self.topic, count)
        for p, (start, end) in enumerate(zip(starts, ends, strict=True)):
            begin = max(start, self._reached.get(p, 0))
            for messages, reached in reader.read(self.topic, p, begin, end):
                for message in messages:
                    self.add(message.key(), message.value())
                self._reached[p] = reached

    def add(self, key: bytes | None, value: bytes | None) -> None:
        """Take in one record. Raises TaskmillError for what `record` did not write."""
        try:
            told: dict[str, Any] = json.loads(value or b"")
            one = Replayed(str(told["replay"]), int(told["at"]), int(told["generation"]))
            if told["letters"] and told["dlq_id"] == self.dlq_id:
                for place in told["letters"]:
                    self.letters[Place(*place)] = one
        except (ValueError, KeyError, TypeError) as error:
            raise TaskmillError(
                f"a record of {self.topic} cannot be read, another version's? ({error!r})"
            ) from None
        self.counts[one.replay] += 1
        if key is not None:
            self.generations[key] = max(one.generation, self.generations.get(key, 0))

    def next_generation(self, key: bytes | None, generation: int) -> int:
        """What a record of that generation is replayed as: greater than any that its ID had. It is
        given to nobody else from now on."""
        if key is None:
            return generation + 1
        given = max(generation, self.generations.get(key, 0)) + 1
        self.generations[key] = given
        return given

    def record(
        self, key: bytes | None, one: Replayed, letters: tuple[Place, ...]
    ) -> dict[str, Any]:
        """The arguments of `produce` that say so of `key`'s record; `letters` are its own."""
        told = {**one._asdict(), "dlq_id": self.dlq_id, "letters": letters}
        return {"topic": self.topic, "key": key, "value": json.dumps(told).encode()}
