"""Cancelling, whole: from the command line and from handles, wherever the task stands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from support.commands import Command, set_environment
from support.queues import Queue
from support.scraped import Scraped
from support.witness import Witness
from support.workers import Gate, runs
from taskmill import App, TaskFailed
from taskmill.producer.handle import Handle
from taskmill.runtime.config import Settings
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topics import Topics, check, partition_count
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import CANCEL, Control, TaskState
from taskmill.schemas.states import Status

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

#: A wait for what must come: long beside any machine, short beside the test's own limit.
LONG_S = 40.0


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate() as one:
        yield one


@pytest.fixture
def changed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Handlers that do not end are left after half a second."""
    found = Settings(**{**settings.model_dump(), "timeout_grace_ms": 500, "metrics_port": 0})
    set_environment(found, monkeypatch)
    return found


@pytest.fixture
def queue(changed: Settings, tmp_path: Path) -> Iterator[Queue]:
    with Queue(changed, tmp_path) as one:
        yield one


@pytest.fixture
def app(changed: Settings) -> Iterator[App]:
    with App("client", changed) as one:
        yield one


def put(app: App, name: str, id: str, **args: object) -> Handle[object]:
    return app.enqueue(name, args, id=id, declared=False)


def ended(app: App, *ids: str) -> dict[str, TaskState]:
    return {id: app.handle(id).outcome(LONG_S) for id in ids}


def statuses(app: App, *ids: str) -> set[Status]:
    return {state.status for state in ended(app, *ids).values()}


KINDS = ("gated", "gated_thread", "gated_process")


def test_every_kind_of_handler_is_told_to_end_and_what_waits_behind_it_never_begins(
    queue: Queue, app: App, gate: Gate
) -> None:
    worker = queue.add("--concurrency", "1", env=gate.env).wait_ready(2)
    for name in KINDS:
        put(app, name, name)
    gate.wait_begun(*KINDS)
    for name in KINDS:
        put(app, name, f"{name}:2")
        put(app, name, f"{name}:3")
    for name in KINDS:
        app.handle(f"{name}:2").cancel(name=name)
    assert statuses(app, *(f"{name}:2" for name in KINDS)) == {Status.CANCELLED}
    for name in KINDS:
        app.handle(name).cancel()
        app.handle(name).cancel()
    found = ended(app, *KINDS)
    assert {state.status for state in found.values()} == {Status.CANCELLED}
    assert {(state.name, state.attempt, state.error) for state in found.values()} == {
        (name, 1, None) for name in KINDS
    }
    gate.wait_begun(*(f"{name}:3" for name in KINDS))
    gate.open()
    assert statuses(app, *(f"{name}:3" for name in KINDS)) == {Status.SUCCEEDED}
    assert not any(f"{name}:2" in gate.begun for name in KINDS)
    assert not queue.oracle.letters()
    with pytest.raises(TaskFailed, match="is cancelled"):
        app.handle("gated").result(LONG_S)
    worker.wait_for("task gated_thread of gated_thread does not end, 0.5 s after .* cancelled")
    assert worker.terminate() == 0


def test_what_is_scheduled_is_not_run_when_its_time_has_come(queue: Queue, app: App) -> None:
    queue.add().wait_ready(2)
    scheduler = queue.add(target="", role="scheduler")
    for id in ("one", "two"):
        app.enqueue("noop", {}, id=id, delay="8s", declared=False)
    with Witness(queue.oracle.bootstrap, [queue.oracle.state]) as witness:
        witness.until(lambda: {b"one", b"two"} <= set(witness.states), "no states")
        assert {states[-1]["status"] for states in witness.states.values()} == {"scheduled"}
    app.handle("one").cancel(name="noop")
    assert statuses(app, "one") == {Status.CANCELLED}
    assert statuses(app, "two") == {Status.SUCCEEDED}
    # What fired with the other one, or before it, is dropped.
    queue.oracle.wait_consumed()
    assert runs(queue.folder) == ["two"]
    assert scheduler.terminate() == 0


def test_a_next_attempt_is_not_made(queue: Queue, app: App) -> None:
    queue.add().wait_ready(2)
    handle = put(app, "flaky", "one", fails=9, wait="1h")
    with Witness(queue.oracle.bootstrap, [queue.oracle.state]) as witness:
        witness.until(lambda: b"one" in witness.states, lambda: "no state")
    handle.cancel()
    assert handle.outcome(LONG_S).status is Status.CANCELLED


