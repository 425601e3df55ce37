"""A broker killed under load and started again, or that stands still for a while."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from faults.scene import Stage, make_scenes
from support.brokers import PrivateBroker

# A broker is back within some 10 s; a member it forgot joins again; then 30 s to drain.
pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(180)]

#: Records a second while the broker is away.
OUTAGE_RATE = 20.0
#: Beyond every session of a group.
LONGEST_PAUSE_S = 8


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PrivateBroker, Stage]]:
    """The module's own broker, and its stage."""
    broker = PrivateBroker()
    broker.start()
    stage = Stage(make_scenes(broker.bootstrap, "t", tmp_path_factory))
    yield broker, stage
    stage.close()
    broker.remove()


@pytest.mark.proof("broker killed and started again under load")
def test_all_goes_on_after_a_broker_was_killed_under_load(
    mortal: tuple[PrivateBroker, Stage], seed: int
) -> None:
    broker, stage = mortal
    with stage.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.keep(2)
        scene.load()
        scene.somewhere()
        # What an outage piles up, however long a start takes, is not what is measured afterwards.
        scene.flow.run(OUTAGE_RATE)
        with scene.cut_off():
            broker.kill()
            if scene.dice.random() < 0.3:
                scene.kill(scene.any_worker())
                scene.keep(2)
            time.sleep(scene.dice.uniform(0, 2))
            broker.start()
        print(f"drained {scene.heal_and_drain():.1f} s after the broker was back")


@pytest.mark.proof("broker that stands still under load")
def test_all_goes_on_after_a_broker_stood_still_under_load(
    mortal: tuple[PrivateBroker, Stage], seed: int
) -> None:
    broker, stage = mortal
    with stage.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.keep(2)
        scene.load()
        scene.somewhere()
        # What an outage piles up, however long a start takes, is not what is measured afterwards.
        scene.flow.run(OUTAGE_RATE)
        with scene.cut_off():
            broker.pause()
            time.sleep(scene.dice.uniform(0.5, LONGEST_PAUSE_S))
            broker.resume()
        print(f"drained {scene.heal_and_drain():.1f} s after the broker went on")
