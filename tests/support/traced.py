"""An App of traced tasks, for workers in this process and in others.

Where TRACED_SPANS names a file, an SDK is set up that writes spans there.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from opentelemetry import trace

from taskmill import App, Context, Retry
from taskmill.runtime.config import Settings


def make(settings: Settings | None = None, mended: Path = Path("mended")) -> App:
    """The App. Its `brittle` dies until the file `mended` is there."""
    app = App("traced", settings, retry=Retry(max_attempts=2, base="100ms", factor=1))

    @app.task
    async def brittle(ctx: Context) -> str:
        if not mended.exists():
            await asyncio.sleep(0)
            raise ConnectionError("not mended")
        ctx.enqueue(child.options(id=f"{ctx.id}/child").call())
        return span_id()

    @app.task
    def child() -> str:
        return span_id()

    @app.task
    def by_hand() -> str:
        """Enqueues as any program does, not with its outcome."""
        return child.enqueue().id

    @app.task(isolate="process")
    def apart(ctx: Context) -> list[Any]:
        with trace.get_tracer("theirs").start_as_current_span("inside"):
            ctx.enqueue(child.options(id=f"{ctx.id}/child").call())
        return [os.getpid(), span_id()]

    return app


def span_id() -> str:
    """Of the span that is current."""
    return f"{trace.get_current_span().get_span_context().span_id:016x}"


if path := os.environ.get("TRACED_SPANS"):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    from support.traces import FileExporter

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileExporter(path)))
    trace.set_tracer_provider(provider)

app = make()
if period := os.environ.get("TRACED_EVERY"):
    app.schedule("often", app.tasks["child"], every=period)
