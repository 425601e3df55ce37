"""What a worker counts of its tasks, batch by batch, and what it tells of its partitions."""

from __future__ import annotations

from support.protocols import begun, deliver, garbage, held, owner, record, started, succeeded
from taskmill.consumer.gauges import lag, oldest_age_s
from taskmill.consumer.observe import TaskMetrics
from taskmill.consumer.part import View
from taskmill.consumer.poll import Place
from taskmill.consumer.record import Child, Failure, Lease, Outcome, Reason
from taskmill.consumer.tiers import Tier
from taskmill.runtime.meter import Meter
from taskmill.runtime.metric_table import UNKNOWN
from taskmill.schemas.models import TaskError
from taskmill.schemas.states import Status

LEASE = Lease(0, 1, "q")
FAILED = Failure(Reason.FAILED, TaskError("E", "m", "f"))
TIERS = (Tier("1s", 1_000), Tier("10s", 10_000))


def counted(*outcomes: Outcome) -> dict[str, float]:
    """What the page would say, `metric label label` to value; of histograms count and sum."""
    meter = Meter()
    metrics = TaskMetrics(meter, {"work", "once"}, TIERS)
    for outcome in outcomes:
        metrics.after_commit([outcome])
    alone = meter.read()
    meter = Meter()
    metrics = TaskMetrics(meter, {"work", "once"}, TIERS)
    metrics.after_commit(outcomes)
    assert meter.read() == alone, "one by one or all at once"
    found: dict[str, float] = {}
    for (name, labels), cells in alone.items():
        words = " ".join([name.removeprefix("taskmill_"), *labels])
        if len(cells) == 1:
            found[words] = cells[0]
        else:
            found[f"{words} count"], found[f"{words} sum"] = sum(cells[:-1]), cells[-1]
    return found


def ran(offset: int, seconds: float, waited_ms: int = 0, name: str = "work") -> Outcome:
    one = succeeded(record(LEASE, offset, name=name))
    return one._replace(started_at=waited_ms, duration=seconds)


def test_successes_count_with_how_long_they_ran_and_waited() -> None:
    assert counted(ran(1, 0.25, 500), ran(2, 1.0, 250), ran(3, 4.0, 0, "once")) == {
        "tasks_finished_total q work succeeded": 2,
        "tasks_finished_total q once succeeded": 1,
        "task_duration_seconds q work count": 2,
        "task_duration_seconds q work sum": 1.25,
        "task_duration_seconds q once count": 1,
        "task_duration_seconds q once sum": 4.0,
        "task_wait_seconds q work count": 2,
        "task_wait_seconds q work sum": 0.75,
        "task_wait_seconds q once count": 1,
        "task_wait_seconds q once sum": 0.0,
    }


def test_a_later_attempt_has_waited_because_it_should() -> None:
    one = record(LEASE, 1)
    assert one.task is not None
    later = one._replace(task=one.task._replace(attempt=2))
    found = counted(succeeded(later)._replace(started_at=90_000, duration=1.0))
    assert "task_duration_seconds q work count" in found
    assert not [name for name in found if "wait" in name]


def test_an_enqueuers_clock_that_is_ahead_makes_no_wait_negative() -> None:
    found = counted(ran(1, 1.0, -5_000))
    assert found["task_wait_seconds q work count"] == 1
    assert found["task_wait_seconds q work sum"] == 0


def test_retries_count_by_tier_and_letters_by_reason() -> None:
    failed = Outcome(record(LEASE, 1), Status.RETRYING, failure=FAILED, started_at=0, duration=0.5)
    found = counted(
        failed._replace(retry_ms=900),
        failed._replace(retry_ms=1_001),
        failed._replace(retry_ms=60_000),
        failed._replace(retry_ms=5, due_at=7),
        failed._replace(status=Status.DEAD),
        Outcome(record(LEASE, 2), Status.CANCELLED),
        Outcome(record(LEASE, 3), Status.EXPIRED),
    )
    assert found == {
        "tasks_finished_total q work retrying": 4,
        "tasks_finished_total q work dead": 1,
        "tasks_finished_total q work cancelled": 1,
        "tasks_finished_total q work expired": 1,
        "retries_total q 1s": 1,
        "retries_total q 10s": 1,
        "retries_total q delayed": 2,
        "dead_letters_total q failed": 1,
        "task_duration_seconds q work count": 5,
        "task_duration_seconds q work sum": 2.5,
        "task_wait_seconds q work count": 5,
        "task_wait_seconds q work sum": 0.0,
    }


