"""What a replay is asked to do, what it moves, and how it tells where it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from taskmill.consumer.dlq import (
    GENERATION,
    OMITTED,
    PREFIX,
    REPLACED,
    REPLAY,
    REPLAYED_AT,
    header_bytes,
)
from taskmill.consumer.record import Headers
from taskmill.consumer.replay_journal import Job
from taskmill.consumer.replayed import Entry, Place, Replayed, ReplayedIndex

#: Headers that a failure wrote and a record on `tasks` has not, or that are written anew.
_NOT_KEPT = REPLACED | {*OMITTED, f"{PREFIX}task", GENERATION, REPLAY, REPLAYED_AT}
#: Ours, and Kafka's own of a batch.
_OURS_BYTES = 512


class Move(NamedTuple):
    """A record that is to be put on `topic` [partition] again, as `generation`; `letters` are those
    that no longer count then. `known`: it could be read as the task that its key says."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    generation: int
    letters: tuple[Place, ...] = ()
    known: bool = True

    @property
    def kept(self) -> Headers:
        """The headers that go with it: not those that its failures wrote."""
        return [one for one in self.headers if one[0] not in _NOT_KEPT]

    @property
    def size(self) -> int:
        """What it takes on the topic, at the most."""
        beside = len(self.key or b"") + header_bytes(self.kept)
        return len(self.value or b"") + beside + _OURS_BYTES


def replay_records(
    index: ReplayedIndex, replay: str, move: Move, now_ms: int
) -> Iterator[dict[str, Any]]:
    """The record that the replay of that name puts on `tasks`, and the one that says that it was
    replayed: arguments of `produce`."""
    ours = {REPLAY: replay, REPLAYED_AT: str(now_ms), GENERATION: str(move.generation)}
    yield {
        "topic": move.topic,
        "partition": move.partition,
        "key": move.key,
        "value": move.value,
        "headers": [*move.kept, *((name, text.encode()) for name, text in ours.items())],
    }
    one = Replayed(replay, now_ms, move.generation)
    yield index.record(move.key, Entry(one, move.known, move.letters))


class Source(Protocol):
    """What is to be replayed."""

    #: "letters" or "tasks".
    what: str
    #: What was meant, and could not be replayed, by why.
    left: Counter[str]

    def moves(self, job: Job) -> Generator[Move, None, None]:
        """What this job has not replayed yet."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What a replay is asked to do. `asked`: the options of its command as JSON has them, for the
    journal, and to find the one that it goes on with; `since` and `until`: the times it means, UTC
    ms.

    `limit` counts records, `rate` is records a second; the first `canary` records are waited for,
    up to `canary_wait` seconds; where more than the share `abort_above` of them failed, it ends.
    """

    asked: dict[str, Any]
    since: int | None = None
    until: int | None = None
    limit: int | None = None
    rate: float | None = None
    canary: int | None = None
    abort_above: float = 0.2
    canary_wait: float = 600.0


class Progress(NamedTuple):
    """Where a replay stands: what it and those that it goes on with replayed; in words, what it
    waits for."""

    replayed: int
    waiting: str = ""
