"""What runs, what is committed, and within which bounds: each rule of the protocol alone.

Together, under failures: test_simulation.py."""

from __future__ import annotations

from support.protocols import (
    ONCE,
    begun,
    deliver,
    entry,
    garbage,
    held,
    marks,
    owner,
    record,
    started,
    succeeded,
)
from taskmill.consumer.protocol import Limits
from taskmill.consumer.record import Child, Failure, Outcome, Reason
from taskmill.consumer.table import Entry, position_key
from taskmill.schemas.models import TaskError
from taskmill.schemas.states import Status

_FAILED = Failure(Reason.FAILED, TaskError("ValueError", "no", "f"))


def test_a_record_runs_unless_the_table_says_that_it_ran() -> None:
    protocol = owner(0)
    lease = held(protocol)
    new, done, replayed, left = [record(lease, offset) for offset in range(4)]
    replayed = replayed._replace(generation=1)
    table = {
        done.mark_key: entry(done),
        replayed.mark_key: Entry(0, 0, Status.DEAD, 0),
        left.mark_key: entry(left, Status.RUNNING),
    }
    assert deliver(protocol, [new, done, replayed, left], table) == [new, replayed, left]


def test_a_duplicate_is_counted_and_its_offset_passes() -> None:
    protocol = owner(0)
    twin = record(held(protocol), 0)
    assert deliver(protocol, [twin], {twin.mark_key: entry(twin)}) == []
    transaction = begun(protocol)
    assert protocol.counts.duplicates == 1
    assert transaction.offsets == {0: 1}
    assert marks(transaction) == [(twin.mark_key, None)], "it leaves no mark of its own"


def test_a_twin_in_flight_is_a_duplicate() -> None:
    protocol = owner(0)
    lease = held(protocol)
    first = record(lease, 0, "a")
    assert deliver(protocol, [first, record(lease, 1, "a")]) == [first], "running"
    protocol.complete([succeeded(first)])
    assert deliver(protocol, [record(lease, 2, "a")]) == [], "ready"
    transaction = begun(protocol)
    assert deliver(protocol, [record(lease, 3, "a")]) == [], "in the open transaction"
    protocol.committed(transaction)
    after = record(lease, 4, "a")
    assert deliver(protocol, [after], {after.mark_key: entry(first)}) == [], "in the table"
    assert protocol.counts.duplicates == 4


def test_a_duplicate_does_not_let_the_offset_pass_its_running_twin() -> None:
    protocol = owner(0)
    lease = held(protocol)
    deliver(protocol, [record(lease, 0, "a"), record(lease, 1, "a")])
    assert begun(protocol).offsets == {0: 0}


def test_a_task_left_running_is_abandoned_where_it_is_declared_at_most_once() -> None:
    protocol = owner(0)
    one = record(held(protocol), 0, name=ONCE)
    assert deliver(protocol, [one], {one.mark_key: entry(one, Status.RUNNING)}) == []
    (outcome,) = begun(protocol).outcomes[0]
    assert outcome.status is Status.DEAD
    assert outcome.failure is not None
    assert outcome.failure.reason is Reason.ABANDONED


def test_garbage_is_dead_under_its_place_and_does_not_block_its_key() -> None:
    protocol = owner(0)
    lease = held(protocol)
    bad, good = garbage(lease, 0, "a"), record(lease, 1, "a")
    assert deliver(protocol, [bad, good]) == [good]
    (outcome,) = begun(protocol).outcomes[0]
    assert outcome.record.mark_key == position_key("tasks", 0, 0)
    assert outcome.failure is not None
    assert outcome.failure.reason is Reason.UNDECODABLE


def test_garbage_that_comes_again_is_not_dead_lettered_again() -> None:
    protocol = owner(0)
    bad = garbage(held(protocol), 0, "a")
    deliver(protocol, [bad], {bad.mark_key: entry(bad, Status.DEAD)})
    (outcome,) = begun(protocol).outcomes[0]
    assert outcome.failure is None


