"""What the protocol makes of tasks that are to have another time."""

from __future__ import annotations

import pytest

from support.protocols import begun, deliver, held, owner, record
from taskmill.consumer.delayed import Move, move_record
from taskmill.consumer.orders import Order
from taskmill.consumer.protocol import Protocol, Transaction
from taskmill.consumer.record import Outcome
from taskmill.consumer.table import Decision, Entry, decide
from taskmill.schemas.models import CANCEL, RESCHEDULE, Control
from taskmill.schemas.states import Status

WAITS = Entry(1, 2, Status.SCHEDULED, 0, saved=b"[1]")


def order(offset: int, seq: int | None = None, generation: int | None = None) -> Order:
    asked = Control("a", RESCHEDULE, 5, generation, "work", 9_000, seq, 8_000, 4)
    return Order(offset, asked, 7)


def reading() -> Protocol:
    protocol = owner(0)
    for lease in protocol.control_places():
        protocol.control_from(lease, 0)
    return protocol


def marks(transaction: Transaction) -> list[Outcome]:
    told = transaction.orders.get(0)
    return [] if told is None else told.marks


@pytest.mark.parametrize(
    ("found", "seq", "generation", "moves"),
    [
        (WAITS, None, None, True),
        (WAITS, 2, 1, True),
        (WAITS, 1, None, False),
        (WAITS, None, 0, False),
        (None, None, None, False),
        (WAITS._replace(status=Status.RETRYING), None, None, False),
        (WAITS._replace(status=Status.SUCCEEDED), None, None, False),
        (WAITS._replace(status=Status.CANCELLED), None, None, False),
    ],
)
def test_only_what_waits_as_its_sender_saw_it_is_moved(
    found: Entry | None, seq: int | None, generation: int | None, moves: bool
) -> None:
    protocol = reading()
    protocol.obey(held(protocol), [order(0, seq, generation)], [found])
    transaction = begun(protocol)
    assert transaction.orders[0].offset == 1
    if not moves:
        assert marks(transaction) == []
        return
    (mark,) = marks(transaction)
    place = mark.record.mark_key, mark.record.generation, mark.record.seq
    assert place == (b"a", 1, 2)
    assert (mark.status, mark.due_at, mark.saved) == (Status.SCHEDULED, 9_000, b"[1]")
    made = move_record(mark, "t.delayed.q", 3)
    assert Move.unpack(made["key"], made["value"]) == Move(b"a", 1, 3, 8_000, 9_000)
    protocol.committed(transaction)
    assert protocol.begin() is None
    # What it leaves in the table lets the task run when its time has come.
    assert decide(Entry(1, 2, Status.SCHEDULED, 0), 1, 3) is Decision.RUN


def test_what_is_in_flight_is_not_moved() -> None:
    protocol = reading()
    one = record(held(protocol), 0, "a", generation=1, seq=3)
    assert [running.offset for running in deliver(protocol, [one], {b"a": WAITS})] == [0]
    protocol.obey(held(protocol), [order(0)], [WAITS])
    assert marks(begun(protocol)) == []


def test_the_last_of_several_moves_holds_and_a_cancellation_ends_them() -> None:
    protocol = reading()
    lease = held(protocol)
    later = order(1)
    assert later.control is not None
    later = later._replace(control=later.control._replace(not_before=9_500))
    protocol.obey(lease, [order(0), later], [WAITS, WAITS])
    cancelled = Order(2, Control("a", CANCEL, 5), 7)
    protocol.obey(lease, [cancelled, order(3)], [WAITS, WAITS])
    transaction = begun(protocol)
    assert [(m.status, m.due_at) for m in marks(transaction)] == [(Status.CANCELLED, None)]
    assert transaction.orders[0].offset == 4


def test_a_move_alone_does_not_tell_that_its_transaction_was_committed() -> None:
    protocol = reading()
    lease = held(protocol)
    protocol.obey(lease, [order(0)], [WAITS])
    transaction = begun(protocol)
    assert protocol.unknown(transaction) == [lease]
    # The table holds just what the move leaves there, committed or not.
    protocol.restored(lease, 0, {b"a": WAITS}, unclean=True)
    again = begun(protocol)
    assert [m.due_at for m in marks(again)] == [9_000]
    assert again.orders[0].offset == 1
