"""The documents of all that is not one task: letters, replays, schedules, queues, workers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

# ruff: noqa: RUF012  (pydantic copies defaults)
from taskmill.console.api.models import (
    Body,
    Count,
    Document,
    Duration,
    QueueName,
    TaskError,
    TaskId,
    TaskName,
    Time,
)
from taskmill.consumer.record import Reason
from taskmill.schemas.models import MAX_NAME_BYTES

# ---- dead letters --------------------------------------------------------------------------------


class LetterReplayed(Document):
    """How a letter was put back: it no longer counts."""

    #: Null where only the time is known.
    replay: str | None
    at: Time | None
    generation: int | None


class Letter(Document):
    """A dead letter, known by its queue, partition and offset."""

    queue: str
    partition: int
    offset: int
    #: Null where its bytes say none.
    id: str | None
    name: str | None
    reason: str
    error: TaskError | None
    attempts: int | None
    died_at: Time
    replayed: LetterReplayed | None


class LetterPage(Document):
    """Letters, newest first; `next` as for tasks."""

    letters: list[Letter]
    next: str | None
    as_of: Time


class LetterDetail(Letter):
    """A letter whole, read from Kafka. Arguments stand as JSON; what is none, as base64."""

    stack: str | None
    original_topic: str | None
    original_partition: int | None
    original_offset: int | None
    first_failure: Time | None
    last_failure: Time | None
    #: What of the original it does not hold, and where that lies.
    omitted: str | None
    headers: dict[str, str | None]
    args: Any
    args_base64: str | None
    #: Why its bytes cannot be read, and those bytes.
    undecodable: str | None
    value_base64: str | None


class LetterGroup(Document):
    """Letters of one fingerprint."""

    queue: str
    fingerprint: str
    letters: Count
    name: str | None
    reason: str | None
    first: Time
    last: Time
    #: Of the last one.
    error: TaskError | None


class LetterGroups(Document):
    """Groups, the largest first."""

    groups: list[LetterGroup]
    as_of: Time


#: A replay's order is written down, in a record of Kafka's.
_FEW = Field(max_length=1_000)
_Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_BYTES)]
_Fingerprint = Annotated[str, Field(max_length=64)]


class ReplayOrder(Body):
    """Which letters of a queue to put back, and how. An empty filter takes all that count.

    `since`, `until`: a time ago ("1h") or ISO 8601; `error`: a regular expression on "Type:
    message", without look-around and back-references; fingerprints may be beginnings; `rate` is
    records a second. The first `canary` are waited for, up to `canary_wait`: where more than the
    share `abort_above` of them failed again, the others are left. `dry_run` counts, and does
    nothing.
    """

    queue: QueueName = "default"
    name: Annotated[list[_Name], _FEW] = []
    reason: list[Reason] = []
    error: Annotated[str, Field(max_length=4_000)] | None = None
    fingerprint: Annotated[list[_Fingerprint], _FEW] = []
    id: Annotated[list[TaskId], _FEW] = []
    since: str | None = None
    until: str | None = None
    partition: Annotated[int, Field(ge=0, le=100_000)] | None = None
    offsets: tuple[Count, Count] | None = None
    replayed_too: bool = False
    limit: Annotated[int, Field(ge=1)] | None = None
    rate: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    canary: Annotated[int, Field(ge=1, le=10_000)] | None = None
    abort_above: Annotated[float, Field(ge=0, le=1)] = 0.2
    canary_wait: Duration = "10m"
    dry_run: bool = False


class Counted(Document):
    """How many letters of one fingerprint."""

    fingerprint: str
    letters: Count
    error: str


class ReplayPreview(Document):
    """What a replay would put back (`dry_run`)."""

    queue: str
    matched: Count
    would_replay: Count
    fingerprints: list[Counted]


class Replay(Document):
    """A replay, as it stands or ended. `left`: what was meant and could not be put back, by why."""

    id: str
    queue: str
    what: Literal["letters", "tasks"]
    status: Literal["running", "done", "aborted", "interrupted", "failed"]
    #: Why it was aborted, or failed.
    why: str | None
    #: For whom: the token that asked a console, or whose command it is.
    who: str
    began_at: Time
    ended_at: Time | None
    replayed: Count
    #: How many it is about; null where another console or command runs it.
    total: Count | None
    waiting: str | None
    left: dict[str, int]
    canary: dict[str, int]


class Replays(Document):
    """The replays that there were, the newest first."""

    replays: list[Replay]


# ---- schedules -----------------------------------------------------------------------------------


class NewSchedule(Body):
    """When to enqueue what: `cron` or `every`. As `taskmill schedules set` takes it."""

    task: TaskName
    args: dict[str, Any] = {}
    queue: QueueName = "default"
    cron: str | None = None
    every: Duration | None = None
    tz: str = "UTC"
    misfire: Literal["skip", "fire_once", "fire_all"] = "fire_once"
    misfire_max: Annotated[int, Field(ge=1, le=100)] = 10
    catch_up: Duration = "1d"
    overlap: Literal["skip", "queue", "allow"] = "skip"
    jitter: Duration = "0s"
    start: str | None = None
    end: str | None = None
    max_runs: Annotated[int, Field(ge=1)] | None = None
    timeout: Duration | None = None
    expires: Duration | None = None
    deadline: Duration | None = None
    max_attempts: Annotated[int, Field(ge=1)] | None = None
    headers: dict[str, str] = {}


class Schedule(Document):
    """A schedule as it lies on Kafka. `broken`: why it is not heeded."""

    id: str
    status: Literal["on", "paused", "over", "broken"]
    broken: str | None
    task: str | None
    queue: str | None
    args: Any
    args_base64: str | None
    cron: str | None
    every_ms: int | None
    tz: str | None
    misfire: str | None
    misfire_max: int | None
    catch_up_ms: int | None
    overlap: str | None
    jitter_ms: int | None
    start_at: Time | None
    end_at: Time | None
    max_runs: int | None
    timeout_ms: int | None
    expires_ms: int | None
    deadline_ms: int | None
    max_attempts: int | None
    headers: dict[str, str] | None
    #: The App that declares it; null: made by hand.
    declared_by: str | None
    updated_at: Time | None
    #: When it is due next, and the times after that.
    next: list[Time]
    runs: int
    missed: int
    skipped: int
    last_nominal: Time | None
    last_task_id: str | None
    last_queue: str | None
    fired_at: Time | None


class Schedules(Document):
    """All that the token may see, by ID."""

    schedules: list[Schedule]


class Triggered(Document):
    """A schedule's task was enqueued."""

    id: str
    schedule: str
    name: str
    queue: str


