"""A history of what happened to tasks, in the manner of Jepsen, and the check of what must hold.

Three parties write it, none of them the code under test: the test's producer (`asked`, `acked`),
the handlers (`starts`, a line each in a file), and a read_committed reader of all topics (`placed`
on tasks, `outcomes` on state, `letters` on the DLQ), beside the group's committed offsets. All
times are the machine's monotonic clock, in seconds, which is one for all processes.

`check(history)` returns what is wrong, one line each; nothing where all is well.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from support.witness import TERMINAL

#: Why a task may be dead though no handler of it ever began.
NEVER_BEGAN = frozenset(
    {"undecodable", "invalid_payload", "unknown_task", "rejected", "crash_loop", "abandoned"}
)
#: A worker that was cut off or stood still may have lost its partitions without knowing: what it
#: began until it was told, a session later at the most, is allowed ("outside effects: at least once
#: after a lost partition"). What it would commit of it is not.
UNAWARE_S = 7.0
#: More lines than this say nothing new.
TOLD = 10


class Identity(NamedTuple):
    """What has one outcome: a task's ID and generation, or garbage's place and 0."""

    key: bytes
    generation: int = 0


class Place(NamedTuple):
    """A record on the tasks topic."""

    partition: int
    offset: int

    def key(self, topic: str) -> bytes:
        """What garbage that lies there is known by."""
        return b"\xff" + f"{topic}/{self.partition}/{self.offset}".encode()


class Asked(NamedTuple):
    """A record that the test's producer was given."""

    identity: Identity
    is_garbage: bool = False
    #: Its handler may begin once at the most, whatever fails.
    at_most_once: bool = False


class Acked(NamedTuple):
    """The broker acknowledged it; `place` is None where it did not say where it lies."""

    time: float
    asked: Asked
    place: Place | None


class Start(NamedTuple):
    """A handler began, in process `pid`."""

    time: float
    pid: int
    identity: Identity
    seq: int
    attempt: int


class Outcome(NamedTuple):
    """A committed state, and when the reader had it; it lies at `offset` of state[partition]."""

    time: float
    identity: Identity
    seq: int
    status: str
    worker: str
    partition: int
    offset: int
    source: Place


class Letter(NamedTuple):
    """A committed dead letter."""

    time: float
    reason: str
    source: Place
    key: bytes = b""
    attempts: int = 1


class Committed(NamedTuple):
    """The group's stable offset of a partition, when it was looked at."""

    time: float
    partition: int
    offset: int


class Away(NamedTuple):
    """Process `pid` stood still or was cut off from its broker."""

    pid: int
    since: float
    until: float


class History:
    """Lists that only grow, in the order in which their parties wrote them.

    `topic` is the tasks topic. What is pending is kept up while it is written, for those who wait;
    `check` counts anew.
    """

    def __init__(self, topic: str = "tasks") -> None:
        self.topic = topic
        self.asked: list[Asked] = []
        self.acked: list[Acked] = []
        self.starts: list[Start] = []
        #: Records of the tasks topic as the reader saw them; garbage, and copies by workers, too.
        self.placed: list[tuple[bytes | None, Place]] = []
        self.outcomes: list[Outcome] = []
        self.letters: list[Letter] = []
        self.committed: list[Committed] = []
        self.away: list[Away] = []
        #: How often each worker (by slot) restored each partition: it owns one only after that.
        self.restores: Counter[tuple[str, int]] = Counter()
        #: The offset behind the last record of each tasks partition.
        self.ends: dict[int, int] = {}
        self._lock = threading.Lock()
        self._pending: dict[Identity, Acked] = {}
        self._ended: dict[bytes, int] = {}

    def ack(self, acked: Acked) -> None:
        """The broker acknowledged a record."""
        with self._lock:
            self.acked.append(acked)
            identity = _identity(self.topic, acked)
            if self._ended.get(identity.key, -1) < identity.generation:
                self._pending.setdefault(identity, acked)

    def place(self, key: bytes | None, partition: int, offset: int) -> None:
        """A record of the tasks topic was read."""
        self.placed.append((key, Place(partition, offset)))
        self.ends[partition] = max(offset + 1, self.ends.get(partition, 0))

    def state(self, key: bytes, state: dict[str, Any], partition: int, offset: int) -> None:
        """A TaskState was read just now."""
        identity = Identity(key, state["generation"])
        outcome = Outcome(
            time.monotonic(),
            identity,
            state["seq"],
            state["status"],
            state["worker"],
            partition,
            offset,
            Place(state["source_partition"], state["source_offset"]),
        )
        with self._lock:
            self.outcomes.append(outcome)
            if outcome.status in TERMINAL:
                # Of one ID only the newest record in flight is marked: it settles earlier ones.
                for generation in range(self._ended.get(key, -1) + 1, identity.generation + 1):
                    self._pending.pop(Identity(key, generation), None)
                self._ended[key] = max(identity.generation, self._ended.get(key, -1))

    def letter(self, key: bytes | None, headers: dict[str, bytes]) -> None:
        """A dead letter was read just now."""
        place = Place(
            int(headers["taskmill-original-partition"]), int(headers["taskmill-original-offset"])
        )
        reason, attempts = headers["taskmill-reason"].decode(), int(headers["taskmill-attempts"])
        self.letters.append(Letter(time.monotonic(), reason, place, key or b"", attempts))

    @property
    def pending(self) -> list[Acked]:
        """What was acknowledged and has no terminal outcome yet."""
        with self._lock:
            return list(self._pending.values())

    def copy(self) -> History:
        """As it is now, while others write on."""
        new = History(self.topic)
        for name in _LISTS:
            setattr(new, name, list(getattr(self, name)))
        new.restores = Counter(self.restores)
        return new


