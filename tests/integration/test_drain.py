"""The end of a worker: SIGTERM drains, a second one stops at once, a deadline bounds it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.oracle import is_ended
from support.queues import Queue
from support.workers import Gate, WorkerProcess, runs
from taskmill.runtime.config import Settings

pytestmark = pytest.mark.kafka

PARTITIONS = 2


class Scene(Queue):
    """A queue, a gate, and workers."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.gate = Gate()

    def start(self, *options: str) -> WorkerProcess:
        return self.add(*options, env=self.gate.env)

    def start_with_running(self, *ids: str, options: tuple[str, ...] = ()) -> WorkerProcess:
        worker = self.start(*options).wait_ready(PARTITIONS)
        self.oracle.put_tasks(ids, "gated")
        self.gate.wait_begun(*ids)
        return worker

    def close(self) -> None:
        self.gate.close()
        super().close()


@pytest.fixture
def scene(settings: Settings, tmp_path: Path) -> Iterator[Scene]:
    with Scene(settings, tmp_path) as one:
        yield one


def test_sigterm_lets_what_runs_end_commits_it_and_takes_nothing_new(scene: Scene) -> None:
    ids = [f"t{n}" for n in range(20)]
    worker = scene.start_with_running(*ids)
    worker.signal(signal.SIGTERM)
    worker.wait_for("draining, 30 s at the most")
    late = [f"late{n}" for n in range(20)]
    scene.oracle.put_tasks(late, "noop")
    scene.gate.open()
    assert worker.wait() == 0, worker.log
    states = scene.oracle.states()
    assert {key.decode() for key in states} == set(ids)
    assert not runs(scene.folder)
    scene.start()
    scene.oracle.wait_states(late)
    scene.oracle.wait_consumed()
    scene.oracle.check([*ids, *late])
    assert sorted(scene.gate.begun) == sorted(ids)


def test_sigint_drains_too(scene: Scene) -> None:
    worker = scene.start_with_running("one")
    worker.signal(signal.SIGINT)
    worker.wait_for("draining")
    scene.gate.open()
    assert worker.wait() == 0, worker.log
    assert list(scene.oracle.states()) == [b"one"]


def test_an_idle_worker_ends_at_once_and_its_lifespan_ends(scene: Scene) -> None:
    worker = scene.start().wait_ready(PARTITIONS)
    began = time.monotonic()
    assert worker.terminate() == 0, worker.log
    assert time.monotonic() - began < 5
    assert "lifespan ends" in worker.lines


def test_a_second_sigterm_stops_at_once_and_what_ran_is_run_again(scene: Scene) -> None:
    worker = scene.start_with_running("one", "two")
    worker.signal(signal.SIGTERM)
    worker.wait_for("draining")
    worker.signal(signal.SIGTERM)
    assert worker.wait(5) == 128 + signal.SIGTERM
    assert not ended(scene)
    scene.start()
    scene.gate.wait_begun("one", "two", times=2)
    scene.gate.open()
    scene.oracle.wait_states(["one", "two"])
    scene.oracle.wait_consumed()
    scene.oracle.check(["one", "two"])


def ended(scene: Scene) -> list[bytes]:
    """The IDs that have an outcome; what runs for a second has a state too."""
    return [id for id, states in scene.oracle.states().items() if is_ended(states)]


def test_at_the_drain_timeout_the_rest_is_left_to_be_run_again(scene: Scene) -> None:
    worker = scene.start_with_running("slow", "quick", options=("--drain-timeout", "1s"))
    worker.signal(signal.SIGTERM)
    worker.wait_for("draining, 1 s at the most")
    scene.gate.let("quick")
    assert worker.wait() == 1
    assert "not drained in time: what still runs will run again elsewhere" in worker.log
    # What ended in time was committed; the handler that was cut off has no outcome.
    assert ended(scene) == [b"quick"]
    scene.start()
    scene.gate.wait_begun("slow", times=2)
    scene.gate.open()
    scene.oracle.wait_states(["slow"])
    scene.oracle.wait_consumed()
    scene.oracle.check(["slow", "quick"])
    assert scene.gate.begun.count("quick") == 1


def test_a_thread_stuck_in_a_handler_does_not_hold_the_process(scene: Scene) -> None:
    worker = scene.start("--drain-timeout", "1s").wait_ready(PARTITIONS)
    scene.oracle.put_tasks(["stuck"], "gated_thread")
    scene.gate.wait_begun("stuck")
    assert worker.terminate(15) == 1
    assert "thread(s) still run a handler" in worker.log
    assert not ended(scene)


def test_a_worker_that_waits_for_its_broker_ends_on_sigterm(tmp_path: Path) -> None:
    settings = Settings(bootstrap_servers="127.0.0.1:9", state_dir=tmp_path / "state")
    with WorkerProcess(settings, tmp_path) as worker:
        worker.wait_for("did not answer within .*; waiting for it")
        assert worker.terminate(15) == 0, worker.log
