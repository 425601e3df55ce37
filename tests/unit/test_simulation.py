"""The protocol class driven through random crashes, rebalances and lost answers.

Without more settings 1,000 schedules run, from seed 0, and 100,000 in a proof.
TASKMILL_TEST_SCHEDULES=1000000 runs that many, TASKMILL_TEST_SEED=N begins at seed N. A seed that
failed is replayed, shrunk and told by

    cd tests && python -m simulation N
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest

from simulation.bug import Bug
from simulation.bugs import PLANTED, TEN, named
from simulation.bugs_of_protocol import OrderPassedEarly
from simulation.bugs_of_worker import LostLeaseCommitted
from simulation.oracle import Violation
from simulation.schedule import failure, run, schedule, shrink, told
from simulation.world import World
from support.proof import schedules_asked
from taskmill.consumer.protocol import Phase
from taskmill.consumer.record import Reason
from taskmill.schemas.states import Status

#: A planted mistake that needs the rarest of coincidences shows once in 250 schedules.
SEEDS_OF_A_BUG = 3_000


@pytest.mark.proof("protocol simulation: random crashes, rebalances, lost answers")
@pytest.mark.timeout(0)
def test_no_task_is_lost_or_counted_twice_whatever_fails(
    points: Callable[[int, str], None],
) -> None:
    first = int(os.environ.get("TASKMILL_TEST_SEED", "0"))
    count = schedules_asked()
    seeds = f"{first}-{first + count - 1}"
    print(f"seeds {seeds}")
    points(count, seeds)
    for seed in range(first, first + count):
        found = failure(schedule(seed))
        assert found is None, (
            f"seed {seed}: {found.text}; replay: cd tests && python -m simulation {seed}"
        )


@pytest.mark.proof("protocol simulation: planted bugs are caught")
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_seen(name: str, planted: Callable[[str, str], None]) -> None:
    bug = PLANTED[name]()
    planted(named(type(bug)), "")
    for seed in range(SEEDS_OF_A_BUG):
        found = failure(schedule(seed, bug), bug)
        if found is not None:
            print(f"seed {seed}: {found.text}")
            assert found.text.startswith("Violation: "), "the planted code itself is broken"
            planted(named(type(bug)), f"simulation, seed {seed}")
            return
    pytest.fail(f"{name} was not seen in {SEEDS_OF_A_BUG} schedules")


def test_an_offset_of_control_that_moves_too_early_is_seen() -> None:
    bug = OrderPassedEarly()
    assert any(failure(schedule(seed, bug), bug) for seed in range(SEEDS_OF_A_BUG))


def test_the_ten_mistakes_of_a_proof_are_planted() -> None:
    assert len(TEN) == 10
    assert set(TEN.values()) <= set(PLANTED.values())


def test_a_partition_let_go_within_a_transaction_is_not_committed_by_it() -> None:
    """KIP-848 accepts any partition's offset at the member's current epoch, and that epoch stays
    while there is more to revoke: the fence alone does not hold, a look at the lease does."""
    _let_go_within_a_transaction(Bug())
    with pytest.raises(Violation):
        _let_go_within_a_transaction(LostLeaseCommitted())


def _let_go_within_a_transaction(bug: Bug) -> None:
    world = World(bytes([0, 1, 1, 0]), bug)  # KIP-848, three partitions, two workers, all at work
    loser, winner = world.workers
    _move(world, 1)
    while loser.protocol.phase(1) is not Phase.RUNNING:
        for worker in world.workers:
            worker.step(0)
            worker.step(2)
    while any(part.claiming for part in loser.protocol._parts.values()):
        loser.step(1)
    of_first = [record.lease.partition for record in loser.running].index(0)
    world.complete(loser, of_first, 0)
    while loser.protocol.open is None:
        loser.step(1)
    assert loser.protocol.open.offsets == {0: 1}, "begun, and its offsets are not sent yet"
    for p in (0, 2):
        _move(world, p)
        for _ in range(4):
            loser.step(0)  # it waits for the transaction
    loser.faults["patience"] = [1]
    loser.step(0)
    assert 0 not in loser.protocol.partitions, "let go"
    assert 2 in loser.protocol.partitions, "not yet"
    while winner.protocol.phase(0) is not Phase.RUNNING:
        winner.step(0)
        winner.step(2)
    for _ in range(4):
        loser.step(1)
    world.settle()


def _move(world: World, p: int) -> None:
    """Partition `p` is to go to the other worker."""
    world.group.rotation ^= 1 << p
    world.group.rebalance()


def test_a_schedule_does_the_same_each_time() -> None:
    for seed in range(20):
        worlds = [run(schedule(seed)) for _ in range(2)]
        one, other = ([log.items for log in world.state] for world in worlds)
        assert [[i and i[:2] for i in log] for log in one] == [
            [i and i[:2] for i in log] for log in other
        ]


def test_a_failing_schedule_shrinks_to_a_few_steps() -> None:
    bug = PLANTED["WatermarkOffByOne"]()
    plan = shrink(schedule(0, bug), bug)
    assert failure(plan, bug) is not None
    assert failure(plan) is None, "without the mistake it passes"
    assert len(told(plan)) <= 5


def test_schedules_reach_what_they_are_for() -> None:
    """A simulation in which nothing goes wrong proves nothing."""
    worlds = [run(schedule(seed)) for seed in range(100)]
    counts = [worker.protocol.counts for world in worlds for worker in world.workers]
    assert sum(c.recovered for c in counts) > 10, "commits whose answer was lost"
    assert sum(c.dropped for c in counts) > 20, "outcomes of lost leases"
    assert sum(c.superseded for c in counts) > 5, "outcomes overtaken by a newer generation"
    assert sum(c.rerouted for c in counts) > 100, "records on a wrong partition"
    assert sum(c.refetched for c in counts) > 5, "records that came again"
    reasons = sum((world.oracle.reasons for world in worlds), Counter())
    assert reasons[Reason.ABANDONED] > 20, "at-most-once tasks that a crash left running"
    assert reasons[Reason.CRASH_LOOP] > 1, "tasks in flight at too many sudden ends"
    ends = [status for world in worlds for status in world.oracle.outcomes.values()]
    assert ends.count(Status.CANCELLED) > 100, "tasks that were cancelled"
    assert sum(sum(world.group.tenure.values()) for world in worlds) > 500, "changes of owner"
