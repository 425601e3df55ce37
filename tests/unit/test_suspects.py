"""What was in flight at sudden ends of its worker, handed from owner to owner."""

from __future__ import annotations

from support.protocols import begun, claim, deliver, held, owner, record, succeeded
from taskmill.consumer.protocol import Protocol
from taskmill.consumer.record import Lease, Record
from taskmill.consumer.table import Entry
from taskmill.schemas.states import Status

KILLER, INNOCENT = 0, 1
Table = dict[bytes, Entry]


def take_over(table: Table, *, unclean: bool) -> tuple[Protocol, list[Record]]:
    """Another owner, at work on both records; and those."""
    protocol = Protocol()
    (lease,) = protocol.assigned([0], "generation").restore
    protocol.restored(lease, 0, table, unclean=unclean)
    protocol.fetching(lease)
    claim(protocol)
    both = [record(lease, KILLER), record(lease, INNOCENT)]
    assert deliver(protocol, both, table) == []
    return protocol, both


def commit_notes(protocol: Protocol, table: Table) -> list[int]:
    """Commit what is noted; the offsets of those that start then."""
    transaction = begun(protocol)
    for note in transaction.notes.get(0, []):
        table[note.record.mark_key] = Entry(0, 0, Status.RUNNING, 0, note.deliveries)
    return [one.offset for one in protocol.committed(transaction)]


def deliveries(table: Table) -> list[int]:
    lease = Lease(0, 1)
    return [table[record(lease, at).mark_key].deliveries for at in (KILLER, INNOCENT)]


def test_those_in_flight_at_two_sudden_ends_run_one_after_the_other() -> None:
    lease = held(owner(0))
    table = {record(lease, at).mark_key: Entry(0, 0, Status.RUNNING, 0, 1) for at in (0, 1)}
    protocol, _ = take_over(table, unclean=True)
    assert commit_notes(protocol, table) == [KILLER]
    assert deliveries(table) == [2, 1]


def test_one_that_was_let_go_in_order_is_not_condemned_for_its_neighbours_deed() -> None:
    lease = held(owner(0))
    # Both were noted by an owner that has let them go; the next ends suddenly, with one at work.
    table = {record(lease, at).mark_key: Entry(0, 0, Status.RUNNING, 0, 2) for at in (0, 1)}
    protocol, _ = take_over(table, unclean=False)
    assert commit_notes(protocol, table) == [KILLER]
    assert deliveries(table) == [2, 1]
    protocol, both = take_over(table, unclean=True)
    transaction = begun(protocol)
    assert [o.record for o in transaction.outcomes[0]] == both[:1], "the killer is found out"
    assert [note.deliveries for note in transaction.notes[0]] == [2]


def table_of(killer: int, innocent: int) -> Table:
    lease = Lease(0, 1)
    return {
        record(lease, at).mark_key: Entry(0, 0, Status.RUNNING, 0, count)
        for at, count in ((KILLER, killer), (INNOCENT, innocent))
    }


def test_one_that_would_be_condemned_does_not_run_beside_another_suspect() -> None:
    # The killer was at two ends too, but its turn had not come when it was let go in order.
    table = table_of(killer=1, innocent=2)
    protocol, both = take_over(table, unclean=False)
    assert commit_notes(protocol, table) == [KILLER]
    # It kills now: the innocent one has not been at work here.
    assert deliveries(table) == [1, 1]
    protocol, both = take_over(table, unclean=True)
    assert commit_notes(protocol, table) == [KILLER]
    assert deliveries(table) == [2, 1]
    protocol, both = take_over(table, unclean=True)
    transaction = begun(protocol)
    assert [o.record for o in transaction.outcomes[0]] == both[:1], "the killer is found out"


def test_a_suspect_that_comes_later_waits_for_the_one_that_runs_alone() -> None:
    protocol = Protocol()
    (lease,) = protocol.assigned([0], "generation").restore
    table = table_of(killer=1, innocent=2)
    protocol.restored(lease, 0, table)
    protocol.fetching(lease)
    claim(protocol)
    innocent, killer = (
        record(lease, at, key=key) for at, key in ((0, f"id-{INNOCENT}"), (1, f"id-{KILLER}"))
    )
    assert deliver(protocol, [innocent], table) == []
    (running,) = protocol.committed(begun(protocol))
    assert running.offset == innocent.offset
    assert deliver(protocol, [killer], table) == []
    assert protocol.begin() is None
    protocol.complete([succeeded(running)])
    transaction = begun(protocol)
    assert [note.record for note in transaction.notes[0]] == [killer._replace(is_gated=True)]


def test_other_suspects_are_waited_for_until_they_have_survived() -> None:
    table = table_of(killer=1, innocent=2)
    protocol, _ = take_over(table, unclean=False)
    assert commit_notes(protocol, table) == [KILLER]
    protocol.let_next_suspect()
    assert protocol.begin() is None
    protocol.let_next_suspect()
    assert commit_notes(protocol, table) == [INNOCENT]
