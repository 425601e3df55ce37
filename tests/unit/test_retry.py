"""The retry policy, the tiers that a wait takes, and the headers that carry an attempt."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from support.clocks import HandClock
from support.protocols import held, owner, record, succeeded
from taskmill import Reject, Retry
from taskmill.app import App
from taskmill.consumer.attempt import Attempts, Prepared
from taskmill.consumer.dlq import dead_letter, merged
from taskmill.consumer.record import Failure, Outcome, Reason, Record
from taskmill.consumer.retry import may_go_on, retry_record
from taskmill.consumer.tiers import Tier, tier_of
from taskmill.producer.definition import TaskDefinition
from taskmill.producer.middleware import Hooks
from taskmill.runtime.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidResult,
    ProcessDied,
    RetryAfter,
    TimedOut,
)
from taskmill.schemas.models import TaskError
from taskmill.schemas.states import Status

# ---- the policy ----------------------------------------------------------------------------------


def waits(policy: Retry, error: BaseException | None = None) -> list[float]:
    """All waits until the policy gives up."""
    found: list[float] = []
    while True:
        wait = policy.next_after(len(found) + 1, error or ValueError())
        if wait is None:
            return found
        found.append(wait)


def test_by_default_four_more_attempts_are_made_ever_later() -> None:
    assert waits(Retry()) == [1, 4, 16, 64]


def test_no_wait_is_longer_than_the_maximum() -> None:
    assert waits(Retry(max_attempts=6, base="1m", factor=10, max="1h")) == [60, 600, *[3600] * 3]
    assert Retry(max="2h", factor=1000).wait_s(10**6) == 7200


def test_one_attempt_is_no_retry() -> None:
    assert waits(Retry(max_attempts=1)) == []


@pytest.mark.parametrize(
    ("policy", "error", "is_retried"),
    [
        (Retry(), ValueError(), True),
        (Retry(), TimedOut(), True),
        (Retry(), ProcessDied(), True),
        (Retry(), DeadlineExceeded(), False),
        (Retry(), InvalidResult(), False),
        (Retry(), Reject("no"), False),
        (Retry(), SystemExit(1), False),
        (Retry(on=(BaseException,)), SystemExit(1), True),
        (Retry(on=(BaseException,)), Reject("no"), False),
        (Retry(on=(OSError,)), ConnectionError(), True),
        (Retry(on=(OSError,)), ValueError(), False),
        (Retry(on=OSError), OSError(), True),  # type: ignore[arg-type]
        (Retry(give_up_on=(LookupError,)), KeyError(), False),
        (Retry(give_up_on=(LookupError,)), ValueError(), True),
        (Retry(on=(OSError,)), Retry.after("3s"), True),
        (Retry(give_up_on=(Exception,)), Retry.after("3s"), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_is_worth_another_attempt(
    policy: Retry, error: BaseException, is_retried: bool
) -> None:
    assert (policy.next_after(1, error) is not None) is is_retried


def test_a_call_may_have_more_attempts_or_fewer() -> None:
    assert Retry(max_attempts=2).next_after(2, ValueError(), 3) == 4
    assert Retry(max_attempts=5).next_after(2, ValueError(), 2) is None


def test_a_handler_says_when_and_that_counts_as_an_attempt() -> None:
    error = Retry.after("90s", "the shop is closed")
    assert str(error) == "the shop is closed"
    assert waits(Retry(max_attempts=3), error) == [90, 90]
    assert RetryAfter.__reduce__(error) == (RetryAfter, (90.0, "the shop is closed"))


class Busy(Exception):
    def __init__(self, retry_after: Any) -> None:
        self.retry_after = retry_after


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (7, 7),
        (0.5, 0.5),
        ("12", 12),
        (timedelta(minutes=2), 120),
        (0, 0),
        (10**9, 7 * 86_400),
        (-1, 1),
        (None, 1),
        (True, 1),
        ("tomorrow", 1),
        (float("nan"), 1),
    ],
)
def test_what_an_exception_says_of_when_to_come_back_is_heeded(said: Any, seconds: float) -> None:
    assert Retry().next_after(1, Busy(said)) == seconds


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_attempts": 0}, r"^Retry: max_attempts=0: allowed are 1 to 1000000$"),
        ({"max_attempts": "3"}, r"^Retry: max_attempts='3': allowed"),
        ({"base": "1"}, r"^Retry: base: duration '1': expected a number and one of"),
        ({"base": 1}, r"^Retry: base=1: expected a number and one of"),
        ({"max": "8d"}, r"^Retry: max='8d': at most 7d$"),
        ({"factor": 0.5}, r"^Retry: factor=0.5: allowed are 1 to 1000$"),
        ({"on": (1,)}, r"^Retry: on: 1 is no exception class$"),
        ({"give_up_on": ("OSError",)}, r"^Retry: give_up_on: 'OSError' is no exception class$"),
    ],
)
def test_a_wrong_policy_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Retry(**wrong)
    with pytest.raises(ConfigError, match=r"^Retry: after: duration 'soon'"):
        Retry.after("soon")


def test_a_task_has_its_own_policy_or_the_apps() -> None:
    app = App("shop", retry=Retry(max_attempts=2))
    own = app.task(retry=Retry(max_attempts=9))(lambda: None, name="own")
    other = app.task(lambda: None, name="other")
    once = app.task(lambda: None, name="once", delivery="at_most_once")
    assert [d.retry.max_attempts for d in (own, other, once)] == [9, 2, 1]
    with pytest.raises(ConfigError, match="it never starts again once it may have begun"):
        app.task(lambda: None, name="both", delivery="at_most_once", retry=Retry())
    with pytest.raises(ConfigError, match=r"retry=3; allowed: a Retry, or None"):
        app.task(lambda: None, name="number", retry=3)  # type: ignore[call-overload]


# ---- attempts ------------------------------------------------------------------------------------


def failed(
    error: BaseException, declared: dict[str, Any] | None = None, **fields: Any
) -> tuple[Outcome, HandClock]:
    clock = HandClock()
    definition = TaskDefinition(lambda: None, name="work", **(declared or {}))
    attempts = Attempts({"work": definition}, clock, Hooks(()), 1000)
    one = record(held(owner(0)), 0)
    assert one.task is not None
    one = one._replace(task=one.task._replace(enqueued_at=clock.ms, **fields))
    attempt = attempts.prepare(one)
    assert isinstance(attempt, Prepared)
    return attempts.fail(attempt, error), clock


def test_a_failed_attempt_says_how_long_until_the_next() -> None:
    outcome, _ = failed(ValueError("x"), attempt=2)
    assert (outcome.status, outcome.retry_ms) == (Status.RETRYING, 4_000)
    assert outcome.failure is not None
    assert outcome.failure.reason is Reason.FAILED


def test_the_last_attempt_is_the_end() -> None:
    assert failed(ValueError("x"), attempt=5)[0].status is Status.DEAD
    assert failed(ValueError("x"), max_attempts=1)[0].status is Status.DEAD
    assert failed(ValueError("x"), max_attempts=6, attempt=5)[0].status is Status.RETRYING


def test_a_rejection_is_the_end_and_says_so() -> None:
    outcome, _ = failed(Reject("no such customer"))
    assert outcome.status is Status.DEAD
    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.failure.error.message) == (
        Reason.REJECTED,
        "no such customer",
    )


def test_no_attempt_is_planned_for_after_the_deadline() -> None:
    assert failed(ValueError("x"), {"deadline": "1s"})[0].status is Status.DEAD
    assert failed(ValueError("x"), {"deadline": "1.001s"})[0].status is Status.RETRYING


def test_a_part_of_a_millisecond_is_not_waited_less() -> None:
    assert failed(Busy(0.0001))[0].retry_ms == 1


# ---- tiers ---------------------------------------------------------------------------------------

TIERS = [Tier("1s", 1_000), Tier("10s", 10_000), Tier("1m", 60_000)]


@pytest.mark.parametrize(
    ("wait_ms", "name"),
    [
        (0, "1s"),
        (1_000, "1s"),
        (1_001, "10s"),
        (16_000, "1m"),
        (60_000, "1m"),
        (60_001, None),
    ],
)
def test_a_wait_rounds_up_to_a_tier_and_is_too_long_for_all(wait_ms: int, name: str | None) -> None:
    tier = tier_of(TIERS, wait_ms)
    assert (tier and tier.name) == name


# ---- records -------------------------------------------------------------------------------------


def retrying(one: Record, retry_ms: int = 1_000) -> Outcome:
    failure = Failure(Reason.FAILED, TaskError("ValueError", "x", "f" * 16), "stack")
    return succeeded(one)._replace(
        status=Status.RETRYING, failure=failure, retry_ms=retry_ms, finished_at=5_000
    )


def test_a_record_on_its_way_has_its_bytes_and_says_the_rest_in_headers() -> None:
    one = record(held(owner(0)), 7)
    source = one.source._replace(
        timestamp=4_000, headers=[("x", b"own"), ("taskmill-partition", b"0/1"), ("x", None)]
    )
    made = retry_record(retrying(one._replace(source=source)), "t.retry.q.1s", 3)
    headers = dict(made.pop("headers"))
    assert made == {
        "topic": "t.retry.q.1s",
        "key": source.key,
        "value": source.value,
        "partition": made["partition"],
    }
    assert 0 <= made["partition"] < 3
    assert headers["taskmill-attempt"] == b"2"
    assert headers["taskmill-seq"] == b"1"
    assert headers["taskmill-due"] == b"6000"
    assert headers["taskmill-original-offset"] == b"7"
    assert headers["taskmill-first-failure"] == b"5000"
    assert headers["taskmill-attempts"] == b"1"
    assert headers["taskmill-reason"] == b"failed"
    assert "taskmill-partition" not in headers
    assert "taskmill-not-before" not in headers


def test_what_is_written_once_stays_and_the_rest_is_of_the_last_failure() -> None:
    one = record(held(owner(0)), 7)
    first = retry_record(retrying(one), "t.retry.q.1s", 3)
    assert one.task is not None
    second = one._replace(
        offset=99,
        seq=1,
        task=one.task._replace(attempt=2),
        source=one.source._replace(offset=99, headers=first["headers"]),
    )
    again = retry_record(retrying(second)._replace(finished_at=9_000), "t.retry.q.1s", 3)
    names = [name for name, _ in again["headers"]]
    assert len(names) == len(set(names))
    headers = dict(again["headers"])
    assert headers["taskmill-original-offset"] == b"7"
    assert headers["taskmill-first-failure"] == b"5000"
    assert headers["taskmill-last-failure"] == b"9000"
    assert (headers["taskmill-attempt"], headers["taskmill-seq"]) == (b"3", b"2")
    assert "taskmill-not-before" not in headers
    letter = dead_letter(retrying(second)._replace(retry_ms=None), "t.dlq.q", 3, 1_000)
    told = dict(letter["headers"])
    assert letter["value"] == one.source.value
    assert told["taskmill-attempts"] == b"2"
    on_the_way = {"taskmill-attempt", "taskmill-seq", "taskmill-due", "taskmill-not-before"}
    assert not on_the_way & told.keys()


def test_headers_that_would_not_fit_once_more_make_a_letter_of_it() -> None:
    one = record(held(owner(0)), 7)
    assert may_go_on(one)
    large = one._replace(source=one.source._replace(headers=[("x", bytes(20_000))]))
    assert not may_go_on(large)
    # What the last failure wrote goes, however long its texts are.
    stack: list[tuple[str, bytes | None]] = [("taskmill-error-stack", bytes(20_000))]
    assert may_go_on(one._replace(source=one.source._replace(headers=stack)))
    assert merged(large.source.headers, {})[0][0] == "x"
