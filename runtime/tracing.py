"""OpenTelemetry's API, where this process uses it: what spans are made with, and how they travel.

Nothing here imports it unasked. A process that has not imported it has no SDK and no span either,
so that the extra `tracing`, installed or not, costs those nothing who do not use it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from taskmill._version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanContext, Tracer

#: As confluent-kafka takes them.
Headers = list[tuple[str, bytes]]
#: Longer ones are none of a propagator's.
_MAX_HEADER_BYTES = 8192
_W3C = frozenset({"traceparent", "tracestate", "baggage"})
#: W3C Trace Context, "traceparent Header": version, trace ID, parent ID, flags; of a later version
#: than 00 there may be more.
_TRACEPARENT = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})"
    rb"-(?!0{16})(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)


def parent_of(value: bytes) -> re.Match[bytes] | None:
    """A `traceparent` taken apart: `trace`, `span`, `flags`; None: it is none."""
    found = _TRACEPARENT.fullmatch(value)
    return None if found is None or (found["version"] == b"00" and found["more"]) else found


class Tracing:
    """A tracer, and the propagators that the process has (TraceContext and Baggage by default)."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        """`tracer`: in place of the process's own provider's."""
        from opentelemetry import baggage, context, propagate, trace

        self._attach, self._detach = context.attach, context.detach
        self._new_context = context.Context
        self._nothing = context.Context()
        self._has_baggage = baggage.get_all
        self._propagate = propagate
        # Tasks of a batch have the same.
        self._context_of_parent = lru_cache(maxsize=4096)(self._read_parent)
        self._trace = trace
        self._is_given = tracer is not None
        self._tracer = tracer or trace.get_tracer("taskmill", __version__)

    @property
    def is_on(self) -> bool:
        """Whether spans go anywhere: an SDK, or what stands for one, was set."""
        trace = self._trace
        return self._is_given or not isinstance(
            trace.get_tracer_provider(), trace.ProxyTracerProvider
        )

    def start(
        self,
        name: str,
        kind: str,
        attributes: Mapping[str, str | int],
        parent: Context | None = None,
        links: Sequence[Link] = (),
    ) -> Span:
        """A span of that kind ("producer", "consumer", "client"), to be ended by the caller;
        `parent` None: the current context."""
        kinds = self._trace.SpanKind
        return self._tracer.start_span(
            name, parent, kinds[kind.upper()], attributes, links or None, record_exception=False
        )

    def within(
        self, span: Span | None, context: Context | None = None
    ) -> AbstractContextManager[Any]:
        """Where `span` is the current one, over `context`'s other values; None: `context` alone."""
        if span is not None:
            context = self._trace.set_span_in_context(span, context)
        return _Within(self._attach, self._detach, context)

    def carried(self, span: Span | None = None, context: Context | None = None) -> dict[str, str]:
        """What a message carries of `span`, or of the current context; empty: of nothing."""
        if span is not None:
            told = span.get_span_context()
            if self._is_w3c and not told.trace_state and not self._has_baggage(context):
                return self._parent(told)
            context = self._trace.set_span_in_context(span, context)
        carrier: dict[str, str] = {}
        self._propagate.inject(carrier, context)
        return carrier

    def headers(self, span: Span | None = None) -> Headers:
        """As `carried`, for a record."""
        return [(name, value.encode()) for name, value in self.carried(span).items()]

    def context_of(self, headers: Iterable[tuple[str, bytes | None]]) -> Context:
        """The context that a record carries; an empty one, where what it carries is none."""
        parent, is_plain = None, self._is_w3c
        for name, value in headers:
            if name == "traceparent":
                parent = value
            elif name in _W3C:
                is_plain = False
        if is_plain:
            found: Context = self._context_of_parent(parent[:512]) if parent else self._nothing
            return found
        carrier = {
            name: value.decode("utf-8", "replace")
            for name, value in headers
            if value is not None
            and len(value) <= _MAX_HEADER_BYTES
            and not name.startswith("taskmill-")
        }
        return self.context_of_text(carrier)

    @cached_property
    def _is_w3c(self) -> bool:
        """Whether the process's propagators are W3C's, whose common case is read and written here:
        in a tenth of their time."""
        return "traceparent" in (fields := self._propagate.get_global_textmap().fields) and (
            fields <= _W3C
        )

    def _read_parent(self, value: bytes) -> Context:
        found, trace = parent_of(value), self._trace
        if found is None:
            return self._nothing
        flags = trace.TraceFlags(int(found["flags"], 16))
        told = trace.SpanContext(int(found["trace"], 16), int(found["span"], 16), True, flags)
        read: Context = trace.set_span_in_context(trace.NonRecordingSpan(told), self._nothing)
        return read

    def _parent(self, told: SpanContext) -> dict[str, str]:
        if not told.is_valid:
            return {}
        ids = f"{told.trace_id:032x}-{told.span_id:016x}"
        return {"traceparent": f"00-{ids}-{told.trace_flags:02x}"}

    def context_of_text(self, carrier: Mapping[str, str]) -> Context:
        """As `context_of`, of names in lower case."""
        nothing = self._new_context()
        if not carrier:
            return nothing
        try:
            return self._propagate.extract(carrier, nothing)
        except Exception:  # whatever a foreign client wrote there, its task is none the worse
            return nothing

    def links_to(self, context: Context) -> list[Link]:
        """A link to the span of `context`, if it has one that is sampled."""
        found = self._trace.get_current_span(context).get_span_context()
        return [self._trace.Link(found)] if found.is_valid and found.trace_flags.sampled else []

    def ids(self) -> tuple[str, str] | None:
        """Trace and span ID of the current span, in hex."""
        found = self._trace.get_current_span().get_span_context()
        if not found.is_valid:
            return None
        return self._trace.format_trace_id(found.trace_id), self._trace.format_span_id(
            found.span_id
        )

    def fail(self, span: Span, kind: str, message: str, stack: str = "") -> None:
        """Say on `span` of what it failed: the exception's type, text and stack."""
        trace = self._trace
        event = {"exception.type": kind, "exception.message": message}
        if stack:
            event["exception.stacktrace"] = stack
        span.add_event("exception", event)
        span.set_attribute("error.type", kind)
        span.set_status(trace.Status(trace.StatusCode.ERROR, f"{kind}: {message}"))


class _Within:
    """A context that is the current one inside a `with`."""

    __slots__ = ("_attach", "_context", "_detach", "_token")

    def __init__(self, attach: Any, detach: Any, context: Any) -> None:
        self._attach, self._detach = attach, detach
        self._context = context

    def __enter__(self) -> None:
        self._token = self._attach(self._context)

    def __exit__(self, *_: object) -> None:
        self._detach(self._token)


_found: Tracing | None = None


def tracing() -> Tracing | None:
    """None where this process has not imported OpenTelemetry."""
    global _found
    if _found is None and "opentelemetry.trace" in sys.modules:
        _found = Tracing()
    return _found


def sending_tracing() -> Tracing | None:
    """As `tracing`; None as well where there is nothing to be sent along: no SDK, no span."""
    found = tracing()
    return found if found is not None and (found.is_on or found.ids() is not None) else None


def loaded_tracing() -> Tracing | None:
    """As `tracing`, but it is imported; None where it is not installed."""
    try:
        import opentelemetry.trace  # noqa: F401
    except ImportError:
        return None
    return tracing()


def live_tracing() -> Tracing | None:
    """As `tracing`; None as well where its spans would go nowhere."""
    found = tracing()
    return found if found is not None and found.is_on else None
