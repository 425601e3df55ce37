"""The documents of the API's tasks: what requests may say, and what answers say. All are closed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from taskmill.schemas.models import MAX_ID_BYTES, MAX_NAME_BYTES
from taskmill.schemas.states import Status

#: Tasks in one batch, items of a page, seconds that a request waits: at the most.
MAX_BATCH, MAX_PAGE, MAX_WAIT_S = 10_000, 500, 60
DEFAULT_PAGE = 50

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)


def moment(time_ms: int) -> datetime:
    """UTC milliseconds as a datetime; beyond the year 9999, which foreign clients may write, its
    last millisecond."""
    try:
        return _EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        return _LAST


def maybe(time_ms: int | None) -> datetime | None:
    """As `moment`, for a time that may not be there."""
    return None if time_ms is None else moment(time_ms)


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


#: A time in answers: ISO 8601 in UTC, to the millisecond.
Time = Annotated[
    datetime,
    PlainSerializer(_iso, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Count = Annotated[int, Field(ge=0)]
#: A task's ID: 1 to 512 bytes of UTF-8.
TaskId = Annotated[str, Field(min_length=1, max_length=MAX_ID_BYTES)]
#: 1 to 255 bytes of printable text.
TaskName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_NAME_BYTES,
        json_schema_extra={"pattern": "^[^\\u0000-\\u001f\\u007f-\\u00a0\\u00ad]+$"},
    ),
]
#: "30s", "5m", "250ms".
Duration = Annotated[
    str,
    Field(
        max_length=40,
        json_schema_extra={"pattern": r"^[0-9]{1,6}(\.[0-9]{1,9})?(ms|s|m|h|d)$"},
    ),
]
QueueName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,100}$")]
Scope = Literal["enqueue", "read", "operate", "admin"]


class Document(BaseModel):
    """Closed: a field that it does not know is refused, and it answers with none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Body(Document):
    """What a request says: 0 is not false, "1" is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


# ---- what goes wrong -----------------------------------------------------------------------------


class FieldProblem(Document):
    """One field that cannot be accepted, by its path: `name`, `tasks.3.args`, `cursor`."""

    field: str
    message: str
    #: What is allowed, where that can be said in short.
    allowed: str | None = None


class Problem(Document):
    """A problem document (RFC 9457). `type` is a path of this API's documentation."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    request_id: str
    #: The fields that are wrong (400, 413, 422).
    errors: list[FieldProblem] | None = None
    #: The scope that the token lacks (403).
    scope: Scope | None = None
    #: The replay that is under way (409).
    replay: str | None = None


# ---- enqueueing ----------------------------------------------------------------------------------


class NewTask(Body):
    """A task to be enqueued. Durations are written "30s", "5m", "1d"; `at` as ISO 8601 with a zone.

    `args` are the arguments, by name. A second one with the same `id` is a duplicate, and not run.
    `delay` or `at`: when it may start; `timeout`: the longest an attempt may run; `expires`: not
    started so long after, it expires; `deadline`: nothing of it runs beyond that.
    """

    name: TaskName
    args: dict[str, Any] = {}
    id: TaskId | None = None
    queue: QueueName = "default"
    delay: Duration | None = None
    at: str | None = None
    timeout: Duration | None = None
    expires: Duration | None = None
    deadline: Duration | None = None
    max_attempts: Annotated[int, Field(ge=1)] | None = None
    headers: dict[str, str] | None = None


class Enqueued(Document):
    """Acknowledged by Kafka (202); `duplicate`: the ID was there, nothing was produced (200)."""

    id: str
    queue: str
    duplicate: bool


class Batch(Body):
    """Many tasks. `all`: nothing is produced where one of them is wrong. `each`: an answer each."""

    tasks: Annotated[list[NewTask], Field(min_length=1, max_length=MAX_BATCH)]
    mode: Literal["all", "each"] = "all"


class BatchItem(Document):
    """What became of one task of a batch: `status` 202, 200 (a duplicate), 403, 422 or 503."""

    status: int
    id: str | None
    queue: str | None
    duplicate: bool
    #: Why it was not accepted.
    problem: Problem | None = None


class BatchAnswer(Document):
    """What became of each task, in the order of the request."""

    accepted: Count
    duplicates: Count
    refused: Count
    tasks: list[BatchItem]


# ---- looking -------------------------------------------------------------------------------------


class TaskError(Document):
    """Why it failed; equal fingerprints are equal failures."""

    type: str
    message: str
    fingerprint: str


class Task(Document):
    """Where a task stands: its TaskState, and what is known of how it was enqueued."""

    id: str
    queue: str
    name: str
    status: Status
    generation: Count
    seq: Count
    attempt: Count
    worker: str | None
    enqueued_at: Time | None
    started_at: Time | None
    finished_at: Time | None
    next_attempt_at: Time | None
    error: TaskError | None
    parent_id: str | None
    lock_key: str | None
    source_partition: int | None
    source_offset: int | None
    #: The topic of a result or error too large for the state; a task whole has it where it is kept.
    large: str | None
    #: Until when its result is kept.
    result_expires_at: Time | None
    updated_at: Time


class TaskPage(Document):
    """Tasks, newest first. `next` is the cursor of the next page; null: this is the last one."""

    tasks: list[Task]
    next: str | None
    as_of: Time


class Attempt(Document):
    """A step in a task's life that was written down."""

    generation: Count
    seq: Count
    attempt: Count
    status: Status
    worker: str | None
    started_at: Time | None
    finished_at: Time | None
    next_attempt_at: Time | None
    error: TaskError | None


class TaskDetail(Task):
    """A task whole. Arguments and result stand as JSON; what is none, as base64."""

    #: Null where they are not kept (larger than 64 KiB).
    args: Any
    args_base64: str | None
    result: Any
    result_base64: str | None
    content_type: str | None
    #: The innermost frames of the last failure.
    stack: str | None
    attempts: list[Attempt]
    as_of: Time


class TaskResult(Document):
    """How a task stands (202: it has not ended), and its result or error once it has (200)."""

    id: str
    queue: str
    name: str
    status: Status
    generation: Count
    finished_at: Time | None
    result: Any
    result_base64: str | None
    content_type: str | None
    error: TaskError | None
    as_of: Time


class Asked(Document):
    """What was asked of a task is acknowledged by Kafka; a worker of its queue carries it out."""

    id: str
    queue: str
    #: How it stood, as far as the store knew.
    status: Status | None


class RunAgain(Document):
    """A finished task is run once more, as a new generation."""

    id: str
    queue: str
    generation: Count
    #: The replay that did it.
    replay: str


class Me(Document):
    """Who asks: the token's ID, what it may do, in which queues (null: all), until when."""

    token: str
    scopes: list[Scope]
    queues: list[str] | None
    expires_at: Time | None


def error_of(type: str | None, message: str | None, fingerprint: str | None) -> TaskError | None:
    """The error of a row; None where it has none."""
    if type is None and message is None:
        return None
    return TaskError(type=type or "", message=message or "", fingerprint=fingerprint or "")


#: What a number of attempts, letters, tasks … is counted by.
Counts = Mapping[str, int]
