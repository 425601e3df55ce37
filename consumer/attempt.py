"""One attempt: from a record to an outcome, in named steps that every executor shares.

prepare ──> (handler runs, wherever the executor runs it) ──> succeed | fail
   └─────────────────────────────────────────────────────────> an outcome at once
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from taskmill.consumer.failure import describe
from taskmill.consumer.record import Child, Failure, Outcome, Reason, Record
from taskmill.producer.context import Context, Encode
from taskmill.producer.definition import TaskDefinition
from taskmill.producer.middleware import Hooks
from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import InvalidResult
from taskmill.schemas.models import Task
from taskmill.schemas.states import Status

logger = logging.getLogger("taskmill.worker")


class Prepared(NamedTuple):
    """An attempt that may start."""

    record: Record
    definition: TaskDefinition
    arguments: dict[str, Any]
    context: Context | None
    started_at: int
    started: float


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
    ) -> None:
        self._definitions = definitions
        self._clock = clock
        self._hooks = hooks
        self._max_result_bytes = max_result_bytes
        self.resources: Any = None
        #: Where what handlers keep goes, with the start of their attempt; set by the worker.
        self.keep: Keep = lambda record, started_at, saved: None
        #: Encodes what handlers enqueue.
        self.encode: Encode | None = None
        #: Set before the executors start, where a task is declared with effects.
        self.effects: Effects | None = None

    def prepare(self, record: Record) -> Prepared | Outcome:
        """Decode and validate the arguments; an Outcome where the attempt cannot start."""
        clock = self._clock
        task = record.task
        assert task is not None, "a record without a task is an outcome already"
        now = clock.now_ms()
        if task.expires_at is not None and now >= task.expires_at:
            return Outcome(record, Status.EXPIRED, finished_at=now)
        definition = self._definitions.get(task.name)
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
            context = self._context(record, task, now)
            if definition.context_parameter is not None:
                arguments[definition.context_parameter] = context
        try:
            for hook in self._hooks.before_run:
                hook(context, arguments)
        except Exception as error:  # a hook that refuses: the attempt has failed
            return _dead(record, Reason.FAILED, error, now, now)
        return Prepared(record, definition, arguments, context, now, clock.monotonic())

    def _context(self, record: Record, task: Task, now: int) -> Context:
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
            saved=record.saved,
            keep=lambda saved: self.keep(record, now, saved),
            encode=self.encode,
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
        trace = error.__traceback__
        if trace is not None and trace.tb_next is not None:
            # The first frame is the executor's: people look for theirs.
            error = error.with_traceback(trace.tb_next)
        duration = self._clock.monotonic() - attempt.started
        finished_at = attempt.started_at + int(duration * 1000)
        outcome = _dead(
            attempt.record, Reason.FAILED, error, attempt.started_at, finished_at, duration
        )
        return self.observe(attempt, outcome)

    def observe(self, attempt: Prepared, outcome: Outcome) -> Outcome:
        """Show `outcome` to the hooks."""
        for hook in self._hooks.after_run:
            try:
                hook(attempt.context, outcome)
            except Exception:  # the outcome stands, whatever its observers make of it
                logger.exception("after_run hook of task %s", attempt.definition.name)
        return outcome


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
