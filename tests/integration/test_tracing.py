"""One trace from an enqueue to the end of its task, on a real Kafka, with a real SDK."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from support.consoles import ConsoleProcess
from support.traced import make
from support.traces import Traces, read_traces, recorded
from support.workers import WorkerProcess
from taskmill import App, Settings, TaskFailed
from taskmill.console.client import Client
from taskmill.console.tokens import TokenTable
from taskmill.consumer.letters import Filter, Letters
from taskmill.consumer.replay import Replay
from taskmill.consumer.replay_order import Order
from taskmill.consumer.replay_sources import LetterSource
from taskmill.consumer.worker import Worker
from taskmill.runtime.topics import Topics
from taskmill.runtime.tracing import tracing
from taskmill.schemas.codec import CODEC

pytestmark = pytest.mark.kafka

TARGET = "support.traced:app"


@pytest.fixture
def quick(settings: Settings) -> Settings:
    return settings.model_copy(update={"retry_tiers": ("100ms", "1s")})


@pytest.fixture
def traces() -> Iterator[Traces]:
    with recorded() as one:
        yield one


@contextmanager
def at_work(app: App) -> Iterator[Worker]:
    """A worker of `app` in this process, whose spans are this process's."""
    with ExitStack() as stack:
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        stack.callback(gc.set_threshold, *gc.get_threshold())
        stack.callback(gc.unfreeze)
        stack.enter_context(app)
        worker = Worker(app, target=TARGET)
        assert worker.start()
        stack.callback(worker.stop)
        stack.callback(worker.drain, 5.0)
        yield worker


def replay(settings: Settings, id: str) -> None:
    with Letters(settings, "default") as letters:
        chosen = Filter(ids=(id,))
        source = LetterSource(letters, chosen, letters.stretches(chosen), CODEC)
        one = Replay(settings, "default", letters.replayed, lambda progress: None)
        assert one.run(Order(asked={"id": id}), source).replayed == 1


def test_one_trace_leads_over_a_retry_the_dlq_and_a_replay_to_success_and_a_child(
    quick: Settings, tmp_path: Path, traces: Traces
) -> None:
    app = make(quick, tmp_path / "mended")
    scheduler = WorkerProcess(quick, tmp_path, target="", role="scheduler")
    with scheduler, at_work(app):
        handle = app.enqueue("brittle", {}, id="b-1")
        # Its span ends before its outcome is committed.
        with pytest.raises(TaskFailed):
            handle.result(timeout=60)
        (tmp_path / "mended").touch()
        replay(quick, "b-1")
        traces.until("process child")
    sent = traces.one("send brittle")
    attempts = traces.named("process brittle")
    told = [
        (one.attributes["taskmill.attempt"], one.attributes["taskmill.generation"])
        for one in attempts
    ]
    assert told == [(1, 0), (2, 0), (1, 1)]
    outcomes = [one.attributes["taskmill.outcome"] for one in attempts]
    assert outcomes == ["retrying", "dead", "succeeded"]
    assert [one.status for one in attempts] == ["error", "error", "unset"]
    assert {one.parent_id for one in attempts} == {sent.span_id}
    assert {one.links for one in attempts} == {(sent.span_id,)}
    made, child = traces.one("create child"), traces.one("process child")
    assert made.parent_id == attempts[2].span_id
    assert (child.parent_id, child.links) == (made.span_id, (made.span_id,))
    of_task = (sent, *attempts, made, child)
    assert {one.trace_id for one in of_task} == {sent.trace_id}
    # The replay's own span is of the program that replays, and links to what it put back.
    (again,) = traces.named("send " + Topics(quick.prefix, "default").tasks)
    assert (again.kind, again.links) == ("client", (sent.span_id,))


def test_a_handler_that_enqueues_by_itself_is_the_parent_too(
    settings: Settings, traces: Traces
) -> None:
    app = make(settings)
    with at_work(app):
        app.enqueue("by_hand", {})
        traces.until("process child")
    outer, sent, ran = (traces.one(n) for n in ("process by_hand", "send child", "process child"))
    assert (sent.parent_id, ran.parent_id) == (outer.span_id, sent.span_id)


def test_a_batch_is_of_one_trace(settings: Settings, traces: Traces) -> None:
    app = make(settings)
    with at_work(app):
        app.enqueue_many([app.call("child", {}) for _ in range(20)])
        traces.until("process child", 20)
    sent = traces.one(f"send {Topics(settings.prefix, 'default').tasks}")
    assert {one.parent_id for one in traces.named("process child")} == {sent.span_id}


async def _enqueue(app: App) -> None:
    await app._enqueuer.get().aenqueue(app.call("child", {}))


def test_an_async_enqueue_is_traced_alike(settings: Settings, traces: Traces) -> None:
    app = make(settings)
    with at_work(app):
        asyncio.run(_enqueue(app))
        traces.until("process child")
    assert traces.one("process child").parent_id == traces.one("send child").span_id


