"""Schedules while one of two schedulers is killed: no time is fired twice, and none is left out."""

from __future__ import annotations

import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from support.brokers import delete_topics
from support.schedules import Run, Scheduled, now_ms
from taskmill.runtime.config import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(150)]

#: Schedules of each kind, every second.
MANY = 20


@pytest.fixture(scope="module")
def scene(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduled]:
    """A queue with a worker that lasts for all points; schedulers are each point's own."""
    prefix = f"t-{uuid.uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp("schedules")
    settings = Settings(
        bootstrap_servers=broker, prefix=prefix, partitions=2, state_dir=folder / "state"
    )
    with Scheduled(settings, folder) as one:
        one.add().wait_ready(2)
        yield one
    delete_topics(broker, prefix)


def wait_for_moment(dice: random.Random) -> None:
    """Mostly about when schedules are due, where transactions are open; else at any time."""
    second = time.time_ns() // 10**9 + dice.randrange(2, 4)
    at = second + (dice.uniform(-0.02, 0.15) if dice.random() < 0.8 else dice.random())
    while time.time() < at:
        time.sleep(0.001)


class Point:
    """Schedules of two kinds, and two schedulers that share them."""

    def __init__(self, scene: Scheduled, seed: int) -> None:
        self.scene, self.dice = scene, random.Random(seed)
        kinds = ("allow", "queue")
        # No other point's: the topics are those of all of them.
        name = f"{seed}-{uuid.uuid4().hex[:6]}"
        self.ids = [f"{name} {kind} {n}" for kind in kinds for n in range(MANY)]
        self.pair = [scene.scheduler(serves=0) for _ in range(2)]
        for one in self.pair:
            one.wait_for("serving ")
        for kind in kinds:
            of_kind = [id for id in self.ids if f" {kind} " in id]
            scene.put_all(of_kind, "noop", every_ms=1_000, overlap=kind)
        scene.wait_runs(self.ids[0], 2)
        wait_for_moment(self.dice)
        self.victim, self.other = self.dice.sample(self.pair, 2)
        self._served = self.other.log.count("serving ")

    def wait_taken_over(self) -> None:
        """Wait until the other one serves what was the victim's."""
        self.other.wait_for("serving ", times=self._served + 1, timeout_s=20)

    def end(self, since: int) -> None:
        """Let some seconds pass after `since`, end all in order, and look at what was fired."""
        scene, ids = self.scene, self.ids
        scene.wait(lambda: is_past(scene.nominals(), ids, since + 9_000), 60)
        for id in ids:
            scene.put(id, None)
        scene.wait(lambda: not scene.states().keys() & set(ids))
        left = [one for one in self.pair if one.process.poll() is None]
        assert [one.terminate() for one in left] == [0] * len(left)
        runs = [run for run in scene.runs() if run.schedule in set(ids)]
        check_runs(runs, ids)
        late = max(run.at - run.nominal for run in runs)
        print(f"{len(left)} left; latest {late} ms after its time")
        ended = scene.oracle.wait_states([run.task["id"] for run in runs], 60)
        assert {state["status"] for state in ended.values()} == {"succeeded"}


@pytest.mark.proof("schedules: SIGKILL of one of two schedulers")
def test_no_time_is_lost_or_fired_twice_when_a_scheduler_is_killed(
    scene: Scheduled, seed: int
) -> None:
    point = Point(scene, seed)
    point.victim.kill()
    killed = now_ms()
    if point.dice.random() < 0.3:
        point.pair.append(scene.scheduler(serves=0))
    else:
        point.wait_taken_over()
    point.end(killed)


@pytest.mark.proof("schedules: SIGSTOP of one of two schedulers beyond its session")
def test_no_time_is_lost_or_fired_twice_when_a_scheduler_stands_still(
    scene: Scheduled, seed: int
) -> None:
    point = Point(scene, seed)
    point.victim.signal(signal.SIGSTOP)
    point.wait_taken_over()
    wait_for_moment(point.dice)
    point.victim.signal(signal.SIGCONT)
    point.end(now_ms())


def is_past(nominals: dict[str, list[int]], ids: list[str], until: int) -> bool:
    """Whether each schedule has been fired for a time behind `until`."""
    return all(nominals.get(id, [0])[-1] > until for id in ids)


def check_runs(runs: list[Run], ids: list[str]) -> None:
    """Each time of each schedule once, from its first to its last, and none early."""
    counts = Counter((run.schedule, run.nominal) for run in runs)
    assert [key for key, count in counts.items() if count > 1] == []
    assert [run for run in runs if run.at < run.nominal] == []
    for id in ids:
        times = sorted(run.nominal for run in runs if run.schedule == id)
        assert {later - one for one, later in pairwise(times)} == {1_000}, (id, times)
