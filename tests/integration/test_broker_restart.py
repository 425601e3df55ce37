"""A broker that goes away under load and comes back, or comes late."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.brokers import PrivateBroker
from support.oracle import Oracle
from support.workers import WorkerProcess
from taskmill import App, EnqueueError, Unreachable
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

pytestmark = [pytest.mark.kafka, pytest.mark.kill]

Make = Callable[..., PrivateBroker]


def _settings(bootstrap: str, folder: Path, **more: float) -> Settings:
    return Settings(
        bootstrap_servers=bootstrap,
        prefix="t",
        partitions=2,
        state_dir=folder / "state",
        **more,  # type: ignore[arg-type]
    )


def test_a_worker_goes_on_by_itself_after_its_broker_was_killed_under_load(
    private_broker: Make, tmp_path: Path
) -> None:
    broker = private_broker()
    settings = _settings(broker.bootstrap, tmp_path)
    ensure(settings, "default")
    oracle = Oracle(broker.bootstrap, "t")
    before = [f"before-{n}" for n in range(2_000)]
    with WorkerProcess(settings, tmp_path, "--concurrency", "10") as worker:
        worker.wait_ready(2)
        oracle.put_tasks(before, "nap", {"ms": 5})
        # Kafka keeps unwritten pages in the system's cache: a killed process loses none.
        oracle.wait_states(before[:100])
        broker.kill()
        # A producer that is told nothing tries on: acknowledged once the broker is back.
        with App("enqueuer", settings) as app:
            broker.start()
            during = [f"during-{n}" for n in range(200)]
            app.enqueue_many(app.call("noop", {}, id=id, declared=False) for id in during)
            oracle.wait_states([*before, *during], timeout_s=60)
            after = app.enqueue("echo", {"value": 1}, id="after", declared=False)
            assert after.result(timeout=30) == 1
        oracle.wait_consumed()
        assert worker.terminate() == 0, worker.log
    oracle.check([*before, *during, "after"])


def test_a_broker_away_fails_producers_by_their_deadline_and_costs_a_worker_one_line_a_minute(
    private_broker: Make, tmp_path: Path
) -> None:
    broker = private_broker()
    settings = _settings(broker.bootstrap, tmp_path, enqueue_timeout_s=3.0)
    ensure(settings, "default")
    oracle = Oracle(broker.bootstrap, "t")
    with WorkerProcess(settings, tmp_path) as worker, App("enqueuer", settings) as app:
        worker.wait_ready(2)
        assert app.enqueue("echo", {"value": 1}, declared=False).result(timeout=30) == 1
        told = len(worker.lines)
        broker.kill()
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(Unreachable, match=rf"{broker.bootstrap}.* 3 s"):
                app.enqueue("echo", {"value": 2}, declared=False)
            assert time.monotonic() - began < 6
        calls = [app.call("echo", {"value": n}, declared=False) for n in range(10)]
        with pytest.raises((Unreachable, EnqueueError), match="3 s"):
            app.enqueue_many(calls)
        # It has been away for more than 10 s.
        lines = worker.lines[told:]
        assert len(lines) == 1, "\n".join(lines)
        assert broker.bootstrap in lines[0]
        broker.start()
        handle = app.enqueue("echo", {"value": 3}, id="back", declared=False)
        oracle.wait_state("back", timeout_s=60)
        assert handle.result(timeout=30) == 3
        oracle.wait_consumed()
        assert worker.terminate() == 0, worker.log
    oracle.check([])


def test_a_worker_that_is_started_before_its_broker_waits_for_it(
    private_broker: Make, tmp_path: Path
) -> None:
    broker = private_broker()
    broker.stop()
    settings = _settings(broker.bootstrap, tmp_path)
    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_for(rf"Kafka at {broker.bootstrap} did not answer .*; waiting for it")
        assert broker.start() == broker.bootstrap
        worker.wait_ready(2)
        oracle = Oracle(broker.bootstrap, "t")
        oracle.put_tasks(["one"], "noop")
        assert oracle.wait_state("one")["status"] == "succeeded"
        assert len([line for line in worker.lines if "waiting for it" in line]) == 1
