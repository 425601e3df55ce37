"""One attempt: from a record to an outcome, in named steps that every executor shares.

prepare ──> (handler runs, wherever the executor runs it) ──> succeed | fail
   └─────────────────────────────────────────────────────────> an outcome at once
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from taskmill.consumer.failure import describe
from taskmill.consumer.record import Child, Failure, Outcome, Reason, Record
from taskmill.consumer.retry import may_go_on
from taskmill.consumer.timeouts import (
    Due,
    Timekeeper,
    deadline_of,
    due_of,
    expiry_of,
    is_cancelled,
    traceback_of,
)
from taskmill.producer.context import Context, Encode
from taskmill.producer.definition import TaskDefinition
from taskmill.producer.middleware import Hooks
from taskmill.producer.retry import says_when
from taskmill.producer.time_limits import NO_LIMITS
from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import DeadlineExceeded, Interrupted, InvalidResult, Reject, TimedOut
from taskmill.schemas.json_form import iso
from taskmill.schemas.models import Task
from taskmill.schemas.states import Status

if TYPE_CHECKING:
    from taskmill.consumer.scope import Scope

#: Modules that call handlers.
_OURS = ("taskmill.consumer.", "threading", "multiprocessing.", "asyncio.")

logger = logging.getLogger("taskmill.worker")


class Prepared(NamedTuple):
    """An attempt that may start."""

    record: Record
    definition: TaskDefinition
    arguments: dict[str, Any]
    context: Context | None
    started_at: int
    started: float
    #: When its time is over, where it has one.
    due: Due | None = None
    #: What its handler runs in, where somebody wants to know of it.
    scope: Scope | None = None


def record_of(one: Record | Prepared) -> Record:
    """The record of what is under way."""
    return one.record if isinstance(one, Prepared) else one


class Effects(Protocol):
    """Runs whole records where a handler's effects and its outcome are committed together."""

    def takes(self, record: Record) -> bool:
        """Whether `record` is of such a task."""
        ...

    async def run(self, record: Record) -> Outcome | None:
        """The outcome of a coroutine's record; None: dropped, whoever owns it next runs it."""
        ...

    def run_in_thread(self, record: Record) -> Outcome | None:
        """As `run`, of a plain function's record."""
        ...


#: Takes (record, started at in UTC ms, what its handler saved).
Keep = Callable[[Record, int, bytes], None]


