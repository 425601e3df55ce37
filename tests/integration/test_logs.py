"""What processes log as JSON: of which task, of which trace, and nothing that is secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.consoles import ConsoleProcess, eventually
from support.secretive import app as secretive
from support.traces import recorded
from support.workers import WorkerProcess
from taskmill import App, Settings
from taskmill.console.tokens import TokenTable

pytestmark = pytest.mark.kafka

TARGET = "support.secretive:app"
HANDLERS = ("in_loop", "in_thread", "in_process")
#: What must be in no line begins with it.
SECRET = "SECRET-"


def lines(process: WorkerProcess) -> list[dict[str, Any]]:
    """Its log; every line is an object."""
    return [json.loads(line) for line in process.log.splitlines()]


@pytest.fixture
def app(settings: Settings) -> Iterator[App]:
    with App("test", settings) as one:
        yield one


def enqueue(app: App, name: str, id: str, secret: Any = f"{SECRET}arguments") -> Any:
    return app.enqueue(name, {"secret": secret}, id=id, declared=False)


def test_a_handlers_lines_say_of_which_task_and_trace_they_are(
    settings: Settings, app: App, tmp_path: Path
) -> None:
    env = {"TRACED_SPANS": str(tmp_path / "spans")}
    command = ("--log-format", "json")
    with WorkerProcess(settings, tmp_path, *command, target=TARGET, env=env) as worker:
        with recorded() as traces:
            for name in HANDLERS:
                enqueue(app, name, f"id-{name}").result(timeout=60)
        assert worker.terminate() == 0
        told = {one["task"]: one for one in lines(worker) if one["logger"] == "shop"}
    for name in HANDLERS:
        one, sent = told[name], traces.one(f"send {name}")
        assert (one["event"], one["level"]) == ("at work", "warning")
        assert (one["task_id"], one["queue"], one["attempt"]) == (f"id-{name}", "default", 1)
        assert one["trace_id"] == sent.trace_id
        assert one["span_id"] == one["span"]
        assert one["timestamp"].endswith("Z")
    assert list(told["in_loop"])[:4] == ["timestamp", "level", "logger", "event"]


def test_without_an_sdk_a_line_says_the_trace_that_the_record_carries(
    settings: Settings, app: App, tmp_path: Path
) -> None:
    env = {"TASKMILL_LOG_FORMAT": "json"}
    with WorkerProcess(settings, tmp_path, target=TARGET, env=env) as worker:
        with recorded() as traces:
            enqueue(app, "in_thread", "a").result(timeout=60)
            enqueue(app, "fails", "b").outcome(timeout=60)
        assert worker.terminate() == 0
        (worked,) = [one for one in lines(worker) if one["logger"] == "shop"]
        (died,) = [one for one in lines(worker) if one["event"].startswith("dead letter")]
    assert worked["trace_id"] == traces.one("send in_thread").trace_id
    assert "span_id" not in worked
    assert (died["task_id"], died["task"], died["attempt"]) == ("b", "fails", 1)
    assert died["trace_id"] == traces.one("send fails").trace_id


def test_a_supervisor_and_its_workers_log_alike(settings: Settings, tmp_path: Path) -> None:
    options = ("--processes", "2", "--log-format", "json")
    with WorkerProcess(settings, tmp_path, *options, target=TARGET) as worker:
        worker.wait_ready(2)
        assert worker.terminate() == 0
        told = lines(worker)
    assert {one.get("who") for one in told} == {None, "slot 0", "slot 1"}
    assert "taskmill.supervisor" in {one["logger"] for one in told}


def test_no_payload_result_or_secret_is_ever_logged(
    settings: Settings, app: App, tmp_path: Path
) -> None:
    env = {
        "TASKMILL_LOG_FORMAT": "json",
        "TASKMILL_LOG_LEVEL": "DEBUG",
        "TASKMILL_API_TOKEN": f"{SECRET}token",
        "TASKMILL_OUTCOMES_URL": f"postgresql://u:{SECRET}url@127.0.0.1:1/d",
        "TASKMILL_KAFKA__SASL_USERNAME": "u",
        "TASKMILL_KAFKA__SASL_PASSWORD": f"{SECRET}password",
    }
    _, token = TokenTable(settings).create(["admin"], by="test")
    bearer = {"Authorization": f"Bearer {token}"}
    scheduler = WorkerProcess(settings, tmp_path, target=TARGET, env=env, role="scheduler")
    worker = WorkerProcess(settings, tmp_path, target=TARGET, env=env)
    console = ConsoleProcess(settings, tmp_path, env=env)
    with worker, scheduler, console:
        found = console.wait_for(r'"console at (http://[^,"]+)')
        console.url = found[1]
        handles = [enqueue(app, task.name, f"id-{task.name}") for task in secretive.tasks]
        for handle in handles:
            handle.outcome(timeout=60)
        client = console.client()
        client.headers.update(bearer)
        for id in ("id-in_loop", "id-large", "id-typed"):
            eventually(lambda id=id: client.get(f"/api/v1/tasks/{id}").status_code == 200)
            client.get(f"/api/v1/tasks/{id}/result")
        body = {"name": "in_loop", "args": {"secret": f"{SECRET}body"}}
        assert client.post("/api/v1/tasks", json=body).status_code == 202
        assert client.post("/api/v1/tasks", json={**body, "delay": f"{SECRET}delay"}).is_error
        assert client.get("/api/v1/dlq").is_success
        client.get("/api/v1/tasks", headers={"Authorization": f"Bearer {SECRET}wrong"})
        scheduler.wait_for("serving")
        for process in (worker, scheduler, console):
            assert process.terminate() == 0
    for process in (worker, scheduler, console):
        assert lines(process)
        assert SECRET not in process.log
        assert token not in process.log
    assert "debug" in {one["level"] for one in lines(console)}
