"""Workers and supervisors killed with SIGKILL at seeded moments, while a reader looks on."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest

from faults.scene import Stage, make_scenes
from support.brokers import delete_topics

# A dead member is missed after its session; then 30 s to drain.
pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(120)]

#: After so many points a supervisor is replaced: it would wait for longer and longer before it
#: starts a worker again, up to the 30 s in which all is to be drained.
FRESH_EVERY = 4


@pytest.mark.proof("SIGKILL of a worker")
def test_nothing_is_lost_or_done_twice_when_workers_are_killed(stage: Stage, seed: int) -> None:
    with stage.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.keep(2)
        scene.load()
        scene.somewhere()
        scene.kill(scene.any_worker())
        if scene.dice.random() < 0.3:
            # Nobody is left to go on.
            scene.kill(scene.any_worker())
        scene.keep(2)
        took = scene.heal_and_drain()
        print(f"drained {took:.1f} s after healing")


@pytest.fixture(scope="module")
def supervised(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Scenes whose workers are supervisors of two."""
    prefix = f"t-{uuid.uuid4().hex[:8]}"
    made = Stage(make_scenes(broker, prefix, tmp_path_factory, "--processes", "2"))
    yield made
    made.close()
    delete_topics(broker, prefix)


@pytest.mark.proof("SIGKILL of a supervised worker")
def test_nothing_is_lost_or_done_twice_when_supervised_workers_are_killed(
    supervised: Stage, seed: int
) -> None:
    with supervised.point("classic" if seed % 2 else "consumer", seed) as scene:
        if scene.point % FRESH_EVERY == 0:
            scene.keep(0)
        scene.keep(1)
        scene.load()
        scene.somewhere()
        children = scene.children(scene.workers[0])
        for child in scene.dice.sample(children, scene.dice.randrange(1, len(children) + 1)):
            _kill(child)
        print(f"drained {scene.heal_and_drain():.1f} s after the kill")


@pytest.mark.proof("SIGKILL of a supervisor")
def test_nothing_is_lost_or_done_twice_when_a_supervisor_is_killed(
    supervised: Stage, seed: int
) -> None:
    with supervised.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.keep(1)
        scene.load()
        scene.somewhere()
        (supervisor,) = scene.workers
        children = scene.children(supervisor)
        scene.kill_alone(supervisor)
        if scene.dice.random() < 0.3:
            # A worker dies that nobody replaces.
            _kill(scene.dice.choice(children))
        scene.keep(1)
        print(f"drained {scene.heal_and_drain():.1f} s after the restart")


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it was dead, and its successor has not said its name
        os.kill(pid, signal.SIGKILL)
