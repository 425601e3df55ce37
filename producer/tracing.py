"""The spans of tasks on their way to Kafka, named after the messaging conventions of OpenTelemetry.

A record carries the context of the span under which it was made (`traceparent`, `tracestate`,
`baggage`, or what the process's propagators write), from its first hand-over to the last: all
attempts, and replays, are of one trace. A batch has one span, whose context all of its records
carry: one a task would cost more than the task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from taskmill.runtime.tracing import Headers, Tracing, live_tracing, tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from taskmill.producer.definition import TaskCall
    from taskmill.producer.routes import Route

#: What an SDK keeps of a span's links unless it is told otherwise.
_MAX_LINKS = 128


class Sending:
    """A send under way: what its records carry, and its span, if it has one."""

    __slots__ = ("_span", "headers")

    def __init__(self, headers: Headers, span: Span | None = None) -> None:
        self.headers = headers
        self._span = span

    def on(self, route: Route) -> Route:
        """`route`, with these headers on each of its records."""
        if not self.headers:
            return route
        return route._replace(headers=[[*one, *self.headers] for one in route.headers])

    def names(self, id: str) -> None:
        """The one task has another ID than it had."""
        if self._span is not None:
            self._span.set_attribute("messaging.message.id", id)


@contextmanager
def sending(
    found: Tracing, topic: str, call: TaskCall[Any] | None, count: int = 1
) -> Iterator[Sending]:
    """The span of a send of `call` to `topic`; None: of `count` tasks in one go.

    Without an SDK it has none; what is current goes on with the records all the same.
    """
    if not found.is_on:
        yield Sending(found.headers())
        return
    attributes = _attributes("send", topic)
    if call is None:
        attributes["messaging.batch.message_count"] = count
    else:
        attributes |= _of(call.id, call.name, call.queue)
    span = found.start(f"send {topic if call is None else call.name}", "producer", attributes)
    with _told(found, span), found.within(span):
        yield Sending(found.headers(span), span)


@contextmanager
def _told(found: Tracing, span: Span) -> Iterator[None]:
    """Ends `span`, and says on it what was raised."""
    try:
        yield
    except BaseException as error:
        kind = type(error)
        room = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        found.fail(span, room + kind.__qualname__, str(error))
        raise
    finally:
        span.end()


@contextmanager
def resending(topic: str, records: Sequence[Iterable[tuple[str, bytes | None]]]) -> Iterator[None]:
    """The span of a send of records that were sent before, and have these headers: they keep what
    they carry, and the span links to it."""
    found = live_tracing()
    if found is None:
        yield
        return
    attributes = _attributes("send", topic) | {"messaging.batch.message_count": len(records)}
    some = records[:_MAX_LINKS]
    links = [link for one in some for link in found.links_to(found.context_of(one))]
    span = found.start(f"send {topic}", "client", attributes, links=links)
    with _told(found, span), found.within(span):
        yield


def created(id: str, name: str, queue: str, topic: str, **more: str) -> Headers:
    """What the record of a task carries that goes to Kafka later, with others: the context of a
    span of its own that says that it was made. `more`: attributes `taskmill.…`."""
    found = tracing()
    if found is None or not found.is_on:
        return [] if found is None else found.headers()
    attributes = _attributes("create", topic) | _of(id, name, queue)
    attributes |= {f"taskmill.{key}": value for key, value in more.items()}
    span = found.start(f"create {name}", "producer", attributes)
    headers = found.headers(span)
    span.end()
    return headers


def sibling(topic: str, queue: str, other: str) -> str:
    """The topic of the queue `other`, which is to it as `topic` is to `queue`."""
    return topic.removesuffix(queue) + other


def _attributes(operation: str, topic: str) -> dict[str, str | int]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
    }


def _of(id: str, name: str, queue: str) -> dict[str, str | int]:
    return {
        "messaging.message.id": id,
        "taskmill.task.name": name,
        "taskmill.queue": queue,
    }
