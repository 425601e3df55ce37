"""What the protocol makes of cancellations: before a task comes, while it runs, after its end."""

from __future__ import annotations

import pytest

from support.protocols import (
    ONCE,
    begun,
    claim,
    deliver,
    held,
    marks,
    owner,
    record,
    started,
    succeeded,
)
from taskmill.consumer.orders import Order
from taskmill.consumer.protocol import Protocol, Transaction
from taskmill.consumer.record import Failure, Outcome, Reason, Record
from taskmill.consumer.table import Decision, Entry, decide
from taskmill.schemas.models import CANCEL, Control, TaskError
from taskmill.schemas.states import Status

FAILED = Failure(Reason.FAILED, TaskError("ValueError", "no", "f"))
STORED = "stored"


def order(offset: int, key: str, generation: int | None = None) -> Order:
    return Order(offset, Control(key, CANCEL, 5, generation, "work"), 7)


def reading(*partitions: int) -> Protocol:
    """One that owns `partitions`, and reads `control` from offset 0 on."""
    protocol = owner(*(partitions or (0,)))
    protocol.stored = frozenset({STORED})
    for lease, at in protocol.control_places().items():
        assert at is None
        protocol.control_from(lease, 0)
    return protocol


def cancel(protocol: Protocol, one: Order, found: Entry | None = None, p: int = 0) -> list[Record]:
    """What is to be stopped for it."""
    protocol.obey(held(protocol, p), [one], [found])
    stop, protocol.to_stop = protocol.to_stop, []
    return stop


def marked(transaction: Transaction, p: int = 0) -> list[tuple[bytes, int, int]]:
    told = transaction.orders.get(p)
    found = told.marks if told is not None else []
    assert all(mark.status is Status.CANCELLED for mark in found)
    return [(m.record.mark_key, m.record.generation, m.record.seq) for m in found]


def at(transaction: Transaction, p: int = 0) -> int | None:
    """The offset of `control` that it commits."""
    told = transaction.orders.get(p)
    return None if told is None else told.offset


def retrying(one: Record) -> Outcome:
    return Outcome(one, Status.RETRYING, failure=FAILED, retry_ms=1000)


@pytest.mark.parametrize(
    ("found", "generation", "place"),
    [
        (None, None, (0, 0)),
        (None, 3, (3, 0)),
        (Entry(0, 2, Status.RETRYING, 0), None, (0, 2)),
        (Entry(1, 2, Status.SCHEDULED, 0), 1, (1, 2)),
        (Entry(1, 2, Status.RUNNING, 0), None, (1, 2)),
        (Entry(1, 2, Status.RETRYING, 0), 0, None),
        (Entry(1, 2, Status.SUCCEEDED, 0), None, None),
        (Entry(1, 2, Status.SUCCEEDED, 0), 1, None),
        (Entry(1, 2, Status.DEAD, 0), 2, (2, 0)),
    ],
)
def test_what_is_not_in_flight_is_marked_where_it_stands_unless_it_has_ended(
    found: Entry | None, generation: int | None, place: tuple[int, int] | None
) -> None:
    protocol = reading()
    assert cancel(protocol, order(0, "a", generation), found) == []
    transaction = begun(protocol)
    assert marked(transaction) == ([(b"a", *place)] if place else [])
    assert at(transaction) == 1
    assert transaction.offsets == {0: 0}, "nothing fences a mark but an offset of its partition"
    protocol.committed(transaction)
    assert protocol.begin() is None
    assert protocol.orders_held == 0
    if place and found is not None:
        new = Entry(*place, Status.CANCELLED, 0)
        assert decide(new, place[0], place[1] + 1) is Decision.DUPLICATE


def test_a_task_that_comes_behind_its_cancellation_is_a_duplicate() -> None:
    protocol = reading()
    cancel(protocol, order(0, "a"))
    lease = held(protocol)
    replayed = record(lease, 2, "b", generation=1)
    cancel(protocol, order(1, "b"), Entry(0, 3, Status.RETRYING, 0))
    assert deliver(protocol, [record(lease, 0, "a"), record(lease, 1, "b", seq=4), replayed]) == [
        replayed
    ], "a replay is another generation"
    transaction = begun(protocol)
    assert marked(transaction) == [(b"a", 0, 0)], "of one ID the newest is marked"
    assert marks(transaction) == [(b"a", None), (b"b", None)]
    assert at(transaction) == 2
    protocol.committed(transaction)
    protocol.complete([succeeded(replayed)])
    assert marks(begun(protocol)) == [(b"b", Status.SUCCEEDED)]


