"""A worker end to end: tasks in through the App or any Kafka client, outcomes out of Kafka."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.brokers import delete_topics
from support.oracle import Oracle
from support.wire import read_result, read_state, task_value
from support.workers import WorkerProcess
from taskmill import App, TaskFailed
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

pytestmark = pytest.mark.kafka

PREFIX = "t-worker"


class House:
    """One worker, one App that enqueues, and the witness: shared by the tests of this file."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        ensure(settings, "default")
        self.oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
        self.worker = WorkerProcess(settings, folder, env={"JOBS_LOUD": "1"})
        self.app = App("enqueuer", settings)

    def run(self, name: str, id: str | None = None, /, **args: Any) -> Any:
        """The result of a task."""
        return self.app.enqueue(name, args, id=id, declared=False).result(timeout=30)

    def ends(self, name: str, id: str, /, **args: Any) -> dict[str, Any]:
        """The terminal state of a task."""
        self.app.enqueue(name, args, id=id, declared=False)
        return self.oracle.wait_state(id)

    def letter(self, id: str) -> dict[str, str]:
        """The headers of the dead letter of `id`."""
        (found,) = [r for r in self.oracle.letters() if r.key == id.encode()]
        return {name: value.decode() for name, value in found.headers.items()}


@pytest.fixture(scope="module")
def house(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("worker")
    prefix = f"{PREFIX}-{os.getpid()}"
    settings = Settings(
        bootstrap_servers=broker, prefix=prefix, partitions=2, state_dir=folder / "state"
    )
    one = House(settings, folder)
    with one.worker, one.app:
        one.worker.wait_ready(2)
        yield one
    delete_topics(broker, prefix)


def test_an_async_handler_returns_its_result_through_the_handle(house: House) -> None:
    value = {"text": "é", "list": [1, 2.5, None, True]}
    assert house.run("echo", value=value) == value


def test_a_plain_function_runs_in_a_thread_of_the_worker(house: House) -> None:
    assert house.run("in_thread") == {"pid": house.worker.pid, "main": False}


def test_an_isolated_handler_runs_in_a_child_of_the_worker_with_its_own_lifespan(
    house: House,
) -> None:
    found = house.run("in_process")
    assert found["parent"] == house.worker.pid
    assert found["resources"] == {"pid": found["pid"]}


def test_a_child_that_dies_fails_its_task_and_the_next_one_runs(house: House) -> None:
    with pytest.raises(TaskFailed, match="exit code 7"):
        house.run("dies", how=7)
    assert house.run("in_process")["parent"] == house.worker.pid


def test_an_alias_reaches_its_task(house: House) -> None:
    assert house.run("repeat", value=1) == 1


def test_the_context_tells_the_handler_of_its_task_and_its_process(house: House) -> None:
    handle = house.app.enqueue("context", {}, id="ctx", headers={"who": "é"}, declared=False)
    found = handle.result(timeout=30)
    state = house.oracle.wait_state("ctx")
    assert found == {
        "id": "ctx",
        "name": "context",
        "queue": "default",
        "generation": 0,
        "seq": 0,
        "attempt": 1,
        "enqueued_at": state["enqueued_at"],
        "headers": {"who": "é"},
        "resources": {"pid": house.worker.pid},
    }
    house.worker.wait_for("taskmill.task.context: in the handler of ctx")


def test_a_task_of_a_plain_kafka_client_runs_and_its_payload_is_checked_again(
    house: House,
) -> None:
    house.oracle.put(b"plain", task_value("plain", "add", {"a": 2}))
    assert house.oracle.wait_state("plain")["result"] == b"3"


def test_the_state_says_what_ran_where_and_when(house: House) -> None:
    place = house.oracle.put(b"told", task_value("told", "add", {"a": 2, "b": 3}))
    state = house.oracle.wait_state("told")
    worker, started, finished = (state.pop(k) for k in ("worker", "started_at", "finished_at"))
    assert re.fullmatch(r"[0-9a-f]{12}\.0", worker)
    assert started <= finished
    # A slow machine may have told "running" before.
    record = [r for r in house.oracle.read(house.oracle.state) if r.key == b"told"][-1]
    assert started - 5_000 <= record.timestamp <= finished + 60_000
    assert state == {
        "id": "told",
        "name": "add",
        "queue": "default",
        "status": "succeeded",
        "generation": 0,
        "seq": 0,
        "attempt": 1,
        "enqueued_at": 1_767_323_045_678,
        "next_attempt_at": None,
        "result": b"5",
        "content_type": "application/json",
        "error": None,
        "source_partition": place.partition,
        "source_offset": place.offset,
        "large": None,
        "deliveries": 0,
        "saved": None,
        "result_expires_at": None,
    }


def test_hooks_run_in_the_order_of_use_and_the_lifespan_is_outside_of_them(house: House) -> None:
    house.app.enqueue("add", {"a": 1}, id="hooked", declared=False)
    house.worker.wait_for("inner: after_commit .*hooked")
    ours = re.compile(r"((?:outer|inner): .*|lifespan begins)$")
    said = [m[1] for line in house.worker.lines if (m := ours.match(line))]
    assert said[:3] == ["lifespan begins", "outer: worker_started", "inner: worker_started"]
    assert [line for line in said if "hooked" in line] == [
        "outer: before_run hooked ['a']",
        "inner: before_run hooked ['a']",
        "outer: after_run hooked succeeded",
        "inner: after_run hooked succeeded",
        "outer: after_commit hooked",
        "inner: after_commit hooked",
    ]


def test_a_large_result_travels_through_the_results_topic_and_the_state_stays_small(
    house: House,
) -> None:
    handle = house.app.enqueue("large", {"size": 300_000}, id="large", declared=False)
    assert handle.result(timeout=30) == "x" * 300_000
    state = house.oracle.wait_state("large")
    assert (state["large"], state["result"]) == (house.oracle.results, None)
    (found,) = [r for r in house.oracle.read(house.oracle.results) if r.key == b"large"]
    assert found.value is not None
    body = read_result(found.value)
    assert (body["id"], body["generation"], body["seq"]) == ("large", 0, 0)
    assert json.loads(body["result"]) == "x" * 300_000


def test_a_failing_handler_is_dead_with_its_error_and_a_letter(house: House) -> None:
    state = house.ends("fails", "failing", message="out of luck")
    assert state["status"] == "dead"
    error = state["error"]
    assert (error["type"], error["message"]) == ("ValueError", "out of luck")
    with pytest.raises(TaskFailed, match="ValueError: out of luck"):
        house.app.handle("failing").result(timeout=30)
    letter = house.letter("failing")
    assert letter["taskmill-reason"] == "failed"
    assert letter["taskmill-error-type"] == "ValueError"
    assert letter["taskmill-error-message"] == "out of luck"
    assert letter["taskmill-error-fingerprint"] == error["fingerprint"]
    assert letter["taskmill-attempts"] == "1"
    assert letter["taskmill-task"] == "fails"
    assert "in fails" in letter["taskmill-error-stack"]


def test_equal_failures_of_different_tasks_have_one_fingerprint(house: House) -> None:
    first = house.ends("fails", "print-1", message="one")
    second = house.ends("fails", "print-2", message="two")
    assert first["error"]["fingerprint"] == second["error"]["fingerprint"]


def test_a_long_error_is_cut_in_the_state_and_whole_on_the_results_topic(house: House) -> None:
    state = house.ends("fails", "verbose", message="long " * 100)
    assert state["large"] == house.oracle.results
    assert state["error"]["message"].endswith("…")
    with pytest.raises(TaskFailed, match=r"(long ){99}"):
        house.app.handle("verbose").result(timeout=30)


def test_a_handler_that_exits_ends_its_task_not_the_worker(house: House) -> None:
    state = house.ends("leaves", "leaving")
    assert (state["status"], state["error"]["type"]) == ("dead", "SystemExit")
    assert house.run("echo", value="still here") == "still here"


@pytest.mark.parametrize(
    ("name", "args", "reason", "says"),
    [
        ("nobody", {}, "unknown_task", "no task 'nobody' here; known: add, "),
        ("add", {"a": "one"}, "invalid_payload", "a"),
        ("add", {}, "invalid_payload", "a"),
        ("add", {"a": 1, "c": 2}, "invalid_payload", "c"),
        ("unserialisable", {}, "invalid_result", "cannot be serialised as JSON: .*_thread"),
        ("large", {"size": 1_000_000}, "invalid_result", "1000002 bytes .* limit of 1000000"),
    ],
    ids=["unknown", "wrong type", "missing", "unexpected", "unserialisable", "too large"],
)
def test_what_cannot_be_run_or_kept_is_dead_with_its_reason(
    house: House, name: str, args: dict[str, Any], reason: str, says: str
) -> None:
    id = f"{reason}:{name}:{sorted(args)}"
    state = house.ends(name, id, **args)
    assert state["status"] == "dead"
    assert re.search(says, state["error"]["message"])
    letter = house.letter(id)
    assert letter["taskmill-reason"] == reason
    assert re.search(says, letter["taskmill-error-message"])


@pytest.mark.parametrize("payload", [b"", b"[1]", b"{", b"\xff"], ids=repr)
def test_a_payload_that_is_no_json_object_is_invalid(house: House, payload: bytes) -> None:
    id = f"payload:{payload!r}"
    house.oracle.put(id.encode(), task_value(id, "add", payload=payload))
    assert house.oracle.wait_state(id)["status"] == "dead"
    assert house.letter(id)["taskmill-reason"] == "invalid_payload"


def test_many_tasks_each_have_one_outcome(house: House) -> None:
    calls = [house.app.call("add", {"a": n}, id=f"many:{n}", declared=False) for n in range(3_000)]
    handles = house.app.enqueue_many(calls)

    async def results() -> list[int]:
        return await asyncio.gather(*(handle.aresult(timeout=30) for handle in handles))

    assert asyncio.run(results()) == [n + 1 for n in range(3_000)]


def test_every_state_record_is_at_most_512_bytes_and_all_promises_hold(house: House) -> None:
    # The longest that a state has to hold beside an ID of common length.
    house.ends("fails", "i" * 64, message="ü" * 1000)
    house.ends("echo", "j" * 64, value="y" * 180)
    house.oracle.wait_consumed()
    states = house.oracle.check([])
    told = {s["status"] for found in states.values() for s in found}
    assert {"succeeded", "dead"} == told - {"running"}
    for record in house.oracle.read(house.oracle.state):
        assert record.value is not None
        assert len(record.value) <= 512, read_state(record.value)
