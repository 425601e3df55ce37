"""What the store is asked for and answers: plain records. All times are UTC milliseconds."""

from __future__ import annotations

from typing import NamedTuple

from taskmill.schemas.states import Status

#: Upper ends, in milliseconds, of the buckets in which `minutes` counts runs and waits; one more
#: bucket takes what is longer.
BOUNDS_MS = (
    *(2, 5, 10, 25, 50, 100, 250, 500),
    *(1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 1_800_000, 7_200_000),
)
BUCKETS = len(BOUNDS_MS) + 1


class TaskRow(NamedTuple):
    """A task as of its newest state. `result`, `payload` and `stack` are None in lists: `task` has
    them."""

    queue: str
    id: str
    generation: int
    seq: int
    attempt: int
    status: Status
    #: Empty where the record could not be read.
    name: str
    worker: str | None
    enqueued_at: int
    started_at: int | None
    finished_at: int | None
    #: Of scheduled and retrying ones; of a queued one that came before its time.
    next_attempt_at: int | None
    error_type: str | None
    error_message: str | None
    fingerprint: str | None
    result: bytes | None
    content_type: str | None
    #: Topic that holds a result or error too large for the state; `task` has it where it was read.
    large: str | None
    result_expires_at: int | None
    stack: str | None
    #: The arguments, where they are 64 KiB or less.
    payload: bytes | None
    payload_type: str | None
    #: Their size; None: the task's own record was not read (it was deleted before).
    payload_bytes: int | None
    lock_key: str | None
    parent_id: str | None
    #: Of the record on `tasks` that the state is about.
    partition: int
    offset: int
    #: When the newest state was written, by the broker's clock.
    updated_at: int
    #: Rises with every change of any row.
    changed: int


class AttemptRow(NamedTuple):
    """A past state of a task, one for each (generation, seq) before the newest: what a timeline
    shows above `TaskRow`."""

    queue: str
    id: str
    generation: int
    seq: int
    attempt: int
    status: Status
    worker: str | None
    enqueued_at: int
    started_at: int | None
    finished_at: int | None
    next_attempt_at: int | None
    error_type: str | None
    error_message: str | None
    fingerprint: str | None
    updated_at: int


class TaskFilter(NamedTuple):
    """Which tasks are meant: those that all of it takes. `since` (included) and `until` (excluded)
    are of `enqueued_at`."""

    statuses: tuple[Status, ...] = ()
    names: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    id_prefix: str | None = None
    parent: str | None = None


class TaskCursor(NamedTuple):
    """The last row of a page: the next page begins behind it."""

    enqueued_at: int
    queue: str
    id: str


class CountRow(NamedTuple):
    """How many tasks of the store are so."""

    queue: str
    name: str
    status: Status
    number: int


class MinuteRow(NamedTuple):
    """Attempts that ended in one minute, so: `outcome` is a terminal status or retrying.

    `runs` counts those that started, `run_ms` is the sum of their times, `run_buckets` how many
    were within each of BOUNDS_MS (not cumulative). The waits, from enqueue to start, are of first
    attempts of tasks that were not delayed.
    """

    queue: str
    name: str
    #: Its start.
    minute: int
    outcome: Status
    number: int
    runs: int
    run_ms: int
    waits: int
    wait_ms: int
    run_buckets: tuple[int, ...]
    wait_buckets: tuple[int, ...]


class ArrivalRow(NamedTuple):
    """Tasks of a queue that were enqueued in one minute, which is told by its start."""

    queue: str
    minute: int
    number: int


class LetterRow(NamedTuple):
    """A dead letter, by its place in the DLQ. `id` is None where the record had no key."""

    queue: str
    partition: int
    offset: int
    id: str | None
    #: Of the task; None where its bytes could not be read.
    name: str | None
    reason: str
    error_type: str
    error_message: str
    fingerprint: str
    died_at: int
    attempts: int
    #: Of the record that failed, counted in replays.
    generation: int
    replayed_at: int | None
    #: The replay's name.
    replay: str | None
    changed: int


class LetterFilter(NamedTuple):
    """Which letters are meant. `error` is part of "type: message", in any case; `fingerprints` may
    be beginnings; `replayed_too` takes those that were replayed as well; times are of `died_at`."""

    queues: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    error: str | None = None
    id: str | None = None
    since: int | None = None
    until: int | None = None
    replayed_too: bool = False


class LetterCursor(NamedTuple):
    """The last letter of a page: the next page begins behind it."""

    died_at: int
    queue: str
    partition: int
    offset: int


class LetterGroup(NamedTuple):
    """Letters that failed equally. `example` is the newest one's ID and message."""

    queue: str
    name: str | None
    reason: str
    fingerprint: str
    error_type: str
    number: int
    first_at: int
    last_at: int
    example_id: str | None
    example_message: str


class TopicLag(NamedTuple):
    """How far the projection is behind on a topic: records that Kafka has and the store has not,
    and the time up to which it knows all (0: not known yet)."""

    topic: str
    lag: int
    as_of: int


class Freshness(NamedTuple):
    """Up to when the store knows all (`as_of`, 0: not known yet), and how many records are left.

    Nobody projects where `as_of` stands still."""

    as_of: int
    lag: int
    topics: tuple[TopicLag, ...]


class OffsetRow(NamedTuple):
    """Up to which record a partition was projected: the next offset, and the topic's UUID."""

    topic: str
    partition: int
    topic_id: str
    next_offset: int
    #: The broker's time of the last record, 0 before any.
    time: int