def test_a_record_on_a_wrong_partition_is_handed_on_and_leaves_no_mark() -> None:
    protocol = owner(0)
    stray = record(held(protocol), 0, belongs_to=1)
    assert deliver(protocol, [stray]) == []
    (outcome,) = begun(protocol).outcomes[0]
    assert (outcome.record.belongs_to, outcome.status) == (1, None)
    assert protocol.counts.rerouted == 1


def test_of_one_id_only_the_newest_in_flight_is_marked() -> None:
    """The state topic is compacted: an older mark behind a newer one would be all that is left."""
    protocol = owner(0)
    lease = held(protocol)
    old, new = record(lease, 0, "a"), record(lease, 1, "a", generation=1)
    assert deliver(protocol, [old, new]) == [old, new]
    protocol.complete([succeeded(new)])
    protocol.committed(begun(protocol))
    protocol.complete([Outcome(old, Status.DEAD, failure=_FAILED)])
    transaction = begun(protocol)
    assert marks(transaction) == [(b"a", None)]
    assert transaction.outcomes[0][0].failure is None, "nor does it write a dead letter"
    assert transaction.offsets == {0: 2}
    assert protocol.counts.superseded == 1


# ---- the watermark ------------------------------------------------------------------------------


def test_the_committed_offset_is_the_lowest_unfinished() -> None:
    protocol = owner(0)
    a, b, c = started(protocol, 0, [0, 1, 5])
    protocol.complete([succeeded(c), succeeded(a)])
    transaction = begun(protocol)
    assert transaction.offsets == {0: 1}, "what finished above it has its mark"
    assert [key for key, _ in marks(transaction)] == [c.mark_key, a.mark_key]
    protocol.committed(transaction)
    protocol.complete([succeeded(b)])
    assert begun(protocol).offsets == {0: 6}


def test_every_partition_that_is_marked_has_its_offset_in_the_transaction() -> None:
    """Even an unmoved one: without it nothing would fence the marks of that partition."""
    protocol = owner(0, 1, 2)
    _, above = started(protocol, 0, [0, 1])
    (other,) = started(protocol, 1, [0])
    started(protocol, 2, [0])
    protocol.complete([succeeded(above), succeeded(other)])
    assert begun(protocol).offsets == {0: 0, 1: 1}


def test_an_offset_that_was_delivered_is_not_delivered_again() -> None:
    protocol = owner(0)
    started(protocol, 0, [0, 1])
    assert [one.offset for one in started(protocol, 0, [0, 1, 2])] == [2]
    assert protocol.counts.refetched == 2
    assert protocol.in_flight == 3


# ---- bounds -------------------------------------------------------------------------------------


def test_a_full_worker_is_full_until_half_of_it_is_settled() -> None:
    protocol = owner(0, limits=Limits(in_flight=4))
    run = started(protocol, 0, range(3))
    assert not protocol.is_full()
    run += started(protocol, 0, [3])
    full = []
    for one in run:
        full.append(protocol.is_full())
        protocol.complete([succeeded(one)])
        protocol.committed(begun(protocol))
    assert full == [True, True, True, False]
    assert protocol.in_flight == 0


def test_bytes_in_flight_are_bounded_too() -> None:
    protocol = owner(0, limits=Limits(in_flight_bytes=30))
    started(protocol, 0, [0, 1])
    assert not protocol.is_full()
    started(protocol, 0, [2])
    assert protocol.is_full()
    protocol.lost([0])
    assert not protocol.is_full()


def test_a_slow_task_pauses_its_partition_alone() -> None:
    protocol = owner(0, 1, limits=Limits(span=4))
    slow, *rest = started(protocol, 0, range(4))
    protocol.complete(map(succeeded, rest))
    protocol.committed(begun(protocol))
    assert protocol.flow() == ([0], [])
    assert protocol.flow() == ([], []), "told once"
    protocol.complete([succeeded(slow)])
    protocol.committed(begun(protocol))
    assert protocol.flow() == ([], [0])


def test_a_paused_partition_resumes_at_half_its_span() -> None:
    protocol = owner(0, limits=Limits(span=4))
    run = started(protocol, 0, range(4))
    protocol.flow()
    resumed = []
    for one in run:
        protocol.complete([succeeded(one)])
        protocol.committed(begun(protocol))
        resumed.append(protocol.flow()[1])
    assert resumed == [[], [], [0], []]


