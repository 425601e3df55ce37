"""What flows through a worker: a record from Kafka, the lease it came under, its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from taskmill.schemas.models import Task, TaskError
from taskmill.schemas.states import Status

Headers = Sequence[tuple[str, bytes | None]]


class Lease:
    """Ownership of partition index `partition` from one assignment to its loss.

    Everything that runs under an assignment holds its lease; `held` turns False once, when the
    partition is lost, and what comes after is dropped. Compared by identity.
    """

    __slots__ = ("cancelled", "epoch", "held", "partition", "queue")

    def __init__(self, partition: int, epoch: int, queue: str = "") -> None:
        self.queue = queue
        self.partition = partition
        self.epoch = epoch
        self.held = True
        #: Offsets of records that run, or wait for their turn to, and are to be cancelled.
        self.cancelled: set[int] = set()

    def __reduce__(self) -> tuple[type[Lease], tuple[int, int, str]]:
        # What goes to another process is told there what is to be cancelled.
        return Lease, (self.partition, self.epoch, self.queue)

    def __repr__(self) -> str:
        return f"Lease(p={self.partition}, epoch={self.epoch}, held={self.held})"


class Source(NamedTuple):
    """A record's original bytes and place; what a dead letter is made of."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Record(NamedTuple):
    """One record of `tasks`, decoded. `mark_key` is what the idempotency table knows it by."""

    lease: Lease
    offset: int
    mark_key: bytes
    generation: int
    seq: int
    task: Task | None
    source: Source
    #: Why there is no task, or why it is refused before it starts: (reason, message).
    fault: tuple[Reason, str] | None = None
    #: The partition this key belongs to, where that is another one.
    belongs_to: int | None = None
    #: What an earlier attempt kept with ctx.save.
    saved: bytes | None = None
    #: It waited for its `running` mark: once that is committed it is run, also by a worker that
    #: starts nothing else any more.
    is_gated: bool = False
    #: It may not start before then (UTC ms), and came before then, by the broker's clock.
    due_at: int | None = None

    @property
    def size(self) -> int:
        return len(self.source.value or b"")


class Reason(StrEnum):
    """Why a record lies in the DLQ (header `taskmill-reason`)."""

    FAILED = "failed"
    TIMED_OUT = "timed_out"
    REJECTED = "rejected"
    EXPIRED = "expired"
    UNDECODABLE = "undecodable"
    INVALID_PAYLOAD = "invalid_payload"
    INVALID_RESULT = "invalid_result"
    UNKNOWN_TASK = "unknown_task"
    CRASH_LOOP = "crash_loop"
    ABANDONED = "abandoned"


class Failure(NamedTuple):
    """What went wrong, for the state record and the dead letter."""

    reason: Reason
    error: TaskError
    stack: str = ""


class Note(NamedTuple):
    """What is to be known of a record while it runs: a `running` state."""

    record: Record
    started_at: int | None = None
    deliveries: int = 0
    saved: bytes | None = None
    #: Whether the record starts only once this is committed.
    gates: bool = False


#: Results smaller than this are bounded by their number: 12,000 of them take 48 MiB.
HEAVY_BYTES = 4096


def is_heavy(result: bytes | None) -> bool:
    """Whether a result counts in what a worker holds."""
    return result is not None and len(result) > HEAVY_BYTES


class Child(NamedTuple):
    """A task that a handler enqueued, to be sent in the transaction of its outcome."""

    queue: str
    key: bytes
    value: bytes
    #: Of its task; empty: nobody says.
    name: str = ""
    #: Beside the route's: what it carries of its trace.
    headers: Sequence[tuple[str, bytes]] = ()


class Outcome(NamedTuple):
    """How a record ended. `status` None: it leaves no mark (a duplicate, or re-routed)."""

    record: Record
    status: Status | None
    result: bytes | None = None
    failure: Failure | None = None
    started_at: int | None = None
    finished_at: int | None = None
    #: Seconds the handler ran, by the monotonic clock.
    duration: float = 0.0
    #: What the handler enqueued; sent where it succeeded.
    children: tuple[Child, ...] = ()
    #: UTC milliseconds from which on the result counts as gone; None: it stays.
    expires_at: int | None = None
    #: Of a retrying one: how long until the next attempt, and what the handler kept for it.
    retry_ms: int | None = None
    saved: bytes | None = None
    #: Of one that goes on at an exact time: then, in UTC milliseconds.
    due_at: int | None = None
    #: It leaves no mark, since a newer record of its ID came while it ran.
    is_superseded: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether its record is handed over to a wait: a retry's, or a delay's."""
        return self.retry_ms is not None or self.due_at is not None

    @property
    def held_bytes(self) -> int:
        """Bytes that it holds in memory beside its record, where they are worth counting."""
        size = len(self.result or b"") if is_heavy(self.result) else 0
        return size + sum(len(child.value) for child in self.children)

    @property
    def weight(self) -> int:
        """Bytes that it brings into a transaction beyond its mark."""
        size = len(self.result or b"") + sum(len(child.value) for child in self.children)
        hands_on = self.failure is not None or self.due_at is not None
        return size + self.record.size if hands_on else size

    @property
    def is_weighty(self) -> bool:
        """Whether `weight` is anything."""
        return (
            self.result is not None
            or bool(self.children)
            or self.failure is not None
            or self.due_at is not None
        )