def test_a_running_one_is_stopped_once_and_ends_cancelled_however_it_fails() -> None:
    protocol = reading()
    for offset, end in enumerate((Status.DEAD, Status.RETRYING)):
        (one,) = started(protocol, 0, [offset])
        assert cancel(protocol, order(2 * offset, f"id-{offset}")) == [one]
        assert cancel(protocol, order(2 * offset + 1, f"id-{offset}")) == [], "it knows"
        assert one.offset in one.lease.cancelled
        assert protocol.begin() is None, "the offset waits for what came of it"
        protocol.complete([Outcome(one, end, failure=FAILED, started_at=3, finished_at=9)])
        transaction = begun(protocol)
        (outcome,) = transaction.outcomes[0]
        assert outcome == Outcome(one, Status.CANCELLED, started_at=3, finished_at=9)
        assert at(transaction) is None
        protocol.committed(transaction)
        assert not one.lease.cancelled
        last = begun(protocol)
        assert (marked(last), at(last)) == ([], 2 * offset + 2)
        protocol.committed(last)


def test_what_succeeds_or_has_ended_before_stands() -> None:
    protocol = reading()
    ran, dead = started(protocol, 0, [0, 1])
    cancel(protocol, order(0, "id-0"))
    protocol.complete([succeeded(ran), Outcome(dead, Status.DEAD, failure=FAILED)])
    assert cancel(protocol, order(1, "id-1")) == []
    transaction = begun(protocol)
    assert marks(transaction) == [(b"id-0", Status.SUCCEEDED), (b"id-1", Status.DEAD)]
    protocol.committed(transaction)
    assert at(begun(protocol)) == 2


def test_a_next_attempt_that_awaits_its_commit_is_not_made() -> None:
    protocol = reading()
    (one,) = started(protocol, 0, [0])
    protocol.complete([retrying(one)])
    assert cancel(protocol, order(0, "id-0")) == []
    assert begun(protocol).outcomes[0] == [Outcome(one, Status.CANCELLED, finished_at=7)]


@pytest.mark.parametrize("commits", [True, False])
def test_a_next_attempt_on_its_way_to_kafka_is_cancelled_behind_it_or_in_its_place(
    commits: bool,
) -> None:
    protocol = reading()
    (one,) = started(protocol, 0, [0])
    protocol.complete([retrying(one)])
    transaction = begun(protocol)
    cancel(protocol, order(0, "id-0"))
    if not commits:
        protocol.aborted(transaction)
        assert marks(begun(protocol)) == [(b"id-0", Status.CANCELLED)]
        return
    protocol.committed(transaction)
    after = begun(protocol)
    assert (marked(after), at(after), marks(after)) == ([(b"id-0", 0, 0)], 1, [])


def test_an_end_on_its_way_to_kafka_stands_also_where_it_has_to_be_sent_again() -> None:
    protocol = reading()
    (one,) = started(protocol, 0, [0])
    protocol.complete([Outcome(one, Status.DEAD, failure=FAILED)])
    transaction = begun(protocol)
    cancel(protocol, order(0, "id-0"))
    protocol.aborted(transaction)
    assert marks(begun(protocol)) == [(b"id-0", Status.DEAD)]


def test_what_waits_for_its_partition_to_be_claimed_never_starts() -> None:
    protocol = Protocol()
    (lease,) = protocol.assigned([0], "generation 1").restore
    protocol.restored(lease, 0, {})
    protocol.fetching(lease)
    protocol.control_from(lease, 0)
    assert deliver(protocol, [record(lease, 0), record(lease, 1)]) == []
    assert cancel(protocol, order(0, "id-0")) == []
    transaction = begun(protocol)
    assert marks(transaction) == [(b"id-0", Status.CANCELLED)]
    assert [one.offset for one in protocol.committed(transaction)] == [1]


@pytest.mark.parametrize("step", ["waits", "noted", "commits"])
def test_what_waits_at_a_gate_never_starts(step: str) -> None:
    protocol = reading()
    if step == "waits":
        protocol.close_gates()
    lease = held(protocol)
    assert deliver(protocol, [record(lease, 0, "a", name=ONCE)]) == []
    transaction = begun(protocol) if step == "commits" else None
    cancel(protocol, order(0, "a"))
    if transaction is not None:
        assert [note.record.offset for note in transaction.notes[0]] == [0]
        assert protocol.committed(transaction) == []
    after = begun(protocol)
    assert marks(after) == [(b"a", Status.CANCELLED)]
    assert not after.notes
    protocol.committed(after)
    assert not protocol._gates.busy


def test_one_whose_outcome_may_lie_in_postgresql_is_left_to_whoever_looks() -> None:
    protocol = Protocol()
    protocol.stored = frozenset({STORED})
    (lease,) = protocol.assigned([0], "generation 1").restore
    protocol.restored(lease, 0, {})
    protocol.fetching(lease)
    protocol.control_from(lease, 0)
    one = record(lease, 0, "a", name=STORED)
    deliver(protocol, [one])
    assert cancel(protocol, order(0, "a")) == [one]
    assert protocol.committed(begun(protocol)) == [one]
    protocol.complete([succeeded(one)])
    assert marks(begun(protocol)) == [(b"a", Status.SUCCEEDED)], "it was there already"


