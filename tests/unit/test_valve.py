"""A paused queue's valve: what it lets through, keeps, and gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from taskmill.consumer.record import Lease, Record, Source
from taskmill.consumer.valve import Valve


class Executors:
    """Keeps what is submitted; the first `slots` of it count as begun."""

    def __init__(self, slots: int = 0) -> None:
        self.slots = slots
        self.records: list[Record] = []
        self.interrupted: list[Record] = []
        self.cancelled: list[Lease] = []

    def submit(self, records: list[Record]) -> None:
        self.records += records

    def interrupt(self, records: Sequence[Record]) -> None:
        self.interrupted += records

    def cancel(self, leases: list[Lease]) -> None:
        self.cancelled += leases

    def take_back(self, queue: str, give: Callable[[list[Record]], None]) -> None:
        begun, waiting = self.records[: self.slots], self.records[self.slots :]
        self.records = begun + [r for r in waiting if r.lease.queue != queue or r.is_gated]
        give([r for r in waiting if r.lease.queue == queue and not r.is_gated])

    @property
    def offsets(self) -> list[int]:
        return [record.offset for record in self.records]


def record(offset: int, lease: Lease, *, gated: bool = False) -> Record:
    source = Source("t", lease.partition, offset, 0, None, None, ())
    return Record(lease, offset, b"k", 0, 0, None, source, is_gated=gated)


def test_an_open_valve_passes_all_on() -> None:
    executors, lease = Executors(), Lease(0, 1, "q")
    valve = Valve("q", executors)
    valve.submit([record(0, lease)])
    valve.submit([])
    assert executors.offsets == [0]


def test_what_has_not_begun_is_kept_until_it_opens() -> None:
    executors, lease = Executors(slots=1), Lease(0, 1, "q")
    valve = Valve("q", executors)
    valve.submit([record(n, lease) for n in range(3)])
    valve.close()
    valve.submit([record(3, lease)])
    assert (executors.offsets, valve.kept) == ([0], 3)
    valve.open()
    assert (executors.offsets, valve.kept) == ([0, 1, 2, 3], 0)


def test_what_has_passed_a_gate_goes_on() -> None:
    executors, lease = Executors(), Lease(0, 1, "q")
    valve = Valve("q", executors)
    valve.submit([record(0, lease, gated=True), record(1, lease)])
    valve.close()
    valve.submit([record(2, lease, gated=True)])
    assert (executors.offsets, valve.kept) == ([0, 2], 1)


def test_what_is_cancelled_is_let_through_to_be_ended() -> None:
    executors, lease = Executors(), Lease(0, 1, "q")
    valve = Valve("q", executors)
    valve.close()
    valve.submit([record(0, lease), record(1, lease)])
    lease.cancelled.add(1)
    asked = record(1, lease)
    valve.interrupt([asked])
    assert (executors.offsets, executors.interrupted, valve.kept) == ([1], [asked], 1)
    # One that was on its way back meanwhile.
    lease.cancelled.add(2)
    valve.submit([record(2, lease)])
    assert executors.offsets == [1, 2]


def test_what_is_of_a_lost_partition_is_dropped() -> None:
    executors, lost, held = Executors(), Lease(0, 1, "q"), Lease(1, 1, "q")
    valve = Valve("q", executors)
    valve.close()
    valve.submit([record(0, lost), record(5, held)])
    lost.held = False
    valve.cancel([lost])
    assert (valve.kept, executors.cancelled) == (1, [lost])
    valve.open()
    assert executors.offsets == [5]
