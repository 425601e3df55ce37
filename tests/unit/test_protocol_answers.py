"""What a transaction's answer does, above all one that never came: each rule alone."""

from __future__ import annotations

from support.protocols import (
    ONCE,
    begun,
    deliver,
    entry,
    held,
    owner,
    record,
    started,
    succeeded,
)
from taskmill.consumer.protocol import Limits, Phase, Protocol
from taskmill.consumer.record import Child
from taskmill.schemas.states import Status


def test_what_was_aborted_is_committed_anew_in_its_order() -> None:
    protocol = owner(0)
    a, b, c = started(protocol, 0, [0, 1, 2])
    protocol.complete([succeeded(b), succeeded(a)])
    transaction = begun(protocol)
    protocol.complete([succeeded(c)])
    protocol.aborted(transaction)
    redone = begun(protocol)
    assert [o.record.offset for o in redone.outcomes[0]] == [1, 0, 2]
    assert redone.offsets == {0: 3}


def test_after_a_lost_answer_nothing_is_committed_before_the_restore() -> None:
    protocol = owner(0, 1)
    one, two = started(protocol, 0, [0, 1])
    (other,) = started(protocol, 1, [0])
    protocol.complete([succeeded(one)])
    (lease,) = protocol.unknown(begun(protocol))
    protocol.complete([succeeded(two), succeeded(other)])
    assert list(begun(protocol).outcomes) == [1], "the other partition goes on"
    assert protocol.lease(0) is None, "and nothing is delivered"
    assert protocol.unknown_marks(lease) == [one.mark_key]


def test_after_a_lost_answer_what_the_table_shows_is_settled() -> None:
    protocol = owner(0)
    one, two = started(protocol, 0, [0, 1])
    protocol.complete([succeeded(two), succeeded(one)])
    (lease,) = protocol.unknown(begun(protocol))
    table = {one.mark_key: entry(one), two.mark_key: entry(two)}
    protocol.restored(lease, 2, table, unclean=True)
    assert protocol.in_flight == 0
    assert protocol.counts.recovered == 2
    assert protocol.begin() is None
    assert protocol.next_offset(0) == 2


def test_after_a_lost_answer_what_the_table_lacks_is_committed_anew() -> None:
    protocol = owner(0)
    (one,) = started(protocol, 0, [0])
    protocol.complete([succeeded(one)])
    (lease,) = protocol.unknown(begun(protocol))
    protocol.restored(lease, 0, {})
    assert begun(protocol).offsets == {0: 1}
    assert protocol.counts.recovered == 0


def test_an_entry_still_running_does_not_show_that_a_lost_commit_happened() -> None:
    protocol = owner(0)
    one = record(held(protocol), 0)
    left = {one.mark_key: entry(one, Status.RUNNING)}
    deliver(protocol, [one], left)
    protocol.complete([succeeded(one)])
    (lease,) = protocol.unknown(begun(protocol))
    protocol.restored(lease, 0, left)
    assert protocol.is_ready()


def test_a_newer_generation_does_not_show_that_a_lost_commit_happened() -> None:
    """Its mark was there before; what was in the transaction beside it would be lost."""
    protocol = owner(0)
    lease = held(protocol)
    old, beside = record(lease, 0, "a"), record(lease, 1, "b")
    new = record(lease, 2, "a", generation=1)
    deliver(protocol, [old, beside, new])
    protocol.complete([succeeded(new)])
    protocol.committed(begun(protocol))
    protocol.complete([succeeded(old), succeeded(beside)])
    protocol.unknown(begun(protocol))
    protocol.restored(lease, 0, {new.mark_key: entry(new)})
    assert begun(protocol).offsets == {0: 3}
    assert protocol.counts.recovered == 0


def test_after_a_lost_answer_without_marks_the_committed_offset_tells() -> None:
    protocol = owner(0, limits=Limits(per_transaction=2))
    lease = held(protocol)
    strays = [record(lease, offset, belongs_to=1) for offset in range(2)]
    deliver(protocol, strays)
    protocol.unknown(begun(protocol))
    protocol.restored(lease, 2, {})
    assert protocol.in_flight == 0, "or a later, smaller transaction moves the offset back"
    assert protocol.counts.recovered == 2


