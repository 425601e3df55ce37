"""The fence, leases and rebalances: each rule of the protocol alone."""

from __future__ import annotations

import pytest

from support.protocols import (
    begun,
    claim,
    held,
    owner,
    started,
    succeeded,
)
from taskmill.consumer.protocol import Phase, Protocol

# ---- the fence ----------------------------------------------------------------------------------


def test_a_transaction_takes_its_fence_at_begin_and_keeps_it() -> None:
    protocol = owner(0)
    one, two = started(protocol, 0, [0, 1])
    protocol.complete([succeeded(one)])
    transaction = begun(protocol)
    protocol.assigned([1], "generation 2")
    assert transaction.fence.metadata == "generation 1"
    protocol.aborted(transaction)
    protocol.complete([succeeded(two)])
    redone = begun(protocol)
    assert redone.fence.metadata == "generation 2"
    assert redone.fence.epoch > transaction.fence.epoch
    assert len(redone.outcomes[0]) == 2


def test_outcomes_of_a_lost_lease_are_dropped() -> None:
    protocol = owner(0)
    ready, running = started(protocol, 0, [0, 1])
    protocol.complete([succeeded(ready)])
    (ended,) = protocol.lost([0])
    assert not ended.held
    protocol.complete([succeeded(running)])
    assert protocol.begin() is None
    assert protocol.counts.dropped == 2
    assert protocol.in_flight == 0


def test_outcomes_of_a_lost_lease_are_dropped_though_the_partition_came_back() -> None:
    protocol = owner(0)
    (running,) = started(protocol, 0, [0])
    protocol.lost([0])
    (lease,) = protocol.assigned([0], "generation 3").restore
    protocol.restored(lease, 0, {})
    protocol.fetching(lease)
    protocol.complete([succeeded(running)])
    claim(protocol)
    assert protocol.begin() is None


def test_the_answer_to_a_transaction_does_not_touch_a_later_lease() -> None:
    for answer in (Protocol.committed, Protocol.aborted, Protocol.unknown):
        protocol = owner(0)
        (one,) = started(protocol, 0, [0])
        protocol.complete([succeeded(one)])
        transaction = begun(protocol)
        protocol.lost([0])
        (lease,) = protocol.assigned([0], "generation 3").restore
        protocol.restored(lease, 0, {})
        protocol.fetching(lease)
        started(protocol, 0, [0])
        answer(protocol, transaction)
        assert protocol.in_flight == 1
        assert protocol.phase(0) is Phase.RUNNING
        assert begun(protocol).size == 0, "it is claimed, and nothing more"


def test_one_transaction_is_open_at_a_time() -> None:
    protocol = owner(0)
    one, two = started(protocol, 0, [0, 1])
    protocol.complete([succeeded(one)])
    begun(protocol)
    protocol.complete([succeeded(two)])
    with pytest.raises(AssertionError, match="not been answered"):
        protocol.begin()


# ---- rebalances ---------------------------------------------------------------------------------


def test_a_partition_is_delivered_only_once_it_is_restored_and_fetched() -> None:
    protocol = Protocol()
    (lease,) = protocol.assigned([0], "generation 1").restore
    assert protocol.lease(0) is None, "the table is not complete"
    assert protocol.next_offset(0) is None
    protocol.restored(lease, 7, {})
    assert protocol.lease(0) is None, "what was fetched meanwhile was dropped"
    assert protocol.next_offset(0) == 7
    protocol.fetching(lease)
    assert protocol.lease(0) is lease


def test_a_partition_that_comes_back_in_the_next_generation_keeps_its_handlers() -> None:
    protocol = owner(0)
    (running,) = started(protocol, 0, [0])
    assert protocol.suspend([0]) == []
    assert protocol.lease(0) is None, "nothing is delivered meanwhile"
    assignment = protocol.assigned([0], "generation 2", follows=True)
    assert (assignment.restore, assignment.ended) == ([], [])
    assert protocol.next_offset(0) == 1
    protocol.complete([succeeded(running)])
    assert begun(protocol).offsets == {0: 1}


def test_nothing_of_a_suspended_partition_is_committed() -> None:
    protocol = owner(0)
    (running,) = started(protocol, 0, [0])
    protocol.suspend([0])
    protocol.complete([succeeded(running)])
    assert not protocol.is_ready()
    assert protocol.begin() is None


def test_a_suspended_partition_is_lost_where_somebody_else_may_have_had_it() -> None:
    protocol = owner(0, 1)
    old = held(protocol, 0)
    started(protocol, 0, [0])
    protocol.suspend([0, 1])
    assignment = protocol.assigned([0], "generation 4", follows=False)
    assert {lease.partition for lease in assignment.ended} == {0, 1}
    (lease,) = assignment.restore
    assert lease is not old
    assert not old.held
    assert protocol.in_flight == 0


def test_a_suspended_partition_that_does_not_come_back_is_lost() -> None:
    protocol = owner(0, 1)
    protocol.suspend([0, 1])
    assignment = protocol.assigned([1], "generation 2", follows=True)
    assert [lease.partition for lease in assignment.ended] == [0]
    assert protocol.partitions == [1]


def test_a_partition_revoked_before_it_was_restored_is_lost() -> None:
    protocol = Protocol()
    (lease,) = protocol.assigned([0], "generation 1").restore
    assert protocol.suspend([0]) == [lease]
    protocol.restored(lease, 0, {})
    assert protocol.partitions == []


def test_a_partition_that_is_added_leaves_the_others_alone() -> None:
    protocol = owner(0)
    (running,) = started(protocol, 0, [0])
    lease = held(protocol)
    assignment = protocol.assigned([1], "generation 2")
    assert [new.partition for new in assignment.restore] == [1]
    assert held(protocol, 0) is lease
    protocol.complete([succeeded(running)])
    assert begun(protocol).offsets == {0: 1}
