"""The fold of records into rows: pure, and the same in whatever order and however often they come.

Each record says something about one (generation, seq) of a task. Of each pair the best state is
kept: the greatest pair's is the task's row, the others' are its attempts. What a chart counts is
the sum over the best states, so a state that is replaced by a better one is taken out again.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from taskmill.console.store.rows import BOUNDS_MS, BUCKETS
from taskmill.schemas.states import Status, is_terminal

Key = tuple[str, str]
Pair = tuple[int, int]

_MINUTE_MS = 60_000
#: A worker's clock is not believed beyond this.
_FAR_MS = 86_400_000
#: Sums of times stay far from 64 bits, whatever clocks said.
_LONGEST_MS = 366 * 86_400_000

QUEUED = Status.QUEUED.value
#: Of what is said of one pair: first the record on `tasks` (0, its own rank), which is queued; then
#: states: `running` is a note, the outcome is last.
RANKS: dict[str, int] = {
    status.value: (
        4 if is_terminal(status)
        else {Status.QUEUED: 1, Status.RUNNING: 2}.get(status, 3)
    )
    for status in Status
}  # fmt: skip
_OUTCOMES = frozenset({s.value for s in Status if is_terminal(s)} | {Status.RETRYING.value})


class State(NamedTuple):
    """What one record says of a task's state. `updated_at` is the broker's time of the record,
    `record_offset` its place; `partition` and `offset` are of the record on `tasks`."""

    generation: int
    seq: int
    rank: int
    attempt: int
    status: str
    name: str
    worker: str | None
    enqueued_at: int
    started_at: int | None
    finished_at: int | None
    next_attempt_at: int | None
    error_type: str | None
    error_message: str | None
    fingerprint: str | None
    result: bytes | None
    content_type: str | None
    large: str | None
    result_expires_at: int | None
    partition: int
    offset: int
    updated_at: int
    record_offset: int


class Given(NamedTuple):
    """What a task's own record says of it."""

    task_generation: int
    task_seq: int
    task_at: int
    task_offset: int
    payload: bytes | None
    payload_type: str | None
    payload_bytes: int
    lock_key: str | None
    parent_id: str | None


class Large(NamedTuple):
    """What lies on `results`: the newest of a task holds."""

    generation: int
    seq: int
    at: int
    record_offset: int
    result: bytes | None
    content_type: str | None
    error_type: str | None
    error_message: str | None
    fingerprint: str | None
    stack: str | None


def pair_of(state: State) -> Pair:
    """Which hand-over of the task it is about."""
    return state[:2]


def version(state: State) -> tuple[int, ...]:
    """The greatest of a task's states holds. Of equal pairs a terminal one wins, then the one that
    was written last; of records on `tasks` the first, since that one ran."""
    if state.rank == 0:
        return (*state[:3], -state.updated_at, -state.record_offset)
    return (*state[:3], state.updated_at, state.record_offset)


def given_version(given: tuple[int, int, int, int] | Given) -> tuple[int, ...]:
    """The greatest of a task's records holds: the first one of its newest generation."""
    generation, seq, at, offset = given[:4]
    return (generation, -seq, -at, -offset)


class Facts:
    """What records say of one task: the best state of each pair, and its own record."""

    __slots__ = ("given", "states")

    def __init__(self) -> None:
        self.states: dict[Pair, State] = {}
        self.given: Given | None = None

    def add(self, state: State) -> None:
        """Keep `state` where it is the best of its pair."""
        pair = state[:2]
        old = self.states.get(pair)
        if old is None or version(state) > version(old):
            self.states[pair] = state

    def add_given(self, given: Given) -> None:
        """Keep `given` where it is the one that holds."""
        if self.given is None or given_version(given) > given_version(self.given):
            self.given = given


class Head(NamedTuple):
    """What the store has of a task: its row's state without what is large, and which record of
    `tasks` it has (None: none)."""

    state: State
    given: tuple[int, int, int, int] | None


class Ended(NamedTuple):
    """Where a chart counts an attempt."""

    queue: str
    name: str
    minute: int
    outcome: str


class Merged(NamedTuple):
    """What changes in the store when facts are added. `state`: the task's new one, None: as it was;
    `attempts`: to be written."""

    state: State | None
    given: Given | None
    attempts: list[State]
    #: What is in the charts no more, and what is new there.
    gone: list[State]
    come: list[State]


def merge(head: Head | None, older: dict[Pair, State], facts: Facts) -> Merged:
    """`facts` added to what the store has. `older` are the store's attempts; only those of a pair
    that `facts` has are needed."""
    given = facts.given
    if head is None:
        top = max(facts.states)
        attempts = [s for p, s in facts.states.items() if p != top and s.rank]
        return Merged(facts.states[top], given, attempts, [], [*facts.states.values()])
    if (
        given is not None
        and head.given is not None
        and given_version(given) <= given_version(head.given)
    ):
        given = None
    before = head.state
    at = before[:2]
    state, gone, come = before, [], []
    past: dict[Pair, State] = {}
    for pair, new in facts.states.items():
        old = before if pair == at else older.get(pair)
        if old is not None:
            if version(new) <= version(old):
                continue
            gone.append(old)
        come.append(new)
        if pair >= state[:2]:
            if pair != state[:2] and state.rank:
                past.setdefault(state[:2], state)
            state = new
        elif new.rank:
            past[pair] = new
    return Merged(None if state is before else state, given, [*past.values()], gone, come)


def ended(queue: str, state: State) -> Ended | None:
    """Where a chart counts the state; None: nothing ended with it."""
    if state.status not in _OUTCOMES:
        return None
    at = state.finished_at
    if at is None or abs(at - state.updated_at) > _FAR_MS:
        at = state.updated_at
    return Ended(queue, state.name, at - at % _MINUTE_MS, state.status)


#: count, runs, run_ms, waits, wait_ms, then the buckets of runs and of waits.
MEASURES = 5 + 2 * BUCKETS


def add_measures(sums: list[int], state: State, sign: int) -> None:
    """Add an attempt that ended to the sums of its minute, or (`sign` -1) take it out."""
    sums[0] += sign
    started, finished = state.started_at, state.finished_at
    if started is None:
        return
    if finished is not None:
        run = min(max(finished - started, 0), _LONGEST_MS)
        sums[1] += sign
        sums[2] += sign * run
        sums[5 + _bucket(run)] += sign
    if state.seq == 0 and state.attempt <= 1:
        wait = min(max(started - state.enqueued_at, 0), _LONGEST_MS)
        sums[3] += sign
        sums[4] += sign * wait
        sums[5 + BUCKETS + _bucket(wait)] += sign


def _bucket(duration_ms: int) -> int:
    return bisect_left(BOUNDS_MS, duration_ms)
