"""How long results are kept: as declared, while what became of the task stays known."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.brokers import delete_topics
from support.clocks import AheadClock
from support.oracle import Oracle
from support.states import StateWriter, make_state
from support.workers import WorkerProcess, environment
from taskmill import App, Handle, ResultExpired, ResultLost, TaskFailed
from taskmill.consumer.worker import Worker
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError
from taskmill.runtime.topics import ensure
from taskmill.schemas.models import TaskState

pytestmark = pytest.mark.kafka

HOUR_MS = 3_600_000
#: What does not fit a state record, and so lies on `results`.
LARGE = 10_000


class House:
    """One worker, shared by the tests of this file, and two readers: of now and of a day later."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        ensure(settings, "default")
        self.settings = settings
        self.folder = folder
        self.oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
        self.worker = WorkerProcess(settings, folder)
        self.app = App("now", settings)
        self.later = App("later", settings, clock=AheadClock(24 * HOUR_MS))

    def run(self, name: str, /, **args: Any) -> Handle[Any]:
        """The handle of a task that has ended."""
        handle = self.app.enqueue(name, args, declared=False)
        self.oracle.wait_state(handle.id)
        return handle


@pytest.fixture(scope="module")
def house(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("results")
    prefix = f"t-results-{os.getpid()}"
    settings = Settings(
        bootstrap_servers=broker, prefix=prefix, partitions=2, state_dir=folder / "state"
    )
    one = House(settings, folder)
    with one.worker, one.app, one.later:
        one.worker.wait_ready(2)
        yield one
    delete_topics(broker, prefix)


# ---- store_result=False -------------------------------------------------------------------------


def test_a_result_that_is_not_stored_is_none_and_may_be_what_json_cannot_say(house: House) -> None:
    handle = house.run("unkept")
    assert handle.result(timeout=20) is None
    state = house.oracle.wait_state(handle.id)
    assert (state["status"], state["result"], state["content_type"]) == ("succeeded", None, None)


def test_a_task_whose_result_is_not_stored_fails_as_any_other(house: House) -> None:
    with pytest.raises(TaskFailed, match="ValueError: no such thing"):
        house.run("unkept", message="no such thing").result(timeout=20)


# ---- result_ttl ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("task", ["brief", "brief_process"])
def test_a_result_is_there_until_its_time_is_over_and_then_its_state_alone(
    house: House, task: str, size: int
) -> None:
    handle = house.run(task, size=size)
    assert handle.result(timeout=20) == "x" * size
    state = house.oracle.wait_state(handle.id)
    assert state["result_expires_at"] == state["finished_at"] + HOUR_MS
    assert (state["large"] is not None) == (size == LARGE)

    late = house.later.handle(handle.id)
    with pytest.raises(ResultExpired, match=r"its result was kept until 20\d\d-.* \(result_ttl\)"):
        late.result(timeout=20)
    with pytest.raises(ResultExpired):
        asyncio.run(late.aresult(timeout=20))
    assert late.status() == "succeeded"
    for shown in (late.state(), late.outcome(timeout=20)):
        assert isinstance(shown, TaskState)
        assert (shown.result, shown.content_type, shown.large) == (None, None, None)
        assert shown.result_expires_at == state["result_expires_at"]


def test_a_failure_is_told_as_long_as_its_state_is_kept(house: House) -> None:
    handle = house.run("brief", size="no number")
    assert house.oracle.wait_state(handle.id)["result_expires_at"] is None
    with pytest.raises(TaskFailed):
        house.later.handle(handle.id).result(timeout=20)


@pytest.mark.parametrize(("left_ms", "error"), [(60_000, ResultExpired), (2 * HOUR_MS, ResultLost)])
def test_a_large_result_that_is_gone_a_little_early_has_expired_by_another_clock(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    left_ms: int,
    error: type[Exception],
) -> None:
    monkeypatch.setattr("taskmill.producer.reader.RESULT_S", 0.5)
    with App("skewed", settings) as app:
        handle = app.enqueue("add", {"a": 1}, declared=False)
        at = AheadClock(left_ms).now_ms()
        lost = make_state(handle.id, result=None, large=f"{settings.prefix}.results.default")
        StateWriter(settings).commit(lost._replace(result_expires_at=at))
        with pytest.raises(error):
            handle.result(timeout=20)


def test_the_command_says_when_a_result_has_expired(house: House) -> None:
    with App("command", house.settings) as app:
        handle = app.enqueue("add", {"a": 1}, declared=False)
        house.oracle.wait_state(handle.id)
        gone = make_state(handle.id, generation=1)._replace(result_expires_at=1_000)
        StateWriter(house.settings).commit(gone)
    command = [sys.executable, "-m", "taskmill", "result", handle.id, "--wait", "20s"]
    env = {**os.environ, **environment(house.settings)}
    done = subprocess.run(
        command, cwd=house.folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "kept until 1970-01-01T00:00:01+00:00" in line


def test_a_result_that_would_outlive_its_state_is_refused_when_the_worker_starts(
    settings: Settings,
) -> None:
    app = App("long", settings.model_copy(update={"dedup_window_ms": 60_000}))
    app.task(name="kept", result_ttl="61s")(lambda: 1)
    with pytest.raises(ConfigError) as refused:
        Worker(app)
    message = str(refused.value)
    assert "task 'kept': result_ttl is 61000 ms" in message
    assert "60000 ms" in message
    assert "\n" not in message
