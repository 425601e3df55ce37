"""Spans of a test's own: a tracer with an exporter in memory, in place of the process's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from taskmill.runtime import tracing
from taskmill.runtime.tracing import Tracing

#: Spans of the platform that a test did ask for are there by then.
_LONG_S = 30.0


class Seen(NamedTuple):
    """A span that has ended; IDs in hex."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str | None
    links: tuple[str, ...]
    attributes: dict[str, Any]
    status: str
    events: tuple[str, ...]

    @classmethod
    def of(cls, span: ReadableSpan) -> Seen:
        context, parent = span.get_span_context(), span.parent
        assert context is not None
        return cls(
            span.name,
            span.kind.name.lower(),
            f"{context.trace_id:032x}",
            f"{context.span_id:016x}",
            None if parent is None else f"{parent.span_id:016x}",
            tuple(f"{link.context.span_id:016x}" for link in span.links),
            dict(span.attributes or {}),
            span.status.status_code.name.lower(),
            tuple(str((event.attributes or {}).get("exception.type")) for event in span.events),
        )


class Traces:
    """What ended so far."""

    def __init__(self, read: Callable[[], list[Seen]]) -> None:
        self.all = read

    def named(self, name: str, **attributes: Any) -> list[Seen]:
        """The spans of that name, in order of their ends, with these `taskmill.…` attributes."""
        wanted = {f"taskmill.{key}": value for key, value in attributes.items()}
        return [
            one
            for one in self.all()
            if one.name == name and wanted.items() <= one.attributes.items()
        ]

    def one(self, name: str, **attributes: Any) -> Seen:
        """The only one of them."""
        (found,) = self.named(name, **attributes)
        return found

    def until(self, name: str, count: int = 1, **attributes: Any) -> list[Seen]:
        """Wait for so many of them."""
        end = time.monotonic() + _LONG_S
        while len(found := self.named(name, **attributes)) < count:
            assert time.monotonic() < end, f"{len(found)} × {name!r}, not {count}: {self.all()}"
            time.sleep(0.02)
        return found


@contextmanager
def recorded(sampler: Sampler | None = None) -> Iterator[Traces]:
    """Meanwhile this process's spans are kept in memory. The global provider, which can be set but
    once, stays as it is."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    before = tracing._found
    tracing._found = Tracing(provider.get_tracer("taskmill"))
    try:
        yield Traces(lambda: [Seen.of(one) for one in exporter.get_finished_spans()])
    finally:
        tracing._found = before
        provider.shutdown()


class FileExporter(SpanExporter):
    """Writes each span to a file that processes share, a line each."""

    def __init__(self, path: str) -> None:
        self._path = path

    def export(self, spans: Any) -> SpanExportResult:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(Seen.of(one)) + "\n" for one in spans))
        return SpanExportResult.SUCCESS


def read_traces(path: Path) -> Traces:
    """What processes have written with a FileExporter."""

    def read() -> list[Seen]:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        return [Seen(*json.loads(line)) for line in lines]

    return Traces(read)