_LISTS = ("asked", "acked", "starts", "placed", "outcomes", "letters", "committed", "away")


def _identity(topic: str, acked: Acked) -> Identity:
    """What the outcome of an acknowledged record is known by."""
    if acked.asked.is_garbage:
        assert acked.place is not None, "garbage is known by its place"
        return Identity(acked.place.key(topic))
    return acked.asked.identity


class StartFile:
    """Where handlers note that they began: a line each, appended whole, whatever kills them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    @staticmethod
    def note(path: Path, key: str, generation: int, seq: int, attempt: int) -> None:
        """Called by handlers, first of all. A written line outlives a killed process."""
        line = f"{time.monotonic_ns()} {os.getpid()} {generation} {seq} {attempt} {key}\n"
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def new(self) -> Iterator[Start]:
        """The starts that were noted since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole = file.read()
        whole = whole[: whole.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            at, pid, generation, seq, attempt, key = line.split(b" ", 5)
            yield Start(
                int(at) / 1e9, int(pid), Identity(key, int(generation)), int(seq), int(attempt)
            )


def check(history: History) -> list[str]:
    """What is wrong with `history`, once all was drained: a line for each violation."""
    now = history.copy()
    found: list[str] = []
    for rule in _RULES:
        lines = list(rule(now))
        found += lines[:TOLD]
        if len(lines) > TOLD:
            found.append(f"… and {len(lines) - TOLD} more of that kind")
    return found


def _nothing_lost(history: History) -> Iterator[str]:
    newest = _newest_ended(history.outcomes)
    for one in history.acked:
        key, generation = _identity(history.topic, one)
        if newest.get(key, -1) < generation:
            yield f"lost: acknowledged, and no terminal outcome: {one}"


def _conserved(history: History) -> Iterator[str]:
    """Pending, counted from topics alone: records on tasks less those settled or passed."""
    there = {place for _, place in history.placed}
    keys = {key for key, _ in history.placed}
    for one in history.acked:
        if one.asked.identity.key not in keys if one.place is None else one.place not in there:
            yield f"vanished: acknowledged, and not on the tasks topic: {one}"
    committed = {one.partition: one.offset for one in history.committed}
    newest = _newest_ended(history.outcomes)
    for key, place in history.placed:
        if committed.get(place.partition, 0) <= place.offset:
            yield f"pending: {key!r} at {place}, the group's offset is {committed}"
        elif (key or b"") not in newest and place.key(history.topic) not in newest:
            yield f"passed over: {key!r} at {place} lies below the group's offset, without outcome"


def _one_outcome_each(history: History) -> Iterator[str]:
    ends: dict[Identity, list[Outcome]] = defaultdict(list)
    each: dict[tuple[Identity, int], list[Outcome]] = defaultdict(list)
    for one in history.outcomes:
        if one.status in TERMINAL:
            ends[one.identity].append(one)
        if one.status != "running":
            each[one.identity, one.seq].append(one)
    for several in ends.values():
        if len(several) > 1:
            yield f"two terminal outcomes: {several}"
    for several in each.values():
        if len(several) > 1 and any(one.status not in TERMINAL for one in several):
            yield f"two outcomes of one seq: {several}"


def _nothing_from_nowhere(history: History) -> Iterator[str]:
    known = {one.identity for one in history.asked if not one.is_garbage}
    garbage = {one.identity.key for one in history.asked if one.is_garbage}
    places = {place.key(history.topic) for key, place in history.placed if key in garbage}
    for one in history.outcomes:
        if one.identity not in known and one.identity.key not in places:
            yield f"from nowhere: never enqueued: {one}"


def _begun_before_done(history: History) -> Iterator[str]:
    began: dict[Identity, float] = {}
    for start in history.starts:
        began[start.identity] = min(start.time, began.get(start.identity, start.time))
    reasons = {one.source: one.reason for one in history.letters}
    for one in history.outcomes:
        if one.status not in TERMINAL or began.get(one.identity, one.time + 1) <= one.time:
            continue
        if one.status == "succeeded" or reasons.get(one.source) not in NEVER_BEGAN:
            yield f"never began: {one}, {reasons.get(one.source)}"


def _not_again(history: History) -> Iterator[str]:
    visible: dict[Identity, Outcome] = {}
    for one in history.outcomes:
        if one.status in TERMINAL:
            visible.setdefault(one.identity, one)
    for start in history.starts:
        done = visible.get(start.identity)
        if done is not None and start.time > done.time and not _unaware(history, start):
            yield f"run again though done: {start} after {done}"


def _unaware(history: History, start: Start) -> bool:
    return any(
        one.pid == start.pid and one.since <= start.time <= one.until + UNAWARE_S
        for one in history.away
    )


def _at_most_once(history: History) -> Iterator[str]:
    once = {one.identity for one in history.asked if one.at_most_once}
    begun = Counter((one.identity, one.seq) for one in history.starts if one.identity in once)
    for (identity, seq), count in begun.items():
        if count > 1:
            yield f"at most once, and begun {count} times: {identity}, seq {seq}"


def _letters_match(history: History) -> Iterator[str]:
    # Each hand-over makes a place of its own, and letters name the first attempt's: known by ID.
    ended = [one for one in history.outcomes if one.status == "dead"]
    dead = Counter(one.identity.key if one.seq else one.source for one in ended)
    handed = {one.identity.key for one in ended if one.seq}
    letters = Counter(one.key if one.key in handed else one.source for one in history.letters)
    for place in dead - letters:
        yield f"dead without a letter: what came from {place}"
    for place in letters - dead:
        yield f"a letter too many: of what came from {place}"


def _forwards_only(history: History) -> Iterator[str]:
    last: dict[int, int] = {}
    for one in history.committed:
        if one.offset < last.get(one.partition, 0):
            yield f"offsets went back: {one}, it was {last[one.partition]}"
        last[one.partition] = one.offset


def _owners_in_turn(history: History) -> Iterator[str]:
    """On state[p] each owner's marks stand together: its epochs are as many as its restores. A mark
    that a former owner commits after the next one began splits that one's row in two."""
    rows: Counter[tuple[str, int]] = Counter()
    last: dict[int, str] = {}
    for one in sorted(history.outcomes, key=lambda o: (o.partition, o.offset)):
        if last.get(one.partition) != one.worker:
            rows[one.worker, one.partition] += 1
            last[one.partition] = one.worker
    for (worker, partition), count in (rows - history.restores).items():
        yield f"not fenced: {worker} wrote to state[{partition}] {count} times too often in turn"


_RULES = (
    _nothing_lost,
    _conserved,
    _one_outcome_each,
    _nothing_from_nowhere,
    _begun_before_done,
    _not_again,
    _at_most_once,
    _letters_match,
    _forwards_only,
    _owners_in_turn,
)


def _newest_ended(outcomes: list[Outcome]) -> dict[bytes, int]:
    """The newest generation of each key that has a terminal outcome."""
    newest: dict[bytes, int] = {}
    for one in outcomes:
        if one.status in TERMINAL:
            key, generation = one.identity
            newest[key] = max(generation, newest.get(key, -1))
    return newest
