"""Workers that join, leave, are killed or stopped: who runs what, and who may commit it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from support.oracle import Oracle
from support.queues import Queue
from support.wire import ids_on
from support.workers import Gate, WorkerProcess
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

# A member that is gone is missed after its session of 6 s.
pytestmark = [pytest.mark.kafka, pytest.mark.timeout(90)]

PARTITIONS = 4
#: With two workers under the range assignor, the halves of each.
HALVES = ([0, 1], [2, 3])


class Scene:
    """A queue whose handlers wait at a gate, one for each partition, and the test's workers."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self.protocol = settings.group_protocol
        ensure(settings, "default")
        self.oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
        self.gate = Gate()
        self._workers: list[WorkerProcess] = []
        self.ids = [ids_on(p, PARTITIONS)[0] for p in range(PARTITIONS)]

    def start(self) -> WorkerProcess:
        worker = WorkerProcess(self._settings, self._folder, env=self.gate.env)
        self._workers.append(worker)
        return worker

    def start_with_all_running(self, name: str = "gated") -> WorkerProcess:
        """A worker that holds all partitions and runs a handler of each."""
        worker = self.start().wait_ready(PARTITIONS)
        self.oracle.put_tasks(self.ids, name)
        self.gate.wait_begun(*self.ids)
        return worker

    def runners(self) -> list[int]:
        """The pids of the workers whose outcomes were committed, by partition."""
        states = self.oracle.wait_states(self.ids)
        return [int(states[id.encode()]["result"]) for id in self.ids]

    def ends_well(self, *workers: WorkerProcess) -> None:
        """What is put now is run too; all drain; all promises hold."""
        self.gate.open()
        more = [f"more-{n}" for n in range(50)]
        self.oracle.put_tasks(more, "noop")
        self.oracle.wait_states(more)
        self.oracle.wait_consumed()
        for worker in workers:
            assert worker.terminate() == 0, worker.log
        self.oracle.check([*self.ids, *more])

    def close(self) -> None:
        self.gate.close()
        for worker in self._workers:
            worker.kill()
            print(f"--- worker {worker.pid}\n{worker.log}")


@pytest.fixture(params=["classic", "consumer"])
def scene(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[Scene]:
    changed = {"partitions": PARTITIONS, "group_protocol": request.param}
    one = Scene(Settings(**{**settings.model_dump(), **changed}), tmp_path)
    yield one
    one.close()


def test_a_worker_that_joins_takes_its_half_and_what_ran_on_the_kept_half_goes_on(
    scene: Scene,
) -> None:
    first = scene.start_with_all_running()
    second = scene.start()
    second.wait_ready(2)
    begun = scene.gate.wait_count(PARTITIONS + 2)
    again = sorted(scene.ids.index(id) for id in begun[PARTITIONS:])
    assert again in HALVES
    kept = HALVES[1 - HALVES.index(again)]
    scene.gate.open()
    runners = scene.runners()
    assert {runners[p] for p in kept} == {first.pid}
    assert {runners[p] for p in again} == {second.pid}
    assert len(scene.gate.begun) == PARTITIONS + 2
    scene.ends_well(first, second)


def test_what_a_thread_finished_on_a_lost_partition_is_dropped(scene: Scene) -> None:
    first = scene.start_with_all_running("gated_thread")
    second = scene.start()
    second.wait_ready(2)
    begun = scene.gate.wait_count(PARTITIONS + 2)
    again = sorted(scene.ids.index(id) for id in begun[PARTITIONS:])
    # Both threads of a lost partition's task go on; only its new owner's outcome counts.
    scene.gate.open()
    runners = scene.runners()
    for p in range(PARTITIONS):
        assert runners[p] == (second.pid if p in again else first.pid)
    scene.ends_well(first, second)


def test_a_worker_whose_place_in_the_group_was_taken_takes_it_back(
    settings: Settings, tmp_path: Path
) -> None:
    with Queue(settings.model_copy(update={"group_protocol": "classic"}), tmp_path) as queue:
        worker = queue.add().wait_ready(settings.partitions)
        place = worker.wait_for(r"slot (\S+), pid")[1]
        taker = Consumer(
            {
                "bootstrap.servers": settings.bootstrap_servers,
                "group.id": queue.oracle.group,
                "group.instance.id": place,
                "partition.assignment.strategy": "range",
                "session.timeout.ms": 6000,
                "enable.auto.commit": False,
            }
        )
        taker.subscribe([queue.oracle.tasks])
        while not taker.assignment():
            taker.poll(0.1)
        worker.wait_for("consumer failed, a new one in")
        taker.close()
        queue.oracle.put_tasks(["one", "two", "three"], "noop")
        queue.oracle.wait_states(["one", "two", "three"])
        assert worker.terminate() == 0


def test_a_worker_that_leaves_hands_its_half_over(scene: Scene) -> None:
    first = scene.start_with_all_running()
    second = scene.start().wait_ready(2)
    scene.gate.open()
    assert first.terminate() == 0, first.log
    # At once under KIP-848. A static member of the classic protocol is expected back until its
    # session of 6 s ends: the price of restarts without a rebalance.
    second.wait_ready(PARTITIONS, 12 if scene.protocol == "classic" else 4)
    scene.ends_well(second)


def test_what_a_killed_worker_ran_is_run_again_by_the_other(scene: Scene) -> None:
    first = scene.start_with_all_running()
    second = scene.start()
    second.wait_ready(2)
    scene.gate.wait_count(PARTITIONS + 2)
    first.kill()
    # The kept half of the dead one, for the second time; the other half goes on.
    scene.gate.wait_begun(*scene.ids, times=2)
    scene.gate.open()
    assert set(scene.runners()) == {second.pid}
    assert len(scene.gate.begun) == 2 * PARTITIONS
    scene.ends_well(second)


def test_a_worker_stopped_beyond_its_session_commits_nothing_of_what_it_lost(
    scene: Scene,
) -> None:
    first = scene.start_with_all_running()
    first.signal(signal.SIGSTOP)
    second = scene.start()
    scene.gate.wait_begun(*scene.ids, times=2)
    # The stopped one's handlers get the word too, and end as soon as it wakes.
    scene.gate.open()
    assert scene.runners() == [second.pid] * PARTITIONS
    first.signal(signal.SIGCONT)
    # It finds out, drops what it had, and joins again.
    first.wait_for(r"assigned \[", times=2)
    second.wait_for(r"revoked \[")
    scene.ends_well(first, second)


def test_three_workers_come_and_go_under_load_and_each_task_has_one_outcome(
    scene: Scene,
) -> None:
    ids = [f"load-{n}" for n in range(3_000)]
    workers = [scene.start() for _ in range(2)]
    for worker in workers:  # each has its part: a signal meets a worker that takes it
        worker.wait_for("restored")
    scene.oracle.put_tasks(ids[:1_000], "nap", {"ms": 20})
    workers.append(scene.start())
    scene.oracle.put_tasks(ids[1_000:2_000], "nap", {"ms": 20})
    workers[2].wait_for("restored")
    assert workers[0].terminate() == 0, workers[0].log
    workers[1].kill()
    scene.oracle.put_tasks(ids[2_000:], "nap", {"ms": 20})
    workers.append(scene.start())
    scene.oracle.wait_states(ids, timeout_s=45)
    scene.ids = ids
    scene.ends_well(workers[2], workers[3])