def test_a_newer_generation_that_is_cancelled_overtakes_the_one_in_flight() -> None:
    protocol = reading()
    (one,) = started(protocol, 0, [0])
    assert cancel(protocol, order(0, "id-0", 1)) == []
    protocol.complete([succeeded(one)])
    transaction = begun(protocol)
    assert (marked(transaction), marks(transaction)) == ([(b"id-0", 1, 0)], [(b"id-0", None)])
    assert cancel(protocol, order(1, "id-0", 0)) == []


def test_an_older_generation_is_not_cancelled_in_place_of_the_one_in_flight() -> None:
    protocol = reading()
    one = record(held(protocol), 0, "a", generation=2)
    deliver(protocol, [one])
    assert cancel(protocol, order(0, "a", 1)) == []
    assert at(begun(protocol)) == 1
    assert not protocol.to_stop


@pytest.mark.parametrize("was_committed", [True, False])
def test_marks_come_again_after_an_abort_and_where_an_unknown_end_was_none(
    was_committed: bool,
) -> None:
    protocol = reading()
    cancel(protocol, order(0, "a"))
    cancel(protocol, order(1, "done"), Entry(0, 0, Status.SUCCEEDED, 0))
    protocol.aborted(begun(protocol))
    transaction = begun(protocol)
    assert (marked(transaction), at(transaction)) == ([(b"a", 0, 0)], 2)
    (lease,) = protocol.unknown(transaction)
    assert protocol.control_places() == {}, "not before it is restored"
    assert protocol.unknown_marks(lease) == [b"a"]
    found = {b"a": Entry(0, 0, Status.CANCELLED, 0)} if was_committed else {}
    protocol.restored(lease, 0, found, unclean=True)
    assert protocol.control_places() == {lease: 2}
    assert protocol.is_ready() is not was_committed
    assert [o.record.mark_key for o in protocol.recovered] == ([b"a"] if was_committed else [])
    if not was_committed:
        again = begun(protocol)
        assert (marked(again), at(again)) == ([(b"a", 0, 0)], 2)


def test_what_was_asked_for_is_carried_out_though_its_topic_is_gone() -> None:
    protocol = reading()
    one, other = started(protocol, 0, [0, 1])
    protocol.complete([retrying(one)])
    transaction = begun(protocol)
    for n, key in enumerate(("id-0", "id-1", "a")):
        cancel(protocol, order(n, key))
    protocol.forget_orders()
    protocol.complete([retrying(other)])
    protocol.committed(transaction)
    after = begun(protocol)
    assert (marked(after), at(after)) == ([(b"a", 0, 0), (b"id-0", 0, 0)], None)
    assert marks(after) == [(b"id-1", Status.CANCELLED)]
    protocol.control_from(held(protocol), 0)
    cancel(protocol, order(0, "a"))
    protocol.aborted(after)
    again = begun(protocol)
    assert (marked(again), at(again)) == ([(b"a", 0, 0), (b"id-0", 0, 0)], 1)
    protocol.committed(again)
    assert protocol.begin() is None


def test_the_offset_stays_at_the_lowest_that_is_not_done() -> None:
    protocol = reading()
    (one,) = started(protocol, 0, [0])
    cancel(protocol, order(0, "id-0"))
    cancel(protocol, order(3, "b"))
    transaction = begun(protocol)
    assert (marked(transaction), at(transaction)) == ([(b"b", 0, 0)], 0)
    protocol.committed(transaction)
    protocol.complete([succeeded(one)])
    protocol.committed(begun(protocol))
    assert at(begun(protocol)) == 4


def test_what_is_passed_over_moves_the_offset_only() -> None:
    protocol = reading()
    lease = held(protocol)
    protocol.obey(lease, [Order(4, None)], [None])
    protocol.obey(lease, [Order(4, None)], [None])
    transaction = begun(protocol)
    assert (marked(transaction), at(transaction)) == ([], 5)


def test_a_partition_that_is_let_go_takes_no_more_orders_and_commits_its_marks() -> None:
    protocol = reading(0, 1)
    cancel(protocol, order(0, "a"), p=1)
    lease = held(protocol, 1)
    protocol.release([1])
    assert not protocol.takes_orders(lease)
    assert protocol.takes_orders(held(protocol, 0))
    transaction = begun(protocol)
    assert marked(transaction, 1) == [(b"a", 0, 0)]
    protocol.lost([1])
    protocol.committed(transaction)
    assert list(protocol.control_places()) == [held(protocol, 0)]


def test_what_is_a_duplicate_of_a_mark_does_not_pass_before_it() -> None:
    protocol = reading()
    claim(protocol)
    lease = held(protocol)
    many = [order(n, f"x{n}") for n in range(10_000)]
    protocol.obey(lease, many, [None] * len(many))
    assert protocol.orders_held == 10_000
    assert deliver(protocol, [record(lease, 0, "x9999")]) == []
    limit = protocol.limits.per_transaction
    for _ in range(10_000 // limit):
        transaction = begun(protocol)
        assert (len(marked(transaction)), marks(transaction)) == (limit, [])
        protocol.committed(transaction)
    last = begun(protocol)
    assert (len(marked(last)), at(last), marks(last)) == (2_000, 10_000, [(b"x9999", None)])
