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
def mortal() -> Iterator[PrivateBroker]:
    """The module's own broker."""
    broker = PrivateBroker()
    broker.start()
    yield broker
    broker.remove()


@pytest.fixture(scope="module")
def stage_of_mortal(
    mortal: PrivateBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    made = Stage(make_scenes(mortal.bootstrap, "t", tmp_path_factory))
    yield made
    made.close()


@pytest.fixture(scope="module")
def lasting() -> Iterator[PrivateBroker]:
    """The module's other broker, whose session outlasts every pause: a lone broker that is fenced
    and comes back loses a transaction's marker now and then (Kafka 4.4: 2 of 130 points), and then
    readers of that partition wait until an operator ends it."""
    broker = PrivateBroker(session_ms=2_000 * LONGEST_PAUSE_S)
    broker.start()
    yield broker
    broker.remove()


@pytest.fixture(scope="module")
def stage_of_lasting(
    lasting: PrivateBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    made = Stage(make_scenes(lasting.bootstrap, "t", tmp_path_factory))
    yield made
    made.close()


@pytest.mark.proof("broker killed and started again under load")
def test_all_goes_on_after_a_broker_was_killed_under_load(
    mortal: PrivateBroker, stage_of_mortal: Stage, seed: int
) -> None:
    with stage_of_mortal.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.keep(2)
        scene.load()
        scene.somewhere()
        # What an outage piles up, however long a start takes, is not what is measured afterwards.
        scene.flow.run(OUTAGE_RATE)
        with scene.cut_off():
            mortal.kill()
            if scene.dice.random() < 0.3:
                scene.kill(scene.any_worker())
                scene.keep(2)
            time.sleep(scene.dice.uniform(0, 2))
            mortal.start()
        print(f"drained {scene.heal_and_drain():.1f} s after the broker was back")


@pytest.mark.proof("broker that stands still under load")
def test_all_goes_on_after_a_broker_stood_still_under_load(
    lasting: PrivateBroker, stage_of_lasting: Stage, seed: int
) -> None:
    with stage_of_lasting.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.keep(2)
        scene.load()
        scene.somewhere()
        # What an outage piles up, however long a start takes, is not what is measured afterwards.
        scene.flow.run(OUTAGE_RATE)
        with scene.cut_off():
            lasting.pause()
            time.sleep(scene.dice.uniform(0.5, LONGEST_PAUSE_S))
            lasting.resume()
        print(f"drained {scene.heal_and_drain():.1f} s after the broker went on")