def test_names_that_nobody_declares_and_garbage_are_one_series() -> None:
    unread = Outcome(garbage(LEASE, 9, "k"), Status.DEAD, failure=FAILED)
    strange = [ran(n, 1.0, name=f"strange-{n}") for n in range(5)]
    found = counted(unread, *strange)
    assert found[f"tasks_finished_total q {UNKNOWN} succeeded"] == 5
    assert found[f"tasks_finished_total q {UNKNOWN} dead"] == 1
    assert found[f"task_duration_seconds q {UNKNOWN} count"] == 5


def test_children_count_as_enqueued_with_their_parents_outcome() -> None:
    parent = ran(1, 1.0)._replace(children=(Child("mail", b"k", b"v", "once"),) * 3)
    assert counted(parent)["tasks_enqueued_total mail once"] == 3


def test_duplicates_count_when_their_offset_passes_and_what_is_overtaken_is_none() -> None:
    protocol = owner(0)
    lease = held(protocol)
    deliver(protocol, [record(lease, 0, "a"), record(lease, 1, "a")])
    deliver(protocol, [record(lease, 2, "a", generation=1)])
    (first,) = started(protocol, 0, [3])
    protocol.complete([succeeded(record(lease, 0, "a")), succeeded(first)])
    transaction = begun(protocol)
    outcomes = transaction.outcomes[0]
    assert [(o.record.offset, o.status, o.is_superseded) for o in outcomes] == [
        (1, None, False),
        (0, None, True),
        (3, Status.SUCCEEDED, False),
    ]
    found = counted(*outcomes)
    assert found["duplicates_total " + lease.queue] == 1
    rerouted = Outcome(record(LEASE, 5, belongs_to=3), None)
    assert counted(rerouted) == {"rerouted_total q": 1}


def test_what_is_put_off_until_its_time_is_no_outcome() -> None:
    assert counted(Outcome(record(LEASE, 5), Status.SCHEDULED, due_at=9)) == {}


# ---- gauges -------------------------------------------------------------------------------------


def view(next_offset: int, open: int = 0, oldest: int | None = None, *, runs: bool = True) -> View:
    return View(LEASE, runs, next_offset, open, oldest)


def test_lag_is_what_was_taken_and_not_committed_and_what_lies_behind_it() -> None:
    assert lag(view(10, open=3), Place(10, 10)) == 3
    assert lag(view(10, open=3), Place(10, 14)) == 7


def test_markers_of_transactions_are_no_lag() -> None:
    assert lag(view(10), Place(12, 12)) == 0


def test_lag_is_not_guessed_before_anything_was_fetched_or_restored() -> None:
    assert lag(view(10), None) is None
    assert lag(view(0, runs=False), Place(0, 5)) is None


def test_a_position_that_is_not_known_yet_counts_from_what_was_delivered() -> None:
    assert lag(view(4), Place(-1001, 6)) == 2


def test_the_oldest_task_is_that_of_all_partitions_and_none_has_no_age() -> None:
    assert oldest_age_s([view(1, 1, 7_000), view(1, 1, 4_000), view(1)], 10_000) == 6.0
    assert oldest_age_s([view(1)], 10_000) == 0.0
    assert oldest_age_s([view(1, 1, 11_000)], 10_000) == 0.0


def test_a_protocol_tells_of_its_partitions() -> None:
    protocol = owner(0, 1, at=5)
    started(protocol, 1, [5, 6, 9])
    found = {v.lease.partition: v for v in protocol.views()}
    assert found[0] == (found[0].lease, True, 5, 0, None)
    assert found[1][1:] == (True, 10, 3, 0)
