"""What a queue's threads share, alone: gathering."""

from __future__ import annotations

from support.clocks import HandClock
from support.protocols import deliver, held, owner, record, succeeded
from taskmill.consumer.core import GATHER_STEP_S, Core


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
