"""Schedules while one of two schedulers is killed: no time is fired twice, and none is left out."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from support.brokers import delete_topics
from support.schedules import PARTITIONS, Run, Scheduled, now_ms
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


@pytest.mark.proof("schedules: SIGKILL of one of two schedulers")
def test_no_time_is_lost_or_fired_twice_when_a_scheduler_is_killed(
    scene: Scheduled, seed: int
) -> None:
    dice = random.Random(seed)
    names = {kind: [f"{seed} {kind} {n}" for n in range(MANY)] for kind in ("allow", "queue")}
    ids = [id for kind in names for id in names[kind]]
    pair = [scene.scheduler(serves=0) for _ in range(2)]
    for one in pair:
        one.wait_for("serving ")
    for kind, of_kind in names.items():
        scene.put_all(of_kind, "noop", every_ms=1_000, overlap=kind)
    scene.wait_runs(ids[0], 2)
    wait_for_moment(dice)
    victim, other = dice.sample(pair, 2)
    victim.kill()
    killed = now_ms()
    if again := dice.random() < 0.3:
        pair.append(scene.scheduler(serves=0))
    else:
        other.wait_for("serving ", times=PARTITIONS, timeout_s=20)
    until = killed + 9_000
    scene.wait(lambda: is_past(scene.nominals(), ids, until), 60)
    for id in ids:
        scene.put(id, None)
    scene.wait(lambda: not scene.states().keys() & set(ids))
    assert [one.terminate() for one in pair if one is not victim] == [0] * (len(pair) - 1)
    runs = [run for run in scene.runs() if run.schedule in set(ids)]
    check_runs(runs, ids)
    late = max(run.at - run.nominal for run in runs)
    print(f"victim {pair.index(victim)}, started again: {again}; latest {late} ms after its time")
    ended = scene.oracle.wait_states([run.task["id"] for run in runs], 60)
    assert {state["status"] for state in ended.values()} == {"succeeded"}


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
