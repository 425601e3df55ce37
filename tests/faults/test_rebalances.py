"""Workers that join and leave in good order, while transactions are open; and storms of them."""

from __future__ import annotations

import time

import pytest

from faults.scene import Scene, Stage

pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(150)]


@pytest.mark.proof("graceful rebalance with an open transaction")
def test_a_transaction_open_while_another_worker_joins_is_committed_before_or_refused(
    stage: Stage, seed: int
) -> None:
    with stage.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.keep(1)
        (first,) = scene.workers
        # A classic member is static: expected back, it would have its old share without ado.
        scene.wait_shared(first)
        scene.load(burst=500, rate=200)
        scene.wait_outcomes(1)
        second = scene.start()
        # Stopped, so that the rebalance surely begins with the transaction open.
        scene.stop_in_transaction(first)
        second.wait_for("slot")
        if scene.dice.random() < 0.7:
            # It goes on before its session is over, and gives partitions up while it commits.
            time.sleep(scene.dice.uniform(0, 1.2))
        else:
            # It is asked in vain, and goes on with a transaction for what is another's.
            scene.wait_shared(second)
        scene.go_on(first)
        scene.wait_shared()
        if scene.dice.random() < 0.5:
            scene.load()
            scene.somewhere()
            scene.leave(scene.any_worker())
        print(f"drained {scene.heal_and_drain():.1f} s after the rebalance")


@pytest.mark.proof("rebalance storm of 3 to 6 workers")
def test_a_storm_of_workers_that_join_leave_stop_and_are_killed_loses_nothing(
    stage: Stage, seed: int
) -> None:
    with stage.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.keep(3)
        scene.load(burst=300, rate=150)
        for _ in range(scene.dice.randrange(4, 8)):
            _one_change(scene)
            time.sleep(scene.dice.uniform(0, 0.6))
        for worker in scene.workers:
            scene.go_on(worker)
        scene.keep(3)
        print(f"drained {scene.heal_and_drain():.1f} s after the storm")


def _one_change(scene: Scene) -> None:
    worker, dice = scene.any_worker(), scene.dice.random()
    if len(scene.workers) < 3 or (dice < 0.4 and len(scene.workers) < 6):
        scene.start()
    elif dice < 0.6:
        scene.kill(worker)
    elif dice < 0.8:
        scene.go_on(worker)
        scene.leave(worker)
    elif dice < 0.9:
        scene.stop(worker)
    else:
        scene.go_on(worker)
