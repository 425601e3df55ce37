"""Delayed tasks while workers and schedulers are killed: none lost, none doubled, none early."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest

from faults.scene import Scene, Stage, make_scenes
from support.brokers import delete_topics

pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(150)]

#: Of the load's tasks that wait.
DELAYED = 0.5


@pytest.fixture(scope="module")
def delayed(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Scenes with many tasks that wait for a time."""
    prefix = f"t-{uuid.uuid4().hex[:8]}"
    made = Stage(make_scenes(broker, prefix, tmp_path_factory, delayed=DELAYED))
    yield made
    made.close()
    delete_topics(broker, prefix)


def check_times(scene: Scene) -> None:
    """Nothing began before its time; most waited for it, and said so."""
    to_wall_s = time.time() - time.monotonic()
    early = [
        (start, due)
        for start in scene.history.starts
        # The load's replays have no time.
        if start.identity.generation == 0
        and (due := scene.due.get(start.identity.key)) is not None
        # A clock that is read twice differs by less.
        and start.time + to_wall_s < due / 1000 - 0.005
    ]
    assert not early, early[:5]
    waited = {o.identity.key for o in scene.history.outcomes if o.status == "scheduled"}
    assert waited <= scene.due.keys()
    assert len(waited) > len(scene.due) / 2


@pytest.mark.proof("delayed: SIGKILL of a worker")
def test_each_delayed_task_runs_once_when_workers_are_killed(delayed: Stage, seed: int) -> None:
    with delayed.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.schedule(1)
        scene.keep(2)
        scene.load()
        scene.somewhere()
        scene.kill(scene.any_worker())
        if scene.dice.random() < 0.3:
            scene.kill(scene.any_worker())
        scene.keep(2)
        print(f"drained {scene.heal_and_drain():.1f} s after healing")
        check_times(scene)


@pytest.mark.proof("delayed: SIGKILL of a scheduler")
def test_each_delayed_task_runs_once_when_schedulers_are_killed(delayed: Stage, seed: int) -> None:
    with delayed.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.schedule(scene.dice.randrange(1, 3))
        scene.keep(2)
        scene.load()
        scene.somewhere()
        # At any moment of what it passes on: the load's tasks become due all the time.
        time.sleep(scene.dice.uniform(0, 2))
        for _ in range(scene.dice.randrange(1, len(scene.schedulers) + 1)):
            scene.kill_scheduler()
        if scene.dice.random() < 0.3:
            scene.kill(scene.any_worker())
        scene.keep(2)
        scene.schedule(1)
        print(f"drained {scene.heal_and_drain():.1f} s after healing")
        check_times(scene)