# ---- queues and workers --------------------------------------------------------------------------


class Queue(Document):
    """How a queue stands now: by Kafka, not by the store."""

    queue: str
    partitions: Count
    lag: Annotated[
        int,
        Field(
            ge=0,
            description="Records on `tasks` that are not committed: those that are not done, and "
            "those that are done above one of their partition that is not.",
        ),
    ]
    lag_is_exact: Annotated[
        bool,
        Field(
            description="Whether those records were counted; where not, markers of transactions "
            "may be among them. It does not say how many of them are done."
        ),
    ]
    oldest_age_ms: Count | None
    #: Where not `…_is_exact`, these are what it is at the most.
    delayed: Count
    delayed_is_exact: bool
    retrying: Count
    retrying_is_exact: bool
    #: Dead letters that were not replayed.
    letters: Count
    letters_is_exact: bool
    paused: bool
    paused_at: Time | None
    paused_by: str | None
    #: Records a second that came, and that were done, since the look before.
    rate_in: float | None
    rate_out: float | None
    workers: Count


class Queues(Document):
    """The queues that the token may see."""

    queues: list[Queue]


class Paused(Document):
    """Whether a queue is paused, by now."""

    queue: str
    paused: bool


class Worker(Document):
    """A member of a queue's group: what it holds, and how much of that is not committed."""

    queue: str
    #: Its slot, and its version; null where its client does not say.
    worker: str | None
    version: str | None
    client_id: str
    host: str
    partitions: list[int]
    lag: Count


class Workers(Document):
    """All workers of the queues that the token may see."""

    workers: list[Worker]


class Measured(Document):
    """What ended in the time asked for. Durations are seconds; null: nothing to tell them by."""

    #: Tasks that ended, and those of them that are dead; attempts that are tried again.
    finished: Count
    failed: Count
    retried: Count
    #: Tasks a second that finished, over the time asked for.
    rate: float
    #: Share of the finished that succeeded; null: none finished.
    success: float | None
    run_p50: float | None
    run_p95: float | None
    #: From enqueue to the first start, of tasks that were not delayed.
    wait_p50: float | None
    wait_p95: float | None


class QueueOverview(Measured):
    """A queue; lag, age and pause are as of now, null where Kafka did not tell."""

    queue: str
    lag: Count | None
    oldest_age_ms: Count | None
    paused: bool | None


class TaskOverview(Measured):
    """The tasks of one name in one queue; an empty name: they could not be read."""

    queue: str
    name: str


class Minute(Document):
    """One minute: what came, what attempts ended as, and how long they ran and had waited."""

    at: Time
    #: Null where more than three hours are asked for.
    enqueued: Count | None
    outcomes: dict[str, int]
    run_p50: float | None
    run_p95: float | None
    wait_p50: float | None
    wait_p95: float | None


class Overview(Document):
    """All at a glance."""

    totals: dict[str, int]
    all: Measured
    queues: list[QueueOverview]
    #: The busiest first, at most 100.
    tasks: list[TaskOverview]
    series: list[Minute]
    as_of: Time
    #: Records that the store has not read yet.
    lag: Count
