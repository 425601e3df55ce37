"""Pod per partition, on this machine: 12 workers own a partition each, one dies, it returns.

Each has a state directory of its own, as the pods of a StatefulSet have volumes of their own: one
that is started again on it is who it was.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.oracle import Oracle
from support.wire import ids_on
from support.workers import WorkerProcess
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

PARTITIONS = 12

# 12 interpreters start beside each other, and the dead one's session has to end.
pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(120)]

#: A worker is one small process, also on a machine of many cores.
SMALL = ("--concurrency", "2")


class Pods:
    """The workers, by the number of their volume."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        ensure(settings, "default")
        self.oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
        self.running: dict[int, WorkerProcess] = {}
        self._ended: list[WorkerProcess] = []
        self._put: list[str] = []

    def start(self, number: int) -> WorkerProcess:
        volume = self._folder / f"state-{number}"
        settings = self._settings.model_copy(update={"state_dir": volume})
        self.running[number] = WorkerProcess(settings, self._folder, *SMALL)
        return self.running[number]

    def kill(self, number: int) -> WorkerProcess:
        dead = self.running.pop(number)
        dead.kill()
        self._ended.append(dead)
        return dead

    def owners(self, times: int) -> list[int]:
        """The pids of those that ran a task of each partition, by partition; the `times`-th one."""
        ids = [ids_on(p, PARTITIONS, times)[times - 1] for p in range(PARTITIONS)]
        self.oracle.put_tasks(ids, "in_thread")
        self._put += ids
        states = self.oracle.wait_states(ids)
        return [json.loads(states[id.encode()]["result"])["pid"] for id in ids]

    def settled(self, timeout_s: float = 60.0) -> None:
        """Wait until each worker says that it holds one partition, and all are held."""
        deadline = time.monotonic() + timeout_s
        while sorted(held := [*map(holds, self.running.values())]) != [
            [p] for p in range(PARTITIONS)
        ]:
            assert time.monotonic() < deadline, f"not one each within {timeout_s:g} s: {held}"
            time.sleep(0.05)

    def ends_well(self) -> None:
        """All drain, and every task has one outcome."""
        self.oracle.wait_consumed()
        for worker in self.running.values():
            worker.signal(signal.SIGTERM)
        for worker in self.running.values():
            assert worker.wait() == 0, worker.log
        self.oracle.check(self._put)

    def close(self) -> None:
        for number, worker in list(self.running.items()):
            worker.kill()
            print(f"--- worker {number}\n{worker.log}")
        for worker in self._ended:
            print(f"--- dead worker\n{worker.log}")


@pytest.fixture(params=["classic", "consumer"])
def pods(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Iterator[Pods]:
    changed = {"partitions": PARTITIONS, "group_protocol": request.param}
    one = Pods(Settings(**{**settings.model_dump(), **changed}), tmp_path)
    yield one
    one.close()


def holds(worker: WorkerProcess) -> list[int]:
    """The partitions that it was given and that were not taken from it, by its log."""
    held: set[int] = set()
    for what, listed in re.findall(r"(assigned|revoked|lost) \[([\d, ]*)\]", worker.log):
        partitions = {int(p) for p in listed.split(",") if p.strip()}
        held = held | partitions if what == "assigned" else held - partitions
    return sorted(held)


def place(worker: WorkerProcess) -> str:
    """The name of its slot, which its transactional.id and its place in the group are made of."""
    return str(worker.wait_for(r"slot (\S+), pid")[1])


def test_twelve_workers_own_a_partition_each_and_a_dead_ones_moves_and_comes_back(
    pods: Pods,
) -> None:
    for number in range(PARTITIONS):
        pods.start(number)
    workers = dict(pods.running)
    places = {number: place(worker) for number, worker in workers.items()}
    assert len(set(places.values())) == PARTITIONS
    pods.settled()

    first = pods.owners(1)
    assert sorted(first) == sorted(worker.pid for worker in workers.values())

    dead = pods.kill(5)
    orphan = first.index(dead.pid)
    second = pods.owners(2)  # waits until the orphan has an owner again
    assert dead.pid not in second
    assert second[orphan] in {worker.pid for worker in pods.running.values()}
    assert len(set(second)) == PARTITIONS - 1

    back = pods.start(5)
    assert place(back) == places[5]  # its volume says so
    pods.settled()
    third = pods.owners(3)
    assert sorted(third) == sorted(worker.pid for worker in pods.running.values())
    assert back.pid in third
    pods.ends_well()
