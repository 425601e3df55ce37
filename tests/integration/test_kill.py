"""Workers killed with SIGKILL at random points of their work, while a reader looks on.

What is promised: no acknowledged task is lost, each has one committed outcome; a transaction's
states, dead letters and offsets are visible as a whole or not at all; offsets never go back.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from support.oracle import OffsetWatch, Oracle, Put
from support.proof import fresh_seeds
from support.wire import partition_of, task_value
from support.witness import Witness
from support.workers import WorkerProcess
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

# Each of three rounds waits for the dead member's session (6 s), the last for transactions (10 s).
pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(180)]

PARTITIONS = 3
#: One of each group protocol (an even one runs under KIP-848), one of them tried by nobody yet; the
#: faults have more.
SEEDS = [1, 2 * fresh_seeds("kill", 1)[0]]
ROUNDS = 3
PER_ROUND = 500


class Load:
    """Tasks of every sort: naps, failures, garbage, duplicates, records on wrong partitions."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        #: IDs of all tasks that were to run.
        self.ids: list[str] = []

    def records(self, count: int) -> list[Put]:
        return [self._one() for _ in range(count)]

    def _one(self) -> Put:
        random = self._random
        sort = random.random()
        if sort < 0.05:
            return Put(f"garbage-{random.randrange(10**9)}".encode(), b"\xc3\x01garbage")
        if sort < 0.15 and self.ids:
            # Its first may be done, running, or waiting right before it.
            id = random.choice(self.ids[-200:])
            return Put(id.encode(), task_value(id, "nap", {"ms": 1}))
        id = f"t{len(self.ids)}"
        self.ids.append(id)
        if sort < 0.25:
            return Put(id.encode(), task_value(id, "fails", {"message": id}))
        value = task_value(id, "nap", {"ms": random.uniform(0, 60)})
        if sort < 0.30:
            right = partition_of(id.encode(), PARTITIONS)
            return Put(id.encode(), value, (right + 1) % PARTITIONS)
        return Put(id.encode(), value)


class Scene:
    """Two workers on one queue, a witness of what they commit, and dice."""

    def __init__(self, settings: Settings, folder: Path, seed: int) -> None:
        ensure(settings, "default")
        self._settings, self._folder = settings, folder
        self.oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
        self.witness = Witness(self.oracle.bootstrap, [self.oracle.state, self.oracle.dlq])
        self.random = Random(seed)
        self.load = Load(seed)
        self.workers: list[WorkerProcess] = []
        self._all: list[WorkerProcess] = []

    def start(self) -> None:
        # Few at once, so that work lasts and batches are many.
        self.workers.append(WorkerProcess(self._settings, self._folder, "--concurrency", "20"))
        self._all.append(self.workers[-1])

    def kill_mid_batch(self) -> None:
        """Put a round's records, wait for some of their outcomes, kill a worker."""
        before = len(self.witness.ended)
        self.oracle.put_all(self.load.records(PER_ROUND))
        wanted = before + self.random.randrange(1, PER_ROUND // 2)
        self.witness.until(
            lambda: len(self.witness.ended) >= wanted, lambda: f"{wanted} outcomes", 60
        )
        # The point in the commit cycle, which takes about this long.
        time.sleep(self.random.uniform(0, 0.02))
        self.workers.pop(self.random.randrange(len(self.workers))).kill()

    def close(self) -> None:
        self.witness.close()
        for worker in self._all:
            worker.kill()
            # Shown where the test failed.
            print(f"--- worker {worker.pid}\n{worker.log}")


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_done_twice_when_workers_are_killed_mid_batch(
    settings: Settings, tmp_path: Path, seed: int
) -> None:
    print(f"seed {seed}")
    protocol = "classic" if seed % 2 else "consumer"
    # Whoever is in flight at so many ends is not to blame for them.
    changed = {"partitions": PARTITIONS, "group_protocol": protocol, "crash_loop_limit": 10**6}
    scene = Scene(Settings(**{**settings.model_dump(), **changed}), tmp_path, seed)
    try:
        with OffsetWatch(scene.oracle) as offsets:
            scene.start()
            scene.start()
            for _ in range(ROUNDS):
                scene.kill_mid_batch()
                scene.start()
            # Nobody is left to go on: what is visible now is what transactions left behind.
            scene.kill_mid_batch()
            scene.workers.pop().kill()
            scene.oracle.check_transactions()
            scene.start()
            ids = {id.encode() for id in scene.load.ids}
            scene.witness.until(lambda: ids <= scene.witness.ended, "all outcomes", 60)
            scene.oracle.wait_consumed()
            for worker in scene.workers:
                assert worker.terminate() == 0, worker.log
        states = scene.oracle.check(scene.load.ids)
        assert offsets.looks
        assert not offsets.regressions
    finally:
        scene.close()
    # What the reader saw meanwhile is what there is: nothing seen was taken back or said twice.
    assert {key: found for key, found in scene.witness.states.items() if key in ids} == {
        key: found for key, found in states.items() if key in ids
    }
    statuses = {s["status"] for found in states.values() for s in found}
    # What was in flight at an end is marked before it starts again.
    assert statuses == {"succeeded", "dead", "running"}
