"""The records that travel: tasks, what became of them, schedules; frozen, in the schema's order.

Named tuples, not dataclasses: frozen, slotted, and made in C, which the hot path needs.
All times are UTC milliseconds since the epoch.
"""

from __future__ import annotations

from typing import NamedTuple

from taskmill.schemas.states import Status

JSON = "application/json"
MAX_ID_BYTES = 512
#: The name is repeated in every state of its task, which is to fit 512 bytes.
MAX_NAME_BYTES = 255
#: It is part of its tasks' IDs, with a time and perhaps a run's name.
MAX_SCHEDULE_ID_BYTES = 255


class Task(NamedTuple):
    """A unit of work as it lies on `tasks`. `id` is the dedup ID and equals the record's key."""

    id: str
    name: str
    payload: bytes
    content_type: str
    enqueued_at: int
    not_before: int | None = None
    expires_at: int | None = None
    deadline: int | None = None
    timeout_ms: int | None = None
    max_attempts: int | None = None
    attempt: int = 1
    generation: int = 0
    seq: int = 0
    lock_key: str | None = None
    parent_id: str | None = None
    headers: dict[str, str] = {}  # noqa: RUF012  (never mutated: records are frozen)


class TaskError(NamedTuple):
    """Why a task failed: exception type, message, and a fingerprint that groups equal failures."""

    type: str
    message: str
    fingerprint: str


class TaskState(NamedTuple):
    """What became of a task, as it lies on `state`; at most 512 bytes encoded, `saved` aside."""

    id: str
    name: str
    queue: str
    status: Status
    generation: int
    seq: int
    attempt: int
    worker: str
    enqueued_at: int
    started_at: int | None
    finished_at: int | None
    next_attempt_at: int | None
    result: bytes | None
    content_type: str | None
    error: TaskError | None
    source_partition: int
    source_offset: int
    #: Topic that holds a result or error too large for this record; None: it is all here.
    large: str | None
    #: Of a running one: deliveries counted after an unclean end of a worker.
    deliveries: int = 0
    #: Of a running or retrying one: what the handler kept with ctx.save, JSON.
    saved: bytes | None = None
    result_expires_at: int | None = None


class TaskResult(NamedTuple):
    """A result or error too large for the TaskState, as it lies on `results`."""

    id: str
    generation: int
    seq: int
    result: bytes | None = None
    content_type: str | None = None
    error: TaskError | None = None
    #: The innermost frames of the failure, at most 4 KiB.
    stack: str | None = None


#: What a Control may ask for.
CANCEL, RESCHEDULE = "cancel", "reschedule"


class Control(NamedTuple):
    """What somebody asks of a task, as it lies on `control`. `id` equals the record's key."""

    id: str
    #: Not an enum: what a later release asks for is passed over.
    action: str
    requested_at: int
    #: None: whichever is current when it is read.
    generation: int | None = None
    #: As far as the sender knows it.
    name: str | None = None
    #: Of a reschedule: the new time; the seq and the time of the state that the sender saw.
    not_before: int | None = None
    seq: int | None = None
    due_at: int | None = None
    #: As far as the sender knows it.
    enqueued_at: int | None = None
    actor: str | None = None


class Schedule(NamedTuple):
    """When to enqueue which task, as it lies on `schedules`; it has `cron` or `every_ms`."""

    id: str
    task: str
    payload: bytes
    updated_at: int
    queue: str = "default"
    content_type: str = JSON
    cron: str | None = None
    every_ms: int | None = None
    tz: str = "UTC"
    misfire: str = "fire_once"
    misfire_max: int = 10
    catch_up_ms: int = 86_400_000
    overlap: str = "skip"
    jitter_ms: int = 0
    start_at: int | None = None
    end_at: int | None = None
    max_runs: int | None = None
    paused: bool = False
    source: str = "hand"
    timeout_ms: int | None = None
    expires_ms: int | None = None
    deadline_ms: int | None = None
    max_attempts: int | None = None
    lock_key: str | None = None
    headers: dict[str, str] = {}  # noqa: RUF012  (never mutated: records are frozen)
    since: int | None = None
    created_at: int | None = None


class ScheduleState(NamedTuple):
    """How far a schedule has come, as it lies on `schedule-state`."""

    id: str
    decided_until: int
    written_at: int
    runs: int = 0
    missed: int = 0
    skipped: int = 0
    held: list[int] = []  # noqa: RUF012  (never mutated: records are frozen)
    last_nominal: int | None = None
    last_task_id: str | None = None
    last_queue: str | None = None
    fired_at: int | None = None
    created_at: int | None = None
    scheduler: str = ""
