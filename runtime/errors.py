"""Every error that taskmill raises, in one tree.

TaskmillError
├── ConfigError            a setting, an option or a target is wrong             exit 2
├── InvalidInput           something a caller passed cannot be accepted          exit 2
│   ├── InvalidTaskId      empty, longer than 512 bytes, or not UTF-8
│   ├── InvalidArguments   arguments do not fit the task's signature, or cannot be serialised
│   ├── UnknownTask        no task of that name is declared
│   └── PayloadTooLarge    the encoded task is larger than the topic takes
├── Unreachable            the broker, registry or store did not answer in time  exit 3
├── NotAllowed             the console does not take the token, or not for this  exit 2
├── NotFound               the console knows no such thing
│   └── Gone               … any more
├── Conflict               it does not go with how things stand at the console
├── EnqueueError           some calls of an `enqueue_many` were not accepted
├── ClosedError            the App (or a client of it) was closed, or forked
├── InvalidResult          a result cannot be serialised, or is not of the declared type
├── TaskFailed             `result()` of a task that ended dead, cancelled or expired
├── ResultTimeout          `result(timeout=…)` ran out; the task goes on
├── ResultLost             a large result that Kafka no longer holds
├── ResultExpired          a result whose `result_ttl` is over; the task's state stays
├── DecodeError            bytes that are no Task, TaskState or known schema
├── RetryAfter             raised by a handler, as `Retry.after("10s")`: try again then
├── Reject                 raised by a handler: no attempt will do
├── TimedOut               an attempt ran longer than its task's `timeout`
│   └── DeadlineExceeded   … or beyond its `deadline`
├── ProcessDied            the process that ran a handler ended in the middle of it
├── StoreDamaged           the local store cannot be used and must be rebuilt
└── IllegalTransition      a task's state would change in a way that the table forbids

Interrupted, which is no Exception, is what a plain handler is stopped with when its time is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Self


class TaskmillError(Exception):
    """Base of all errors raised by taskmill. `exit_code` is what a command ends with."""

    exit_code = 1
    #: Of what a console answered: under which its log tells more.
    request_id: str | None = None


class ConfigError(TaskmillError):
    """A setting, an option or a target is wrong."""

    exit_code = 2


class InvalidInput(TaskmillError, ValueError):
    """Something a caller passed cannot be accepted; nothing was sent."""

    exit_code = 2


class InvalidTaskId(InvalidInput):
    """A task ID is 1 to 512 bytes of UTF-8."""


class InvalidArguments(InvalidInput):
    """Arguments do not fit the task's signature, or cannot be serialised."""


class UnknownTask(InvalidInput):
    """No task of that name is declared."""


class PayloadTooLarge(InvalidInput):
    """The encoded task is larger than the topic takes."""


class Unreachable(TaskmillError, ConnectionError):
    """The broker, the registry or the store did not answer within the deadline."""

    exit_code = 3


class NotAllowed(TaskmillError):
    """The console does not take the token, or the token does not allow this."""

    exit_code = 2


class NotFound(TaskmillError, LookupError):
    """The console knows no such thing; of a task it says whether it may be too old."""


class Gone(NotFound):
    """It is no longer kept."""


class Conflict(TaskmillError):
    """It does not go with how things stand: the task has ended, a replay is under way."""


class EnqueueError(TaskmillError):
    """Some calls of an `enqueue_many` were not accepted, the others were.

    `failed` maps the place of each call that failed (from 0) to its error, `handles` the place of
    each accepted one to its handle. `exit_code` is the first failure's.
    """

    def __init__(
        self, failed: Mapping[int, TaskmillError], handles: Mapping[int, Any], total: int
    ) -> None:
        first = min(failed)
        super().__init__(
            f"{len(failed)} of {total} tasks were not accepted; the first is number {first + 1}: "
            f"{failed[first]}"
        )
        self.failed = dict(failed)
        self.handles = dict(handles)
        self.exit_code = failed[first].exit_code


class ClosedError(TaskmillError, RuntimeError):
    """The App or client was closed, or belongs to the parent of this forked process."""


class InvalidResult(TaskmillError, ValueError):
    """A result cannot be serialised, is too large, or is not of the declared type."""


class TaskFailed(TaskmillError):
    """The task ended without a result: dead, cancelled or expired.

    `status` is the terminal status, `error_type` and `error_message` are the handler's.
    """

    def __init__(
        self, task_id: str, status: str, error_type: str = "", error_message: str = ""
    ) -> None:
        if error_type:
            why = f" ({error_type}: {error_message})"
        else:
            why = ": it had not started in time" if status == "expired" else " (no error recorded)"
        super().__init__(f"task {task_id!r} is {status}{why}")
        self.task_id = task_id
        self.status = status
        self.error_type = error_type
        self.error_message = error_message


class ResultTimeout(TaskmillError, TimeoutError):
    """The result was not there in time; the task itself goes on."""


class ResultLost(TaskmillError):
    """The task succeeded, but its large result lies on `results` no longer (its time ran out)."""


class ResultExpired(TaskmillError):
    """The task succeeded, but its result was kept for a time only (`result_ttl`), which is over.

    `expired_at` is when, in UTC milliseconds.
    """

    def __init__(self, task_id: str, expired_at: int) -> None:
        at = datetime.fromtimestamp(expired_at / 1000, UTC).isoformat(timespec="seconds")
        super().__init__(
            f"task {task_id!r} succeeded, but its result was kept until {at} (result_ttl)"
        )
        self.task_id = task_id
        self.expired_at = expired_at


class DecodeError(TaskmillError, ValueError):
    """Bytes that are no record of ours, or of a schema that is not known here."""


class StoreDamaged(TaskmillError):
    """The local store cannot be used; wiping it is safe, Kafka holds the truth."""


class IllegalTransition(TaskmillError):
    """A task's state would change in a way that schemas/states.py forbids: a bug of ours."""


class ProcessDied(TaskmillError):
    """The process that ran the handler ended in the middle of it."""


class RetryAfter(TaskmillError):
    """What `Retry.after` makes, for a handler to raise: this attempt failed, the next one is made
    after `seconds`."""

    def __init__(self, seconds: float, why: str = "") -> None:
        super().__init__(why or f"to be tried again after {seconds:g} s")
        self.seconds = seconds

    def __reduce__(self) -> tuple[type[Self], tuple[float, str]]:
        return type(self), (self.seconds, str(self))


class Reject(TaskmillError):
    """Raised by a handler that knows: no attempt will do. The task is dead, as `rejected`."""


class TimedOut(TaskmillError, TimeoutError):
    """An attempt ran longer than the `timeout` of its task."""


class DeadlineExceeded(TimedOut):
    """The `deadline` of a task passed before it was done."""


class Interrupted(BaseException):
    """Raised inside a handler that is no coroutine when its time is over, so that it can clean up.

    Not an Exception: what a handler catches to try something again should not catch this.
    """
