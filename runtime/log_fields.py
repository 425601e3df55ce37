"""What a line of the log says of the task that it is about, beside its words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from taskmill.runtime.tracing import parent_of, tracing

#: The names of a line's fields, in this order.
FIELDS = ("task_id", "task", "queue", "attempt", "trace_id", "span_id")

#: Whether a log of this process has them.
are_wanted = False

#: Tells the fields of the task whose handler runs here.
of_handler: ContextVar[Callable[[], dict[str, Any]] | None] = ContextVar(
    "taskmill_log_fields", default=None
)


def fields_here() -> dict[str, Any]:
    """Of the handler that runs here, and of the span that is current here; empty elsewhere."""
    tell = of_handler.get()
    fields = {} if tell is None else tell()
    found = tracing()
    if found is not None and (ids := found.ids()) is not None:
        fields["trace_id"], fields["span_id"] = ids
    return fields


def trace_id_of(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """The trace that a record belongs to, as its own header says."""
    for name, value in headers:
        if name == "traceparent" and value is not None and (found := parent_of(value)):
            return found["trace"].decode()
    return None