def test_what_was_cancelled_before_it_came_or_without_a_worker_is_never_run(
    queue: Queue, app: App
) -> None:
    app.handle("unseen").cancel(name="noop")
    put(app, "noop", "queued").cancel()
    queue.add().wait_ready(2)
    assert ended(app, "unseen")["unseen"].name == "noop"
    assert statuses(app, "queued") == {Status.CANCELLED}
    put(app, "noop", "unseen")
    put(app, "noop", "other")
    assert statuses(app, "other") == {Status.SUCCEEDED}
    queue.oracle.wait_consumed()
    assert runs(queue.folder) == ["other"]


def test_what_has_ended_stays_and_the_commands_say_so(
    queue: Queue, app: App, command: Command
) -> None:
    put(app, "noop", "done")
    queue.add().wait_ready(2)
    assert app.handle("done").outcome(LONG_S).status is Status.SUCCEEDED
    asyncio.run(app.handle("done").acancel())
    ran = command("cancel", "done")
    assert (ran.code, ran.out) == (0, "asked for task 'done' in queue 'default' to be cancelled\n")
    ran = command("cancel", "done", "--wait")
    assert (ran.code, ran.out) == (1, "task 'done' is succeeded\n")
    ran = command("cancel", "never", "--wait", "--json")
    assert (ran.code, ran.json["cancelled"], ran.json["status"]) == (0, True, "cancelled")
    ran = command("cancel", "x", "-q", "nowhere")
    assert ran.code == 2
    assert "there is no queue 'nowhere'" in ran.err
    assert app.handle("done").status() is Status.SUCCEEDED


def test_a_cancellation_outlives_the_worker_that_was_carrying_it_out(
    queue: Queue, app: App, gate: Gate
) -> None:
    patient = Settings(**{**queue.settings.model_dump(), "timeout_grace_ms": 60_000})
    first = queue.add(env=gate.env, settings=patient).wait_ready(2)
    put(app, "gated_thread", "stuck")
    gate.wait_begun("stuck")
    app.handle("first").cancel()
    assert statuses(app, "first") == {Status.CANCELLED}
    app.handle("stuck").cancel()
    # It is in a system call, where nothing reaches it.
    app.handle("last").cancel()
    assert statuses(app, "last") == {Status.CANCELLED}
    first.kill()
    queue.add(env=gate.env).wait_ready(2)
    assert statuses(app, "stuck") == {Status.CANCELLED}
    assert gate.begun == ["stuck"]


def test_what_is_no_cancellation_is_passed_over_and_told_once(
    queue: Queue, app: App, changed: Settings
) -> None:
    app.handle("a").cancel()
    topic = Topics(changed.prefix, "default").control
    count = partition_count(changed, topic)
    assert count == partition_count(changed, Topics(changed.prefix, "default").tasks)
    assert not [d for d in check(changed, ["default"]) if d.topic == topic]
    p = partition_for(b"b", count)
    producer = Producer({"bootstrap.servers": changed.bootstrap_servers})
    good = CODEC.encode_control(Control("b", CANCEL, 0))
    other = CODEC.encode_control(Control("b", "paint", 0))
    for key, value, partition in (
        (b"b", b"garbage", p),
        (b"b", None, p),
        (b"c", good, p),
        (b"b", good, (p + 1) % count),
        (b"b", other, p),
        (b"b", good, p),
    ):
        producer.produce(topic, value, key, partition)
    assert producer.flush(10) == 0
    worker = queue.add().wait_ready(2)
    assert statuses(app, "a", "b") == {Status.CANCELLED}
    worker.wait_for("passed over on .* action 'paint' is not known here")
    worker.wait_for("passed over on .* its key is not its id")
    worker.wait_for("passed over on .* murmur2 of its key says another partition")
    put(app, "noop", "z")
    assert statuses(app, "z") == {Status.SUCCEEDED}


def test_the_offset_on_control_moves_with_what_came_of_it(
    queue: Queue, app: App, changed: Settings
) -> None:
    worker = queue.add().wait_ready(2)
    for n in range(50):
        app.handle(f"x{n}").cancel()
    assert statuses(app, *(f"x{n}" for n in range(50))) == {Status.CANCELLED}
    assert worker.terminate() == 0
    again = queue.add().wait_ready(2)
    app.handle("last").cancel()
    assert statuses(app, "last") == {Status.CANCELLED}
    port = again.wait_for(r"metrics on port (\d+)")[1]
    name = "taskmill_tasks_finished_total"
    page = Scraped(port).until(lambda page: page.total(name, outcome="cancelled") > 0, "end")
    assert page.total(name, outcome="cancelled") == 1, "what was carried out is not read again"
