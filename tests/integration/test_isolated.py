"""Handlers in processes of their own, when their worker ends: in order, at once, with its group."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.queues import Queue
from support.workers import Gate, WorkerProcess
from taskmill.runtime.config import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(90)]

PARTITIONS = 2
#: Every Python imports it when it starts: here a child reports, and waits, before it does anything.
HELD_AT_ITS_START = """
import os, socket, sys
if "--multiprocessing-fork" in sys.orig_argv:
    with socket.create_connection(("127.0.0.1", int(os.environ["JOBS_GATE"]))) as connection:
        connection.sendall(b"starting\\n")
        connection.recv(3)
"""


class Scene(Queue):
    """A queue, a gate, and a worker whose children never outlive the test."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.gate = Gate()

    def start(self, *options: str) -> WorkerProcess:
        return self.add(*options, env=self.gate.env).wait_ready(PARTITIONS)

    def start_spinning(self, *options: str) -> WorkerProcess:
        worker = self.start(*options)
        self.oracle.put_tasks(["spins"], "gated_process", {"spin": True})
        self.gate.wait_begun("spins")
        self.gate.open()
        return worker

    def close(self) -> None:
        self.gate.close()
        for worker in self.workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
        super().close()


@pytest.fixture
def scene(settings: Settings, tmp_path: Path) -> Iterator[Scene]:
    with Scene(settings, tmp_path) as one:
        yield one


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_lets_an_isolated_handler_end(
    scene: Scene, number: signal.Signals
) -> None:
    worker = scene.start()
    scene.oracle.put_tasks(["one"], "gated_process")
    scene.gate.wait_begun("one")
    os.killpg(worker.pid, number)
    worker.wait_for("draining")
    scene.gate.open()
    assert worker.wait() == 0, worker.log
    assert scene.oracle.wait_state("one")["status"] == "succeeded"


def test_a_signal_to_the_group_spares_a_child_that_is_only_starting(
    scene: Scene, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HELD_AT_ITS_START)
    worker = scene.start()
    scene.oracle.put_tasks(["one"], "in_process")
    scene.gate.wait_begun("starting")
    os.killpg(worker.pid, signal.SIGTERM)
    worker.wait_for("draining")
    scene.gate.open()
    assert worker.wait() == 0, worker.log
    assert scene.oracle.wait_state("one")["status"] == "succeeded"


#: A child's App sets up what is away the first two times.
ROUGH = """
from pathlib import Path
from taskmill import App

app = App("rough")


@app.lifespan
async def resources():
    import multiprocessing
    if multiprocessing.parent_process() is not None:
        with Path("tries").open("a") as tries:
            tries.write("x")
        if len(Path("tries").read_text()) < 3:
            raise ConnectionError("the database is away")
    yield None


@app.task(isolate="process")
def in_process() -> int:
    import os
    return os.getpid()
"""


def test_a_record_waits_for_a_child_that_is_ready_and_none_dies_of_an_idle_childs_end(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "rough.py").write_text(ROUGH)
    with Queue(settings, tmp_path) as queue:
        worker = queue.add(target="rough:app")
        worker.wait_ready(PARTITIONS)
        queue.oracle.put_tasks(["first"], "in_process")
        first = queue.oracle.wait_state("first")
        assert first["status"] == "succeeded", worker.log
        assert worker.log.count("no process for a handler") == 2
        os.kill(int(first["result"]), signal.SIGKILL)
        later = [f"later-{number}" for number in range(4)]
        queue.oracle.put_tasks(later, "in_process")
        for id in later:
            state = queue.oracle.wait_state(id)
            assert state["status"] == "succeeded", worker.log
            assert state["result"] != first["result"]


@pytest.mark.kill
@pytest.mark.parametrize("sudden", [signal.SIGKILL, signal.SIGTERM])
def test_a_handler_that_never_ends_does_not_outlive_its_workers_sudden_end(
    scene: Scene, sudden: signal.Signals
) -> None:
    worker = scene.start_spinning()
    if sudden is signal.SIGTERM:  # the second one
        worker.signal(signal.SIGTERM)
        worker.wait_for("draining")
    worker.signal(sudden)
    # Its child holds the other end of the log's pipe.
    worker.wait_over(10)


def test_at_the_drain_timeout_an_isolated_handler_is_killed_and_its_worker_ends_in_order(
    scene: Scene,
) -> None:
    worker = scene.start_spinning("--drain-timeout", "0s")
    assert worker.terminate(15) == 1, worker.log
    worker.wait_over(10)
    assert "not drained in time" in worker.log
    assert "Traceback" not in worker.log
    assert not [s for s in scene.oracle.states().get(b"spins", []) if s["status"] != "running"]
