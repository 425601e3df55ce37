"""Pod per partition, on this machine: 12 workers own a partition each, one dies, it returns.

Each has a state directory of its own, as the pods of a StatefulSet have volumes of their own: one
that is started again on it is who it was.
"""

from __future__ import annotations

import re
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

    def run_one_on_each(self, name: str) -> list[int]:
        """A task on every partition; the pid of who ran each."""
        ids = [f"{name}-{id}" for id in ids_on(0, 1, PARTITIONS * 40)]
        by_partition = {partition: id for id in ids for partition in [self._place(id)]}
        assert len(by_partition) == PARTITIONS
        ordered = [by_partition[p] for p in range(PARTITIONS)]
        self.oracle.put_tasks(ordered, "pid")
        states = self.oracle.wait_states(ordered)
        return [int(states[id.encode()]["result"]) for id in ordered]

    def close(self) -> None:
        for number, worker in list(self.running.items()):
            worker.kill()
            print(f"--- worker {number}\n{worker.log}")
        for worker in self._ended:
            print(f"--- dead worker\n{worker.log}")
