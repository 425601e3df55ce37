"""The upkeep of a worker: what runs when, and that no job's failure reaches another."""

from __future__ import annotations

import logging
import threading

import pytest
from confluent_kafka import KafkaError, KafkaException

from support.clocks import HandClock
from taskmill.consumer.upkeep import IDLE_S, REPEAT_S, Job, Upkeep
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.errors import Unreachable


class Ran:
    """A job that counts its runs, and fails with what it is given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.count = 0
        self.error = error

    def __call__(self) -> None:
        self.count += 1
        if self.error is not None:
            raise self.error


def test_each_job_runs_at_its_own_interval_first_after_one() -> None:
    clock = HandClock()
    often, seldom = Ran(), Ran()
    upkeep = Upkeep(clock)
    upkeep.add([Job("often", 0.5, often), Job("seldom", 2.0, seldom)])
    assert upkeep.step() == 0.5
    assert (often.count, seldom.count) == (0, 0)
    for _ in range(4):
        clock.seconds += 0.5
        assert upkeep.step() == 0.5
    assert (often.count, seldom.count) == (4, 1)


def test_a_slow_job_is_due_again_an_interval_after_its_end() -> None:
    clock = HandClock()

    def slow() -> None:
        clock.seconds += 10

    quick = Ran()
    upkeep = Upkeep(clock)
    upkeep.add([Job("slow", 1.0, slow), Job("quick", 1.0, quick)])
    clock.seconds += 1
    assert upkeep.step() == 1.0
    assert quick.count == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE)), "Leader not available"),
        (Unreachable("the broker is away"), "the broker is away"),
        (ZeroDivisionError("by zero"), "by zero"),
    ],
)
def test_a_job_that_fails_is_told_of_once_a_minute_and_ends_no_other(
    caplog: pytest.LogCaptureFixture, error: Exception, said: str
) -> None:
    clock = HandClock()
    bad, good = Ran(error), Ran()
    upkeep = Upkeep(clock)
    upkeep.add([Job("bad", 1.0, bad), Job("good", 1.0, good)])
    with caplog.at_level(logging.WARNING, "taskmill.worker"):
        for _ in range(int(REPEAT_S) + 1):
            clock.seconds += 1
            upkeep.step()
    assert bad.count == good.count == REPEAT_S + 1
    assert len(caplog.records) == 2
    assert "bad" in caplog.text
    assert said in caplog.text


def test_without_a_job_the_thread_sleeps() -> None:
    assert Upkeep(HandClock()).step() == IDLE_S


def test_the_thread_runs_jobs_and_a_stop_is_at_once() -> None:
    upkeep = Upkeep(SYSTEM_CLOCK)
    ran = threading.Event()
    upkeep.add([Job("quick", 0.001, ran.set), Job("seldom", 3600, Ran())])
    upkeep.start()
    assert ran.wait(10)
    upkeep.stop()
    assert "taskmill-upkeep" not in [thread.name for thread in threading.enumerate()]


def test_a_stop_before_the_start_does_nothing() -> None:
    Upkeep(SYSTEM_CLOCK).stop()
