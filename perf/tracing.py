"""What does tracing cost a task?

An attempt (prepared, its handler run, its outcome named) and an enqueue up to the client's own
queue, in one thread, without a broker, so that nothing else is in the figure: where OpenTelemetry
is not installed, where its API is and no SDK was set up, and with an SDK that samples one trace in
a hundred, or all. Each is a process of its own; they take turns.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Any

from jobs import make
from load import SEED
from measure import Figure, apart, median, report, sized, title

#: Nothing installed; the API alone; an SDK and the share of traces that it samples.
SIDES: dict[str, float | None] = {
    "without the package": None,
    "API only": -1.0,
    "SDK, 1 % sampled": 0.01,
    "SDK, all sampled": 1.0,
}


def measured(share: float | None, count: int) -> dict[str, float]:
    """CPU microseconds of an attempt and of an enqueue."""
    if share is None:
        sys.modules["opentelemetry"] = None  # type: ignore[assignment]
    else:
        import opentelemetry.trace  # noqa: F401  (as whoever uses it does)
    if share is not None and share >= 0:
        _set_up(share)
    return {"attempt": _attempt_us(share, count), "enqueue": _enqueue_us(count // 5)}


def _set_up(share: float) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(share))
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)


def _attempt_us(share: float | None, count: int) -> float:
    from taskmill.consumer.attempt import Attempts, Prepared, definitions_by_name
    from taskmill.consumer.failure_log import FailureLog
    from taskmill.consumer.record import Lease, Record, Source
    from taskmill.consumer.scope import Scopes
    from taskmill.runtime.clock import SYSTEM_CLOCK
    from taskmill.schemas.models import JSON, Task

    app, lease = make(), Lease(0, 1, "default")
    definitions = definitions_by_name(app.tasks)
    attempts = Attempts(definitions, SYSTEM_CLOCK, app.hooks.then(FailureLog()), 10_000)
    Scopes(str, definitions).start(attempts)
    dice = random.Random(SEED)
    records = []
    for n in range(count):
        flags = int(share is not None and dice.random() < share)
        told = f"00-{dice.getrandbits(128):032x}-{dice.getrandbits(64):016x}-{flags:02x}"
        headers = [("taskmill-partition", b"0/8"), ("traceparent", told.encode())]
        task = Task(f"task-{n}", "noop", b'{"n":1}', JSON, 1_000)
        source = Source("taskmill.tasks.default", 0, n, 1_000, b"k", b"v", headers)
        records.append(Record(lease, n, b"k", 0, 0, task, source))

    def run(record: Record) -> None:
        attempt = attempts.prepare(record)
        assert isinstance(attempt, Prepared), attempt
        if attempt.scope is None:
            attempts.succeed(attempt, _value(attempt))
        else:
            with attempt.scope:
                attempts.succeed(attempt, _value(attempt))

    def _value(attempt: Prepared) -> Any:
        try:
            attempt.definition.fn(**attempt.arguments).send(None)
        except StopIteration as end:
            return end.value

    return _us(run, records)


def _enqueue_us(count: int) -> float:
    from taskmill.testing import Harness

    app = make()
    with Harness(app):
        calls = [app.call("noop", {"n": 1}) for _ in range(count)]
        return _us(app.enqueue_call, calls)


def _us(do: Callable[[Any], Any], values: list[Any]) -> float:
    for value in values[:100]:
        do(value)
    rest = values[100:]
    began = time.thread_time()
    for value in rest:
        do(value)
    return (time.thread_time() - began) / len(rest) * 1e6


def figures_of(runs: dict[str, list[dict[str, float]]]) -> list[Figure]:
    """Medians of each side, and what each takes beyond the first."""
    figures = []
    for what in ("attempt", "enqueue"):
        found = {side: median([run[what] for run in runs[side]]) for side in SIDES}
        least = found["without the package"]
        for side, value in found.items():
            reference = None if value is least else least
            figures.append(Figure(f"{what}, {side}", value, "µs", "lower", reference=reference))
        # Of a worker it is asked for: an enqueue takes a thousand times as long anyway.
        must = 1 if what == "attempt" else None
        more = found["API only"] - least
        figures.append(Figure(f"{what}, more with the API only", more, "µs", "lower", must))
    return figures


def main() -> int:
    options = sized(__doc__, "two minutes", count=(30_000, 1_000), pairs=(5, 1))
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for pair in range(options.pairs):
        for side in sorted(SIDES, reverse=bool(pair % 2)):
            took = apart(measured, share=SIDES[side], count=options.count)
            runs[side].append(took)
            print(f"pair {pair} {side:20} {took}", file=sys.stderr)
    settings = {"tasks": options.count, "runs of each": options.pairs, "seed": SEED}
    good = report("tracing", title(__doc__), figures_of(runs), settings, keep=not options.quick)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