class Attempts:
    """Prepares attempts and names their outcomes.

    `definitions` maps every name and alias to its definition. `resources` is what the App's
    lifespan yielded in this process.
    """

    def __init__(
        self,
        definitions: Mapping[str, TaskDefinition],
        clock: Clock,
        hooks: Hooks,
        max_result_bytes: int,
        timekeeper: Timekeeper | None = None,
    ) -> None:
        self._definitions = definitions
        self.clock = self._clock = clock
        self._hooks = hooks
        self._max_result_bytes = max_result_bytes
        self.timekeeper = timekeeper or Timekeeper(clock)
        self.resources: Any = None
        #: Where what handlers keep goes, with the start of their attempt; set by the worker.
        self.keep: Keep = lambda record, started_at, saved: None
        #: Encodes what handlers enqueue.
        self.encode: Encode | None = None
        #: Set before the executors start, where a task is declared with effects.
        self.effects: Effects | None = None
        #: Decodes and validates the arguments; an Outcome where the attempt cannot start. Whoever
        #: gives attempts a scope puts itself in front of it, before anything is run.
        self.prepare: Callable[[Record], Prepared | Outcome] = self._prepare

    def _prepare(self, record: Record) -> Prepared | Outcome:
        clock = self._clock
        task = record.task
        assert task is not None, "a record without a task is an outcome already"
        now = clock.now_ms()
        if is_cancelled(record):
            return cancelled(record, now)
        definition = self._definitions.get(task.name)
        limits = NO_LIMITS if definition is None else definition.limits
        due = None
        if limits is not NO_LIMITS or _has_limits(task):
            expires_at, deadline = expiry_of(task, limits), deadline_of(task, limits)
            if expires_at is not None and now >= expires_at and task.attempt == 1:
                return Outcome(record, Status.EXPIRED, finished_at=now)
            if deadline is not None and now >= deadline:
                late = DeadlineExceeded(f"not started by its deadline, {iso(deadline)}")
                return _dead(record, Reason.EXPIRED, late, now, now)
            due = due_of(task, limits, now, clock.monotonic())
        if definition is None:
            known = ", ".join(sorted(self._definitions)) or "none"
            error = KeyError(f"no task {task.name!r} here; known: {known}"[:400])
            return _dead(record, Reason.UNKNOWN_TASK, error, now, now)
        try:
            arguments = definition.load(task.payload)
        except Exception as error:  # InvalidArguments, and whatever a validator of theirs raises
            return _dead(record, Reason.INVALID_PAYLOAD, error, now, now)
        context = None
        if definition.context_parameter is not None or self._hooks.run:
            context = self._context(record, task, now, due)
            if definition.context_parameter is not None:
                arguments[definition.context_parameter] = context
        try:
            for hook in self._hooks.before_run:
                hook(context, arguments)
        except Exception as error:  # a hook that refuses: the attempt has failed
            return self._failed(record, definition, error, now, now)
        return Prepared(record, definition, arguments, context, now, clock.monotonic(), due)

    def _context(self, record: Record, task: Task, now: int, due: Due | None) -> Context:
        monotonic, lease = self._clock.monotonic, record.lease

        def is_over() -> bool:
            is_late = due is not None and monotonic() >= due.at
            return is_late or not lease.held or is_cancelled(record)

        return Context(
            id=task.id,
            name=task.name,
            queue=record.lease.queue,
            generation=record.generation,
            seq=record.seq,
            attempt=task.attempt,
            enqueued_at=task.enqueued_at,
            headers=task.headers,
            resources=self.resources,
            deadline=None if due is None else due.ends_at,
            cancelled=is_over,
            saved=record.saved,
            keep=lambda saved: self.keep(record, now, saved),
            encode=self.encode,
            topic=record.source.topic,
        )

    def succeed(self, attempt: Prepared, value: Any) -> Outcome:
        """The handler returned `value`."""
        duration = self._clock.monotonic() - attempt.started
        finished_at = attempt.started_at + int(duration * 1000)
        try:
            result = attempt.definition.dump_result(value)
            if result is not None and len(result) > self._max_result_bytes:
                raise InvalidResult(
                    f"the result of {len(result)} bytes is over the limit of "
                    f"{self._max_result_bytes} bytes"
                )
        except Exception as error:  # InvalidResult, and whatever a serialiser of theirs raises
            outcome = _dead(
                attempt.record, Reason.INVALID_RESULT, error, attempt.started_at, finished_at
            )
        else:
            ttl_ms = attempt.definition.result_ttl_ms
            outcome = Outcome(
                attempt.record,
                Status.SUCCEEDED,
                result,
                None,
                attempt.started_at,
                finished_at,
                duration,
                _children(attempt.context),
                None if ttl_ms is None else finished_at + ttl_ms,
            )
        return self.observe(attempt, outcome)

    def fail(self, attempt: Prepared, error: BaseException) -> Outcome:
        """The handler raised `error`, caught where the executor called it."""
        return self.observe(attempt, self.failure(attempt, error))

    def failure(self, attempt: Prepared, error: BaseException) -> Outcome:
        """As `fail`, for somebody else to show to the hooks."""
        error = error.with_traceback(_theirs(error.__traceback__))
        duration = self._clock.monotonic() - attempt.started
        started_at = attempt.started_at
        finished_at = started_at + int(duration * 1000)
        return self._failed(
            attempt.record, attempt.definition, error, started_at, finished_at, duration
        )

    def _failed(
        self,
        record: Record,
        definition: TaskDefinition,
        error: BaseException,
        started_at: int,
        finished_at: int,
        duration: float = 0.0,
    ) -> Outcome:
        """Retrying, or dead: as the task's policy says of `error`; cancelled, if it was."""
        if is_cancelled(record):
            return Outcome(record, Status.CANCELLED, None, None, started_at, finished_at, duration)
        task = record.task
        assert task is not None, "only a task is attempted"
        outcome = _dead(record, _reason_of(error), error, started_at, finished_at, duration)
        wait_s = definition.retry.next_after(task.attempt, error, task.max_attempts)
        if wait_s is None or not may_go_on(record):
            return outcome
        retry_ms = math.ceil(wait_s * 1000)
        deadline = deadline_of(task, definition.limits)
        if deadline is not None and finished_at + retry_ms >= deadline:
            return outcome  # it would come too late to start
        due_at = finished_at + retry_ms if says_when(error) else None
        return outcome._replace(status=Status.RETRYING, retry_ms=retry_ms, due_at=due_at)

    def leave(self, attempt: Prepared, frames: Iterable[FrameType]) -> Outcome:
        """The handler does not end, though it is to; it stands at the last of `frames`."""
        error = Interrupted() if attempt.due is None else attempt.due.error()
        outcome = self.fail(attempt, error.with_traceback(traceback_of(frames)))
        if attempt.scope is not None:
            attempt.scope.end()
        return outcome

    def observe(self, attempt: Prepared, outcome: Outcome) -> Outcome:
        """Show `outcome` to the hooks, and to its scope."""
        if attempt.scope is not None:
            attempt.scope.outcome = outcome
        for hook in self._hooks.after_run:
            try:
                hook(attempt.context, outcome)
            except Exception:  # the outcome stands, whatever its observers make of it
                logger.exception("after_run hook of task %s", attempt.definition.name)
        return outcome


def cancelled(record: Record, now_ms: int) -> Outcome:
    """The outcome of a `record` that was cancelled before it was begun."""
    return Outcome(record, Status.CANCELLED, finished_at=now_ms)


def _reason_of(error: BaseException) -> Reason:
    if isinstance(error, TimedOut):
        return Reason.TIMED_OUT
    return Reason.REJECTED if isinstance(error, Reject) else Reason.FAILED


def _has_limits(task: Task) -> bool:
    return not (task.timeout_ms is None and task.expires_at is None and task.deadline is None)


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """`trace` from the first frame on that is not ours: people look for theirs."""
    at = trace
    while at is not None and at.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
        at = at.tb_next
    return trace if at is None else at


def _dead(
    record: Record,
    reason: Reason,
    error: BaseException,
    started_at: int,
    finished_at: int,
    duration: float = 0.0,
) -> Outcome:
    described, stack = describe(error)
    failure = Failure(reason, described, stack)
    return Outcome(record, Status.DEAD, None, failure, started_at, finished_at, duration)


def _children(context: Context | None) -> tuple[Child, ...]:
    if context is None or not context.children:
        return ()
    return tuple(Child(*child) for child in context.children)


def definitions_by_name(definitions: Iterable[TaskDefinition]) -> dict[str, TaskDefinition]:
    """Every name and alias, to its definition."""
    return {name: d for d in definitions for name in (d.name, *d.aliases)}
