"""Retries while workers and schedulers are killed: none lost, none doubled, none too many."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator

import pytest

from faults.app import MAX_ATTEMPTS
from faults.scene import Scene, Stage, make_scenes
from support.brokers import delete_topics

pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(150)]

#: Of the load's tasks.
FLAKY = 0.4


@pytest.fixture(scope="module")
def retried(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Scenes with two quick tiers, and many tasks that fail."""
    prefix = f"t-{uuid.uuid4().hex[:8]}"
    tiers = ("100ms", "300ms")
    made = Stage(make_scenes(broker, prefix, tmp_path_factory, flaky=FLAKY, retry_tiers=tiers))
    yield made
    made.close()
    delete_topics(broker, prefix)


def check_attempts(scene: Scene) -> None:
    """Each flaky task was attempted as often as it had to be, attempt after attempt."""
    statuses: dict[bytes, list[tuple[int, str]]] = defaultdict(list)
    for one in scene.history.outcomes:
        if one.status != "running" and one.identity.key in scene.attempts:
            statuses[one.identity.key].append((one.seq, one.status))
    begun: dict[bytes, set[int]] = defaultdict(set)
    for start in scene.history.starts:
        if start.identity.key in scene.attempts:
            assert start.attempt == start.seq + 1, start
            begun[start.identity.key].add(start.attempt)
    acked = {one.asked.identity.key for one in scene.history.acked}
    for key in acked & scene.attempts.keys():
        count = scene.attempts[key]
        *before, (last, end) = sorted(statuses[key])
        assert before == [(seq, "retrying") for seq in range(count - 1)], (key, statuses[key])
        assert last == count - 1, (key, statuses[key])
        assert begun[key] == set(range(1, count + 1)), (key, begun[key])
        assert end in (("succeeded", "dead") if count == MAX_ATTEMPTS else ("succeeded",)), key


@pytest.mark.proof("retries: SIGKILL of a worker")
def test_each_retry_is_made_once_when_workers_are_killed(retried: Stage, seed: int) -> None:
    with retried.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.schedule(1)
        scene.keep(2)
        scene.load()
        scene.somewhere()
        scene.kill(scene.any_worker())
        if scene.dice.random() < 0.3:
            scene.kill(scene.any_worker())
        scene.keep(2)
        print(f"drained {scene.heal_and_drain():.1f} s after healing")
        check_attempts(scene)


@pytest.mark.proof("retries: SIGKILL of a scheduler")
def test_each_retry_is_made_once_when_schedulers_are_killed(retried: Stage, seed: int) -> None:
    with retried.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.schedule(scene.dice.randrange(1, 3))
        scene.keep(2)
        scene.load()
        scene.somewhere()
        for _ in range(scene.dice.randrange(1, len(scene.schedulers) + 1)):
            scene.kill_scheduler()
        if scene.dice.random() < 0.3:
            scene.kill(scene.any_worker())
        scene.keep(2)
        scene.schedule(1)
        print(f"drained {scene.heal_and_drain():.1f} s after healing")
        check_attempts(scene)
