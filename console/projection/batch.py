"""What was read since the last transaction, folded, and up to which offsets that goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from taskmill.console.projection.fold import Facts, Given, Key, Large, State

#: Queue, the DLQ's UUID, partition, offset.
LetterKey = tuple[str, str, int, int]


class Place(NamedTuple):
    """Up to where a partition was read: the next offset, and the broker's time of the last
    record (0: none yet)."""

    topic_id: str
    next_offset: int
    time: int


class LetterFact(NamedTuple):
    """A dead letter as its headers tell."""

    id: str | None
    name: str | None
    reason: str
    error_type: str
    error_message: str
    fingerprint: str
    died_at: int
    attempts: int
    generation: int


class ReplayFact(NamedTuple):
    """That a letter was replayed; the last time holds."""

    replayed_at: int
    replay: str


class Batch:
    """Records of any topics, in any order."""

    __slots__ = ("large", "letters", "places", "records", "replays", "tasks")

    def __init__(self) -> None:
        self.tasks: dict[Key, Facts] = {}
        self.large: dict[Key, Large] = {}
        self.letters: dict[LetterKey, LetterFact] = {}
        self.replays: dict[LetterKey, ReplayFact] = {}
        #: By topic and partition.
        self.places: dict[tuple[str, int], Place] = {}
        self.records = 0

    def add_state(self, key: Key, state: State) -> None:
        """A record of `state`."""
        facts = self.tasks.get(key)
        if facts is None:
            facts = self.tasks[key] = Facts()
            facts.states[state[:2]] = state
        else:
            facts.add(state)

    def add_task(self, key: Key, state: State, given: Given) -> None:
        """A record of `tasks`."""
        self.add_state(key, state)
        self.tasks[key].add_given(given)

    def add_large(self, key: Key, large: Large) -> None:
        """A record of `results`."""
        old = self.large.get(key)
        if old is None or large[:4] > old[:4]:
            self.large[key] = large

    def add_replay(self, key: LetterKey, replay: ReplayFact) -> None:
        """That a letter was replayed."""
        old = self.replays.get(key)
        if old is None or replay > old:
            self.replays[key] = replay

    def pieces(self) -> Iterator[Batch]:
        """What was read, each task and letter apart; without the places."""
        for kind in ("tasks", "large", "letters", "replays"):
            for key, fact in getattr(self, kind).items():
                piece = Batch()
                getattr(piece, kind)[key] = fact
                yield piece
