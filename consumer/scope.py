"""What a handler runs in: its span is the current one, and what it logs tells its task.

Made only where somebody wants to know, a tracer or a log of fields; else no attempt has one, and
pays no more than a look whether it has.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

from taskmill.consumer.attempt import Attempts, Prepared
from taskmill.consumer.record import Outcome, Record
from taskmill.consumer.task_fields import fields_of
from taskmill.producer.middleware import Middleware
from taskmill.runtime import log_fields
from taskmill.runtime.log_fields import of_handler
from taskmill.runtime.metric_table import UNKNOWN
from taskmill.runtime.tracing import Tracing, live_tracing, tracing
from taskmill.schemas.states import Status

if TYPE_CHECKING:
    from opentelemetry.trace import Span

#: Of a span whose attempt came to no outcome here: another worker runs it, or has.
LOST = "lost"


class Scope:
    """Of one attempt. `with scope:` is around its handler, once; its span ends there."""

    __slots__ = (
        "_context",
        "_is_over",
        "_span",
        "_token",
        "_tracing",
        "_within",
        "outcome",
        "record",
    )

    def __init__(
        self, record: Record, tracing: Tracing | None, span: Span | None, context: Any
    ) -> None:
        self.record = record
        self._tracing = tracing
        self._span = span
        self._context = context
        self._is_over = False
        #: What became of it, as far as that is known.
        self.outcome: Outcome | None = None

    def fields(self) -> dict[str, Any]:
        """What its log lines say."""
        return fields_of(self.record)

    def enter(self) -> None:
        """Be current here, until `leave`."""
        self._token = of_handler.set(self.fields)
        if self._tracing is not None:
            self._within = self._tracing.within(self._span, self._context)
            self._within.__enter__()

    def leave(self) -> None:
        """To be called in the context of `enter`."""
        if self._tracing is not None:
            self._within.__exit__(None, None, None)
        try:
            of_handler.reset(self._token)
        except ValueError:
            pass  # a coroutine that is thrown away ends in whichever context does it

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()
        self.end()

    def end(self) -> None:
        """End the span, with what became of it; any thread, the first counts."""
        if self._span is None or self._is_over:
            return
        self._is_over = True
        if self._span.is_recording():
            assert self._tracing is not None, "its span is of there"
            _tell(self._tracing, self._span, self.outcome)
        self._span.end()

    def carried_by(self, record: Record) -> Record:
        """`record` for the handler's own process: there it goes on under this one's span."""
        if self._tracing is None or self._span is None:
            return record
        ours = self._tracing.headers(self._span)
        names = {name for name, _ in ours}
        source = record.source
        headers = [one for one in source.headers if one[0] not in names]
        return record._replace(source=source._replace(headers=[*headers, *ours]))


def _tell(tracing: Tracing, span: Span, outcome: Outcome | None) -> None:
    if outcome is None or outcome.status is None:
        span.set_attribute("taskmill.outcome", LOST)
        return
    span.set_attribute("taskmill.outcome", outcome.status.value)
    failure = outcome.failure
    # `raise Retry.after(…)` is how a handler asks to be called again: no error.
    if failure is not None and not (outcome.status is Status.RETRYING and outcome.due_at):
        tracing.fail(span, failure.error.type, failure.error.message, failure.stack)


class Scopes(Middleware):
    """Gives attempts their scopes; as middleware, spans to what ended without an attempt."""

    def __init__(self, group: Callable[[str], str], declared: Container[str]) -> None:
        """`group`: the consumer group of a queue; `declared`: names of tasks, aliases too."""
        self._group = group
        self._declared = declared
        self._tracing: Tracing | None = None

    def start(self, attempts: Attempts) -> None:
        """Have each attempt prepared, and run, in a scope, if anybody wants to know. To be called
        before anything is run, once the App's lifespan has begun, which may set an SDK up."""
        self._tracing = live_tracing()
        if self._tracing is not None or log_fields.are_wanted:
            self._put_before(attempts)

    def _put_before(self, attempts: Attempts) -> None:
        prepare = attempts.prepare

        def scoped(record: Record) -> Prepared | Outcome:
            scope = self.begin(record)
            scope.enter()
            try:
                one = prepare(record)
            finally:
                scope.leave()
            if isinstance(one, Prepared):
                return one._replace(scope=scope)
            scope.outcome = one
            scope.end()
            return one

        attempts.prepare = scoped

    def begin(self, record: Record) -> Scope:
        """The scope of `record`'s next attempt; its span is the child of whoever enqueued it."""
        found = self._tracing
        if found is None:
            return Scope(record, None, None, None)
        context = found.context_of(record.source.headers)
        task = record.task
        name = task.name if task is not None and task.name in self._declared else UNKNOWN
        # The conventions ask for the link in any case, and allow its span to be the parent too.
        span = found.start(
            f"process {name}",
            "consumer",
            self._attributes(record, name),
            context,
            found.links_to(context),
        )
        return Scope(record, found, span, context)

    def _attributes(self, record: Record, name: str) -> dict[str, str | int]:
        source, task, queue = record.source, record.task, record.lease.queue
        found: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": source.topic,
            "messaging.destination.partition.id": str(source.partition),
            "messaging.kafka.offset": source.offset,
            "messaging.consumer.group.name": self._group(queue),
            "taskmill.queue": queue,
            "taskmill.task.name": name,
        }
        if task is not None:
            found["messaging.message.id"] = task.id
            found["taskmill.attempt"] = task.attempt
            found["taskmill.generation"] = record.generation
        return found

    def after_commit(self, outcomes: Sequence[Outcome]) -> None:
        """What became a dead letter without an attempt, as one that cannot be decoded."""
        if self._tracing is None:
            return
        for outcome in outcomes:
            if outcome.failure is not None and outcome.started_at is None:
                scope = self.begin(outcome.record)
                scope.outcome = outcome
                scope.end()


class _Continued(Scopes):
    """Those of a handler's own process: the span is the worker's, and current here too."""

    def begin(self, record: Record) -> Scope:
        found = self._tracing
        context = None if found is None else found.context_of(record.source.headers)
        return Scope(record, found, None, context)


def continue_in(attempts: Attempts) -> None:
    """Have attempts prepared, and run, in the scopes that the worker began for them."""
    scopes = _Continued(str, ())
    scopes._tracing = tracing()
    if scopes._tracing is not None or log_fields.are_wanted:
        scopes._put_before(attempts)
