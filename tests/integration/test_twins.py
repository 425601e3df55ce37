"""Twins: tasks of one ID, in flight together, after a restart, from many producers at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from support.oracle import Oracle, Put
from support.wire import task_value
from support.workers import Gate, WorkerProcess, runs
from taskmill import App
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

pytestmark = pytest.mark.kafka


@pytest.fixture
def oracle(settings: Settings) -> Oracle:
    ensure(settings, "default")
    return Oracle(str(settings.bootstrap_servers), settings.prefix)


def test_a_twin_that_comes_while_the_first_runs_is_dropped(
    settings: Settings, tmp_path: Path, oracle: Oracle
) -> None:
    with Gate() as gate, WorkerProcess(settings, tmp_path, env=gate.env) as worker:
        worker.wait_ready(2)
        oracle.put_tasks(["twin"], "gated")
        gate.wait_begun("twin")
        oracle.put_tasks(["twin"] * 3, "gated")
        # A record of the same partition behind them has run: the twins were looked at.
        p, offset = oracle.put(b"twin", b"garbage")
        oracle.wait_state(b"\xff" + f"{oracle.tasks}/{p}/{offset}".encode())
        assert gate.begun == ["twin"]
        gate.open()
        oracle.wait_state("twin")
        oracle.wait_consumed()
        assert gate.begun == ["twin"]
    assert len(oracle.check(["twin"])[b"twin"]) == 1


def test_twins_in_one_batch_run_once(settings: Settings, tmp_path: Path, oracle: Oracle) -> None:
    ids = [f"t{n % 100}" for n in range(1_000)]
    oracle.put_tasks(ids, "noop")
    with WorkerProcess(settings, tmp_path):
        oracle.wait_states(ids)
        oracle.wait_consumed()
    assert sorted(runs(tmp_path)) == sorted(set(ids))
    oracle.check(ids)


@pytest.mark.parametrize("how", ["drained", "killed", "on an empty disk"])
def test_a_duplicate_is_dropped_by_the_worker_that_comes_next(
    settings: Settings, tmp_path: Path, oracle: Oracle, how: str
) -> None:
    ids = [f"t{n}" for n in range(200)]
    with WorkerProcess(settings, tmp_path) as worker:
        oracle.put_tasks(ids, "noop")
        oracle.wait_states(ids)
        oracle.wait_consumed()
        if how == "killed":
            worker.kill()
        else:
            assert worker.terminate() == 0, worker.log
    oracle.put_tasks(ids, "noop")
    oracle.put_tasks(["fresh"], "noop")
    if how == "on an empty disk":
        changed = {"state_dir": tmp_path / "other"}
        settings = Settings(**{**settings.model_dump(), **changed})
    with WorkerProcess(settings, tmp_path):
        oracle.wait_states(["fresh"])
        oracle.wait_consumed()
    assert sorted(runs(tmp_path)) == sorted([*ids, "fresh"])
    oracle.check([*ids, "fresh"])


def test_one_id_from_many_producers_at_once_runs_once(
    settings: Settings, tmp_path: Path, oracle: Oracle
) -> None:
    ids = [f"t{n}" for n in range(50)]
    start = threading.Barrier(8)
    failed: list[BaseException] = []

    def enqueue(number: int) -> None:
        try:
            start.wait(10)
            if number % 2:
                other = Oracle(oracle.bootstrap, settings.prefix)
                other.put_all(Put(id.encode(), task_value(id, "noop")) for id in ids)
            else:
                with App(f"app-{number}", settings) as app:
                    app.enqueue_many(app.call("noop", {}, id=id, declared=False) for id in ids)
        except BaseException as error:
            failed.append(error)

    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_ready(2)
        threads = [threading.Thread(target=enqueue, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not failed
        oracle.wait_states(ids)
        oracle.wait_consumed()
    assert sorted(runs(tmp_path)) == sorted(ids)
    oracle.check(ids)