def test_a_handler_in_a_process_of_its_own_is_under_the_workers_span(
    settings: Settings, tmp_path: Path
) -> None:
    traces = read_traces(tmp_path / "spans")
    env = {"TRACED_SPANS": str(tmp_path / "spans")}
    with WorkerProcess(settings, tmp_path, target=TARGET, env=env) as worker:
        worker.wait_ready(2)
        with make(settings) as app:
            pid, current = app.enqueue("apart", {}, id="a-1").result(timeout=60)
        traces.until("process child")
    assert pid != worker.pid
    outer, inside = traces.one("process apart"), traces.one("inside")
    made, child = traces.one("create child"), traces.one("process child")
    assert current == outer.span_id
    assert inside.parent_id == outer.span_id
    assert (made.parent_id, child.parent_id) == (inside.span_id, made.span_id)
    assert len({one.trace_id for one in (outer, inside, made, child)}) == 1


def test_a_schedule_that_fires_begins_a_trace(settings: Settings, tmp_path: Path) -> None:
    traces = read_traces(tmp_path / "spans")
    env = {"TRACED_SPANS": str(tmp_path / "spans"), "TRACED_EVERY": "1s"}
    scheduler = WorkerProcess(settings, tmp_path, target=TARGET, env=env, role="scheduler")
    with scheduler, WorkerProcess(settings, tmp_path, target=TARGET, env=env):
        traces.until("process child", 2)
    made = {one.span_id: one for one in traces.named("create child")}
    ran = traces.named("process child")
    assert all(made[str(one.parent_id)].trace_id == one.trace_id for one in ran)
    assert {one.parent_id for one in made.values()} == {None}
    assert {one.attributes["taskmill.schedule"] for one in made.values()} == {"often"}


def test_a_request_of_http_hands_its_trace_on(settings: Settings, tmp_path: Path) -> None:
    trace_id, span_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    told = {"traceparent": f"00-{trace_id}-{span_id}-01", "tracestate": "a=1"}
    with ConsoleProcess(settings, tmp_path) as console:
        client = console.wait_until_ready().client("enqueue")
        one = {"name": "child", "args": {}, "id": "h-1"}
        many = {"tasks": [{"name": "child", "args": {}, "id": f"h-{n}"} for n in (2, 3)]}
        assert client.post("/api/v1/tasks", json=one, headers=told).status_code == 202
        assert client.post("/api/v1/tasks:batch", json=many, headers=told).status_code == 202
        _, token = TokenTable(settings).create(["enqueue"], by="test")
        with recorded() as traces, Client(console.url, token) as ours:
            here = tracing()
            assert here is not None
            with here.within(span := here.start("ask", "client", {})):
                ours.enqueue("child", {}, id="h-5")
            assert traces.all() == []
        bad = {"traceparent": "nonsense"}
        assert client.post("/api/v1/tasks", json={**one, "id": "h-4"}, headers=bad).is_success
    found = {key: dict(headers) for key, headers in records(settings)}
    for id in ("h-1", "h-2", "h-3"):
        assert found[id.encode()]["traceparent"].decode() == told["traceparent"]
        assert found[id.encode()]["tracestate"] == b"a=1"
    assert "traceparent" not in found[b"h-4"]
    assert f"{span.get_span_context().span_id:016x}" in found[b"h-5"]["traceparent"].decode()


def records(settings: Settings) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
    """Key and headers of all that lies on `tasks`."""
    topic = Topics(settings.prefix, "default").tasks
    group = {"group.id": "x", "enable.partition.eof": True, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": str(settings.bootstrap_servers), **group})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(settings.partitions)])
    found, ends = [], 0
    while ends < settings.partitions:
        message = consumer.poll(10)
        assert message is not None
        if message.error() is not None:
            ends += 1
        else:
            found.append((message.key() or b"", list(message.headers() or ())))
    consumer.close()
    return found  # type: ignore[return-value]


def test_a_foreign_clients_nonsense_fails_no_task(settings: Settings, traces: Traces) -> None:
    app = make(settings)
    with at_work(app):
        producer = Producer(
            {
                "bootstrap.servers": str(settings.bootstrap_servers),
                "partitioner": "murmur2_random",
            }
        )
        for id, told in (("f-1", b"00-1-2-01"), ("f-2", b"\xff"), ("f-3", b"")):
            _, _, value = app.encode(app.call("child", {}, id=id))
            topic = Topics(settings.prefix, "default").tasks
            producer.produce(topic, value, id, headers=[("traceparent", told)])
        producer.flush(30)
        ran = traces.until("process child", 3)
    assert {(one.parent_id, one.attributes["taskmill.outcome"]) for one in ran} == {
        (None, "succeeded")
    }