def test_a_lost_answer_of_a_suspended_partition_is_found_out_in_the_next_generation() -> None:
    protocol = owner(0)
    (one,) = started(protocol, 0, [0])
    protocol.complete([succeeded(one)])
    transaction = begun(protocol)
    protocol.suspend([0])
    assert protocol.unknown(transaction) == []
    (lease,) = protocol.assigned([0], "generation 2", follows=True).restore
    assert protocol.lease(0) is None
    protocol.restored(lease, 1, {one.mark_key: entry(one)})
    assert protocol.in_flight == 0


def test_records_dropped_during_a_restore_come_again_before_those_behind_them() -> None:
    protocol = owner(0)
    (one,) = started(protocol, 0, [0])
    lease = held(protocol)
    protocol.complete([succeeded(one)])
    protocol.unknown(begun(protocol))
    assert protocol.lease(0) is None, "offset 1 comes now, and is dropped"
    protocol.restored(lease, 0, {})
    assert protocol.lease(0) is None, "offset 2 comes now, and must be dropped too"
    assert protocol.next_offset(0) == 1
    protocol.fetching(lease)
    assert protocol.lease(0) is lease


def test_a_fetch_started_during_a_restore_does_not_count() -> None:
    """It was meant for the restore before; what it brings now is dropped."""
    protocol = owner(0)
    (one,) = started(protocol, 0, [0])
    lease = held(protocol)
    protocol.complete([succeeded(one)])
    protocol.unknown(begun(protocol))
    protocol.fetching(lease)
    protocol.restored(lease, 0, {})
    assert protocol.lease(0) is None


def test_a_restore_of_an_ended_lease_changes_nothing() -> None:
    protocol = Protocol()
    (old,) = protocol.assigned([0], "generation 1").restore
    protocol.lost([0])
    protocol.assigned([0], "generation 3")
    protocol.restored(old, 5, {})
    assert protocol.phase(0) is Phase.RESTORING
    assert protocol.unknown_marks(old) == []


def test_what_a_handler_saved_outlives_a_later_mark_of_its_start() -> None:
    """The mark is noted while the transaction with what was saved is open."""
    for answer in (Protocol.committed, Protocol.aborted):
        protocol = owner(0)
        (one,) = started(protocol, 0, [0])
        protocol.note(one, saved=b"B")
        transaction = begun(protocol)
        protocol.note(one, started_at=7)
        answer(protocol, transaction)
        (note,) = begun(protocol).notes[0]
        assert (note.started_at, note.saved) == (7, b"B")


def test_what_turned_out_to_be_committed_is_told() -> None:
    protocol = owner(0)
    (one,) = started(protocol, 0, [0])
    protocol.complete([succeeded(one)])
    (lease,) = protocol.unknown(begun(protocol))
    protocol.restored(lease, 1, {one.mark_key: entry(one)}, unclean=True)
    assert protocol.recovered == [succeeded(one)]


def test_a_transaction_takes_so_many_bytes_and_children_and_always_one_outcome() -> None:
    limits = Limits(per_transaction=4, transaction_bytes=100)
    protocol = owner(0, limits=limits)
    runs = started(protocol, 0, range(8))
    heavy = [succeeded(one)._replace(result=bytes(60)) for one in runs[:3]]
    huge = succeeded(runs[3])._replace(result=bytes(1000))
    parents = [succeeded(one)._replace(children=(Child("q", b"k", b"v"),) * 9) for one in runs[4:5]]
    protocol.complete([*heavy, huge, *parents, *(succeeded(one) for one in runs[5:])])
    taken = []
    while (transaction := protocol.begin()) is not None:
        taken.append([o.record.offset for o in transaction.outcomes[0]])
        protocol.committed(transaction)
    assert taken == [[0], [1], [2], [3], [4], [5, 6, 7]]


def test_a_mark_does_not_show_that_ours_was_committed() -> None:
    """It may be another owner's, who has started its record; behind ours there is our fence."""
    for unclean in (False, True):
        protocol = owner(0)
        lease = held(protocol)
        once = record(lease, 0, name=ONCE)
        assert deliver(protocol, [once]) == []
        protocol.unknown(begun(protocol))
        mark = {once.mark_key: entry(once, Status.RUNNING)}
        assert protocol.restored(lease, 0, mark, unclean=unclean) == []
        transaction = begun(protocol)
        assert [n.gates for n in transaction.notes[0]] == [True]
        (started_now,) = protocol.committed(transaction)
        assert started_now.offset == 0
