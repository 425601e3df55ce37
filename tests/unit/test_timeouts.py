"""When an attempt's time is over, and functions that are interrupted then."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.clocks import HandClock
from support.limited import spin
from support.protocols import held, owner, record
from taskmill.consumer.attempt import Attempts, Prepared
from taskmill.consumer.record import Lease, Outcome, Reason, Record
from taskmill.consumer.timeouts import Timekeeper
from taskmill.producer.context import Context
from taskmill.producer.definition import TaskDefinition
from taskmill.producer.middleware import Hooks
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.errors import ConfigError, DeadlineExceeded, Interrupted, TimedOut
from taskmill.schemas.states import Status

pytestmark = pytest.mark.timeout(60)

#: Short, and long enough for a machine that does other things too.
TIMEOUT = "50ms"
GRACE_S = 0.2


def lease() -> Lease:
    return held(owner(0))


def asked(one: Record, **fields: Any) -> Record:
    assert one.task is not None
    return one._replace(task=one.task._replace(**fields))


def prepared(fn: Callable[..., Any], clock: Any = SYSTEM_CLOCK, **options: Any) -> Prepared:
    attempts = Attempts(
        {"work": TaskDefinition(fn, name="work", **options)}, clock, Hooks(()), 1000
    )
    one = attempts.prepare(record(lease(), 0))
    assert isinstance(one, Prepared)
    return one


@pytest.fixture
def timekeeper() -> Iterator[Timekeeper]:
    one = Timekeeper(SYSTEM_CLOCK, GRACE_S)
    yield one
    one.stop()


# ---- what may start, and until when --------------------------------------------------------------


class Start:
    """Attempts at NOW of a task that was enqueued at 0; what it declares, and what was asked."""

    NOW = 10_000

    def __init__(self, **declared: str) -> None:
        self.clock = HandClock()
        self.clock.ms = self.NOW
        self.clock.seconds = 5.0
        definition = TaskDefinition(lambda: None, name="work", **declared)  # type: ignore[arg-type]
        self.attempts = Attempts({"work": definition}, self.clock, Hooks(()), 1000)

    def of(self, **fields: Any) -> Prepared | Outcome:
        return self.attempts.prepare(asked(record(lease(), 0), **fields))

    def due(self, **fields: Any) -> tuple[float, int, bool] | None:
        one = self.of(**fields)
        assert isinstance(one, Prepared)
        return None if one.due is None else (one.due.at, one.due.ends_at, one.due.is_deadline)


def test_a_task_without_limits_has_all_the_time() -> None:
    assert Start().due() is None


@pytest.mark.parametrize(
    ("declared", "fields", "due"),
    [
        ({"timeout": "2s"}, {}, (7.0, 12_000, False)),
        ({"timeout": "2s"}, {"timeout_ms": 500}, (5.5, 10_500, False)),
        ({"deadline": "11s"}, {}, (6.0, 11_000, True)),
        ({"deadline": "11s"}, {"deadline": 13_000}, (8.0, 13_000, True)),
        ({"timeout": "2s", "deadline": "11s"}, {}, (6.0, 11_000, True)),
        ({"timeout": "2s", "deadline": "1h"}, {}, (7.0, 12_000, False)),
        ({"timeout": "1s", "deadline": "11s"}, {}, (6.0, 11_000, False)),
        ({"expires": "11s"}, {}, None),
    ],
)
def test_the_nearer_of_timeout_and_deadline_ends_an_attempt_and_a_call_outdoes_the_task(
    declared: dict[str, str], fields: dict[str, int], due: tuple[float, int, bool] | None
) -> None:
    assert Start(**declared).due(**fields) == due


def test_a_timeout_beyond_all_bounds_can_be_waited_for() -> None:
    one = Start().of(timeout_ms=2**63 - 1)
    assert isinstance(one, Prepared)
    assert one.due is not None
    assert one.due.seconds < threading.TIMEOUT_MAX


@pytest.mark.parametrize(("expires", "fields"), [("10s", {}), ("1h", {"expires_at": 10_000})])
def test_what_has_not_started_in_time_expires(expires: str, fields: dict[str, int]) -> None:
    one = Start(expires=expires).of(**fields)
    assert isinstance(one, Outcome)
    assert (one.status, one.failure) == (Status.EXPIRED, None)


def test_a_task_that_has_started_once_does_not_expire_any_more() -> None:
    assert isinstance(Start(expires="1s").of(attempt=2), Prepared)


def test_nothing_starts_beyond_the_deadline() -> None:
    one = Start(deadline="10s").of(attempt=2)
    assert isinstance(one, Outcome)
    assert one.failure is not None
    assert (one.status, one.failure.reason) == (Status.DEAD, Reason.EXPIRED)
    assert one.failure.error.message == "not started by its deadline, 1970-01-01T00:00:10.000Z"


def test_a_handler_is_told_when_its_time_is_over() -> None:
    seen: list[Context] = []
    start = Start()
    definition = TaskDefinition(_with_context, name="work", timeout="2s")
    start.attempts = Attempts({"work": definition}, start.clock, Hooks(()), 1000)
    one = start.of()
    assert isinstance(one, Prepared)
    seen = [one.arguments["ctx"]]
    assert (seen[0].deadline, seen[0].cancelled) == (12_000, False)
    start.clock.seconds += 2
    assert seen[0].cancelled


def test_a_handler_is_told_that_another_worker_has_its_partition() -> None:
    one = prepared(_with_context)
    assert not one.arguments["ctx"].cancelled
    one.record.lease.held = False
    assert one.arguments["ctx"].cancelled


def _with_context(ctx: Context) -> None: ...


# ---- functions -----------------------------------------------------------------------------------


def test_a_function_within_its_time_returns(timekeeper: Timekeeper) -> None:
    assert timekeeper.call(prepared(lambda: 7, timeout="1h")) == 7


def test_what_a_function_raises_within_its_time_is_its_own(timekeeper: Timekeeper) -> None:
    def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        timekeeper.call(prepared(fails, timeout="1h"))


def test_a_function_is_interrupted_and_cleans_up(timekeeper: Timekeeper) -> None:
    seen: list[str] = []

    def work() -> None:
        try:
            spin(30)
        except Exception:  # what is to be tried again
            seen.append("an error")
        finally:
            seen.append("cleaned up")

    with pytest.raises(TimedOut, match=r"^still running after its timeout of 0.05 s$") as caught:
        timekeeper.call(prepared(work, timeout=TIMEOUT))
    assert seen == ["cleaned up"]
    assert [entry.name for entry in caught.traceback][-1] == "spin"
    assert caught.value.__cause__ is None


def test_one_at_its_deadline_says_so(timekeeper: Timekeeper) -> None:
    now = SYSTEM_CLOCK.now_ms()
    attempts = Attempts(
        {"work": TaskDefinition(lambda: spin(30), name="work")}, SYSTEM_CLOCK, Hooks(()), 1000
    )
    late = attempts.prepare(asked(record(lease(), 0), deadline=now + 100))
    assert isinstance(late, Prepared)
    with pytest.raises(DeadlineExceeded, match=r"^still running at its deadline, 20"):
        timekeeper.call(late)


def test_what_the_clean_up_raises_is_the_cause(timekeeper: Timekeeper) -> None:
    def work() -> None:
        try:
            spin(30)
        finally:
            raise ConnectionError("cannot roll back")

    with pytest.raises(TimedOut) as caught:
        timekeeper.call(prepared(work, timeout=TIMEOUT))
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_a_function_that_returns_after_all_has_succeeded(timekeeper: Timekeeper) -> None:
    def work() -> str:
        try:
            spin(30)
        except Interrupted:
            return "half of it"
        return "all of it"

    assert timekeeper.call(prepared(work, timeout=TIMEOUT)) == "half of it"


def test_no_interruption_comes_late_or_to_somebody_else() -> None:
    """Functions that end just when their time does: each returns or times out, and what follows
    in their thread runs undisturbed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    keeper = Timekeeper(SYSTEM_CLOCK, 60.0)
    ends: list[str] = []
    failed: list[BaseException] = []

    def main(choice: random.Random) -> None:
        try:
            for _ in range(300):
                seconds = 0.002 + choice.uniform(-0.0015, 0.002)
                one = prepared(lambda s=seconds: spin(s), timeout="2ms")
                try:
                    keeper.call(one)
                    ends.append("returned")
                except TimedOut:
                    ends.append("timed out")
                spin(0.0002)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=main, args=(random.Random(seed + n),)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keeper.stop()
    assert not failed
    assert len(ends) == 600
    assert set(ends) == {"returned", "timed out"}
    assert not keeper.stuck


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "30"}, "timeout: duration '30': expected a number and one of ms, s, m, h, d"),
        ({"timeout": 30}, "timeout=30: expected a number and one of ms, s, m, h, d"),
        ({"timeout": "0s"}, "timeout='0s': allowed are 1ms to 3650d"),
        ({"expires": "999999999999d"}, "expires='999999999999d': allowed are 1ms to 3650d"),
        ({"deadline": "-1s"}, "deadline: duration '-1s': expected a number and one of"),
    ],
)
def test_a_wrong_limit_is_refused_at_the_declaration(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TaskDefinition(lambda: 1, name="work", **options)
