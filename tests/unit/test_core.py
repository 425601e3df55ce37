"""What a queue's threads share, alone: gathering, and waiting for what is done."""

from __future__ import annotations

import threading

from support.clocks import HandClock
from support.protocols import deliver, held, owner, record, succeeded
from taskmill.consumer.core import GATHER_STEP_S, Core
from taskmill.runtime.clock import SYSTEM_CLOCK


def test_outcomes_are_gathered_until_the_time_or_until_as_many_are_done_as_under_way() -> None:
    clock, protocol = HandClock(), owner(0)
    core = Core(protocol, clock, window_ms=1_000)
    records = [record(held(protocol), offset) for offset in range(4)]
    deliver(protocol, records)
    core.outcomes.put([succeeded(records[0])])
    core.gather(until=0.05)
    assert clock.seconds == 0.05
    assert protocol.is_ready(), "what came meanwhile is taken in"
    core.outcomes.put([succeeded(records[1])])
    core.gather(until=0.1)
    assert clock.seconds == 0.05 + GATHER_STEP_S, "half of it is done"
    core.gather(until=0.1)
    assert clock.seconds == 0.05 + GATHER_STEP_S


def test_a_partition_that_goes_waits_for_a_commit_and_no_abort_counts_as_one() -> None:
    protocol = owner(0, 1)
    core = Core(protocol, SYSTEM_CLOCK, window_ms=1_000)
    one, other = record(held(protocol, 0), 0), record(held(protocol, 1), 0)
    deliver(protocol, [one])
    deliver(protocol, [other])
    protocol.complete([succeeded(one)])
    waited: list[bool] = []

    def wait() -> None:
        with core.changed:
            waited.append(core.await_commit([0], 10.0))

    waiter = threading.Thread(target=wait)
    transaction = core.begin()
    assert transaction is not None
    waiter.start()
    core.abort(transaction)
    again = core.begin()
    assert again is not None
    with core.changed:
        assert not waited
    core.commit_marks(again, {})
    waiter.join(10)
    assert waited == [True]
    protocol.complete([succeeded(other)])
    assert core.begin() is not None
    with core.changed:
        assert core.await_commit([0], 0.0), "what is open is another partition's"
