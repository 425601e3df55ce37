"""The trace that a request belongs to goes on: with the tasks that it enqueues."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from starlette.datastructures import Headers

from taskmill.runtime.tracing import loaded_tracing

_NOTHING: AbstractContextManager[Any] = nullcontext()


def trace_of(headers: Headers) -> AbstractContextManager[Any]:
    """Where the trace of a request with these headers is current. Where the server is instrumented,
    so that a span of its own is, that one stays."""
    if "traceparent" not in headers or (found := loaded_tracing()) is None:
        return _NOTHING
    if found.ids() is not None:
        return _NOTHING
    # Several lines of one name are one list, as HTTP has it.
    carrier = {name: ",".join(headers.getlist(name)) for name in headers}
    return found.within(None, found.context_of_text(carrier))
