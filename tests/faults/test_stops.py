"""Workers stopped with SIGSTOP for longer than their session or transaction, and let go on."""

from __future__ import annotations

import pytest

from faults.scene import Stage

# A stopped member is missed after its session, its transaction within 15 s; then 30 s to drain.
pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(150)]


@pytest.mark.proof("SIGSTOP beyond the session, then SIGCONT, classic protocol")
def test_a_classic_member_that_wakes_after_its_session_commits_nothing_it_lost(
    stage: Stage, seed: int
) -> None:
    _stopped_beyond_its_session(stage, "classic", seed)


@pytest.mark.proof("SIGSTOP beyond the session, then SIGCONT, KIP-848")
def test_a_kip848_member_that_wakes_after_its_session_commits_nothing_it_lost(
    stage: Stage, seed: int
) -> None:
    _stopped_beyond_its_session(stage, "consumer", seed)


def _stopped_beyond_its_session(stage: Stage, protocol: str, seed: int) -> None:
    with stage.point(protocol, seed) as scene:
        scene.keep(2)
        scene.wait_shared()
        scene.load()
        scene.somewhere()
        stopped = scene.any_worker()
        (other,) = (w for w in scene.workers if w is not stopped)
        scene.stop(stopped)
        scene.wait_shared(other)
        if scene.dice.random() < 0.5:
            # The other is at work; else it wakes while the other still restores.
            scene.load(rate=0)
            scene.somewhere()
        print(f"drained {scene.heal_and_drain():.1f} s after SIGCONT")


@pytest.mark.proof("transaction time-out")
def test_a_worker_stopped_inside_a_transaction_until_it_timed_out_commits_nothing_of_it(
    stage: Stage, seed: int
) -> None:
    with stage.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.keep(1)
        scene.load(burst=500, rate=200)
        scene.wait_outcomes(1)
        (stopped,) = scene.workers
        scene.stop_in_transaction(stopped)
        scene.flow.run(20)
        if scene.dice.random() < 0.7:
            # It restores only once the transaction is over.
            scene.wait_shared(scene.start())
        # 10 s, and the time until the broker looks.
        scene.watch.until(lambda: not scene.open_transactions(), "the transaction's end", 20)
        print(f"drained {scene.heal_and_drain():.1f} s after SIGCONT")