def test_a_draining_worker_holds_all_partitions() -> None:
    protocol = owner(0, 1)
    assert protocol.flow(hold=True) == ([0, 1], [])
    assert protocol.flow(hold=False) == ([], [0, 1])


def test_a_fetch_that_starts_anew_is_held_again() -> None:
    """The consumer is not paused any more, whatever the protocol held before."""
    protocol = owner(0)
    (one,) = started(protocol, 0, [0])
    lease = held(protocol)
    assert protocol.flow(hold=True) == ([0], [])
    protocol.complete([succeeded(one)])
    protocol.unknown(begun(protocol))
    protocol.restored(lease, 0, {})
    assert protocol.flow(hold=True) == ([], []), "nothing is fetched yet"
    protocol.fetching(lease)
    assert protocol.flow(hold=True) == ([0], [])


def test_a_transaction_is_bounded_and_starves_no_partition() -> None:
    protocol = owner(0, 1, 2, limits=Limits(per_transaction=2))
    for p in range(3):
        protocol.complete(map(succeeded, started(protocol, p, range(20))))
    seen = []
    for _ in range(3):
        transaction = begun(protocol)
        assert transaction.size == 2
        seen += list(transaction.outcomes)
        protocol.committed(transaction)
    assert sorted(seen) == [0, 1, 2]


def test_nothing_is_left_once_everything_is_settled() -> None:
    protocol = owner(0, 1)
    for p in range(2):
        protocol.complete(map(succeeded, started(protocol, p, range(5))))
    protocol.committed(begun(protocol))
    assert protocol.in_flight == 0
    assert not protocol.is_ready()
    assert protocol.begin() is None
    assert [protocol.next_offset(p) for p in range(2)] == [5, 5]


def test_a_transaction_may_wait_while_more_is_under_way_than_done() -> None:
    protocol = owner(0, 1)
    assert not protocol.may_gather(), "nothing is under way"
    records = [record(held(protocol), offset) for offset in range(4)]
    deliver(protocol, records)
    assert protocol.may_gather()
    protocol.complete([succeeded(records[0])])
    assert protocol.may_gather()
    protocol.complete([succeeded(records[1])])
    assert not protocol.may_gather(), "half of it is done"
    protocol.committed(begun(protocol))
    assert protocol.may_gather()
    protocol.release([1])
    assert not protocol.may_gather(), "a partition is about to go"


def test_what_waits_for_a_commit_to_start_is_not_kept_waiting_for_outcomes() -> None:
    protocol = owner(0)
    lease = held(protocol)
    assert len(deliver(protocol, [record(lease, offset) for offset in range(4)])) == 4
    assert protocol.may_gather()
    assert deliver(protocol, [record(lease, 4, name=ONCE)]) == []
    assert not protocol.may_gather()
    assert len(protocol.committed(begun(protocol))) == 1
    assert protocol.may_gather()


def test_a_transaction_that_is_full_does_not_wait() -> None:
    protocol = owner(0, limits=Limits(per_transaction=1))
    records = [record(held(protocol), offset) for offset in range(4)]
    deliver(protocol, records)
    protocol.complete([succeeded(records[0])])
    assert not protocol.may_gather()


def test_results_and_children_count_in_the_bytes_that_are_held_until_they_are_committed() -> None:
    protocol = owner(0, limits=Limits(in_flight_bytes=100_000))
    lease = held(protocol)
    records = [record(lease, offset) for offset in range(3)]
    deliver(protocol, records)
    assert not protocol.is_full()
    heavy = succeeded(records[0])._replace(result=bytes(60_000))
    parent = succeeded(records[1])._replace(children=(Child("q", b"k", bytes(60_000)),))
    protocol.complete([heavy, parent, succeeded(records[2])._replace(result=bytes(4_000))])
    assert protocol.is_full()
    newer = record(lease, 3, "id-0", generation=1)
    deliver(protocol, [newer], {})
    protocol.aborted(begun(protocol))
    protocol.committed(begun(protocol))
    protocol.complete([succeeded(newer)])
    protocol.committed(begun(protocol))
    assert not protocol.is_full()
    assert protocol._bytes == 0
