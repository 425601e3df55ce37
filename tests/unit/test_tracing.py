"""Spans and what carries them, in the harness: the same code as with Kafka, without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from support.traces import Traces, recorded
from taskmill import App, Context, Middleware, Reject, Retry, Task
from taskmill.runtime import tracing
from taskmill.testing import Harness

app = App("shop", retry=Retry(max_attempts=2, base="1s"))


def ids() -> tuple[int, int]:
    found = trace.get_current_span().get_span_context()
    return found.trace_id, found.span_id


@app.task
async def charge(fails: int = 0, ctx: Context = None) -> list[str]:  # type: ignore[assignment]
    if ctx.attempt <= fails:
        raise ConnectionError("the bank is away")
    ctx.enqueue(pack.call())
    return [f"{one:x}" for one in ids()]


@app.task
def pack() -> list[str]:
    return [f"{one:x}" for one in ids()]


@app.task
def refuse() -> None:
    raise Reject("never")


@app.task
async def later(ctx: Context) -> None:
    if ctx.attempt == 1:
        raise Retry.after("5s")


@app.task
async def baggages() -> Any:
    return baggage.get_baggage("customer")


@app.task
async def typed(n: int) -> int:
    return n


app.schedule("nightly", pack, cron="0 3 * * *")


@pytest.fixture
def traces() -> Iterator[Traces]:
    with recorded() as one:
        yield one


@pytest.fixture
def mill(traces: Traces) -> Iterator[Harness]:
    with Harness(app, now="2026-01-01T12:00Z") as one:
        yield one


def headers(mill: Harness, topic: str = "taskmill.tasks.default") -> list[dict[str, bytes]]:
    return [dict(one.headers() or ()) for one in mill._broker.log(topic)]


def test_a_task_is_one_trace_from_its_enqueue_over_its_attempts_to_its_child(
    mill: Harness, traces: Traces
) -> None:
    handle = charge.enqueue(fails=1)
    mill.advance("10s")
    sent = traces.one("send charge")
    first, second = traces.named("process charge")
    made, child = traces.one("create pack"), traces.one("process pack")
    assert (sent.kind, first.kind, made.kind) == ("producer", "consumer", "producer")
    assert sent.parent_id is None
    assert first.parent_id == second.parent_id == sent.span_id
    assert first.links == second.links == (sent.span_id,)
    assert made.parent_id == second.span_id
    assert child.parent_id == made.span_id
    assert {one.trace_id for one in traces.all()} == {sent.trace_id}
    assert [one.attributes["taskmill.attempt"] for one in (first, second)] == [1, 2]
    # The handler ran with its own span as the current one.
    assert handle.result() == [second.trace_id.lstrip("0"), second.span_id.lstrip("0")]


def test_a_failure_is_told_as_the_conventions_ask(mill: Harness, traces: Traces) -> None:
    charge.enqueue(fails=1)
    mill.advance("10s")
    failed, well = traces.named("process charge")
    assert (failed.status, failed.events) == ("error", ("ConnectionError",))
    assert failed.attributes["error.type"] == "ConnectionError"
    assert failed.attributes["taskmill.outcome"] == "retrying"
    assert (well.status, well.events) == ("unset", ())
    assert "error.type" not in well.attributes
    assert well.attributes["taskmill.outcome"] == "succeeded"


def test_spans_have_the_names_of_the_messaging_conventions(mill: Harness, traces: Traces) -> None:
    pack.options(id="p-1").enqueue()
    mill.drain()
    sent, ran = traces.one("send pack"), traces.one("process pack")
    common = {
        "messaging.system": "kafka",
        "messaging.destination.name": "taskmill.tasks.default",
        "messaging.message.id": "p-1",
        "taskmill.task.name": "pack",
        "taskmill.queue": "default",
    }
    assert sent.attributes == common | {
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
    }
    assert ran.attributes == common | {
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 0,
        "messaging.consumer.group.name": "harness",
        "taskmill.attempt": 1,
        "taskmill.generation": 0,
        "taskmill.outcome": "succeeded",
    }


def test_a_handler_that_asks_to_be_called_later_has_not_failed(
    mill: Harness, traces: Traces
) -> None:
    later.enqueue()
    mill.advance("10s")
    assert [one.status for one in traces.named("process later")] == ["unset", "unset"]


def test_a_letter_and_its_replay_are_of_the_same_trace(mill: Harness, traces: Traces) -> None:
    refuse.enqueue()
    mill.drain()
    mill.replay(mill.letters[0])
    mill.drain()
    sent = traces.one("send refuse")
    died, again = traces.named("process refuse")
    assert died.attributes["taskmill.outcome"] == "dead"
    assert (died.status, died.events) == ("error", ("taskmill.runtime.errors.Reject",))
    assert died.parent_id == again.parent_id == sent.span_id
    assert [one.attributes["taskmill.generation"] for one in (died, again)] == [0, 1]


def test_what_cannot_be_begun_has_a_span_that_says_why(mill: Harness, traces: Traces) -> None:
    mill._broker.append("taskmill.tasks.default", b"k", b"garbage", [])
    app.enqueue_call(app.call("nobody", {}, declared=False))
    mill.drain()
    undecodable, unknown = sorted(traces.named("process (unknown)"), key=lambda one: one.events)
    assert undecodable.events != unknown.events
    assert "KeyError" in (*undecodable.events, *unknown.events)
    assert {undecodable.status, unknown.status} == {"error"}


def test_a_batch_has_one_span_that_all_its_tasks_belong_to(mill: Harness, traces: Traces) -> None:
    app.enqueue_many([pack.call() for _ in range(3)])
    mill.drain()
    sent = traces.one("send taskmill.tasks.default")
    assert sent.attributes["messaging.batch.message_count"] == 3
    assert [one.parent_id for one in traces.named("process pack")] == [sent.span_id] * 3


def test_each_fire_of_a_schedule_begins_a_trace(mill: Harness, traces: Traces) -> None:
    mill.advance("2d")
    made, ran = traces.named("create pack"), traces.named("process pack")
    assert [one.parent_id for one in made] == [None, None]
    assert [one.attributes["taskmill.schedule"] for one in made] == ["nightly"] * 2
    assert [one.parent_id for one in ran] == [one.span_id for one in made]
    assert len({one.trace_id for one in ran}) == 2


def test_baggage_and_a_span_of_the_caller_go_along(mill: Harness, traces: Traces) -> None:
    found = tracing.tracing()
    assert found is not None
    request = found.start("GET /", "client", {})
    token = context.attach(baggage.set_baggage("customer", "7"))
    with found.within(request):
        handle = baggages.enqueue()
    context.detach(token)
    assert traces.one("send baggages").parent_id == f"{request.get_span_context().span_id:016x}"
    assert headers(mill)[0]["baggage"] == b"customer=7"
    mill.drain()
    assert handle.result() == "7"


def test_nothing_is_left_behind_in_the_context(mill: Harness, traces: Traces) -> None:
    charge.enqueue()
    pack.enqueue()
    mill.drain()
    assert not trace.get_current_span().get_span_context().is_valid
    processed = traces.named("process pack")
    assert len({one.span_id for one in processed}) == 2


def test_an_id_that_a_hook_gives_is_the_spans_too(traces: Traces) -> None:
    class Renames(Middleware):
        def before_enqueue(self, task: Task) -> Task:
            return task._replace(id="another")

    other = App("other")
    other.use(Renames)

    @other.task
    async def noop() -> None: ...

    with Harness(other):
        noop.enqueue()
    assert traces.one("send noop").attributes["messaging.message.id"] == "another"


def test_what_is_not_sampled_is_carried_on_as_such() -> None:
    with recorded(ALWAYS_OFF) as traces, Harness(app) as mill:
        charge.enqueue()
        mill.drain()
        assert traces.all() == []
        assert [int(one["traceparent"][-2:], 16) & 1 for one in headers(mill)] == [0, 0]


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"00-1-2-01",
        b"\xff\xfe",
        b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
        b"ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        b"x" * 100_000,
        None,
    ],
)
def test_a_traceparent_that_is_none_begins_a_trace_and_fails_nothing(
    mill: Harness, traces: Traces, told: bytes | None
) -> None:
    call = pack.call()
    _, _, value = app.encode(call)
    given = [("traceparent", told), ("tracestate", b"\x00,=;"), ("baggage", b"%%%=,;=")]
    mill._broker.append("taskmill.tasks.default", call.key, value, given)  # type: ignore[arg-type]
    mill.drain()
    ran = traces.one("process pack")
    assert (ran.parent_id, ran.links) == (None, ())
    assert ran.attributes["taskmill.outcome"] == "succeeded"


def test_without_an_sdk_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_found", None)
    with Harness(app) as mill:
        handle = charge.enqueue()
        mill.drain()
        assert all("traceparent" not in one for one in headers(mill))
        assert handle.result() == ["0", "0"]
        assert mill._mill is not None
        assert mill._mill.attempts.prepare == mill._mill.attempts._prepare


def test_without_the_package_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_found", None)
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert tracing.tracing() is None
    assert tracing.loaded_tracing() is None
    with Harness(app) as mill:
        handle = typed.enqueue(n=1)
        mill.drain()
        assert handle.result() == 1


@pytest.mark.parametrize(
    "told",
    [
        "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "b" * 16 + "-00",
        "00-" + "a" * 32 + "-" + "b" * 16 + "-01-more",
        "cc-" + "a" * 32 + "-" + "b" * 16 + "-01-more",
        "cc-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "ff-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "0" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "0" * 16 + "-01",
        "00-" + "A" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "b" * 16,
        "",
    ],
)
def test_what_is_read_and_written_here_is_what_the_propagators_do(told: str) -> None:
    found = tracing.Tracing()
    quick = found.context_of([("traceparent", told.encode())])
    slow = found.context_of_text({"traceparent": told})
    read = [trace.get_current_span(one).get_span_context() for one in (quick, slow)]
    assert read[0] == read[1]
    span = trace.NonRecordingSpan(read[0])
    written = found.carried(None, trace.set_span_in_context(span, context.Context()))
    assert found.carried(span, context.Context()) == written
