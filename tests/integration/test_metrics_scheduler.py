"""A scheduler's metrics agree with the topics, also on queues that nobody works on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.brokers import quiet_ports
from support.schedules import Scheduled
from support.scraped import Scraped
from taskmill.runtime.config import Settings

pytestmark = pytest.mark.kafka

#: Queues are looked at every 10 s.
LOOK_S = 40


@pytest.fixture
def port() -> int:
    return quiet_ports(2)


@pytest.fixture
def scene(settings: Settings, tmp_path: Path, port: int) -> Iterator[Scheduled]:
    changed = {"metrics_port": port, "partitions": 3, "retry_tiers": ("1s", "1m")}
    with Scheduled(Settings(**{**settings.model_dump(), **changed}), tmp_path) as one:
        yield one


def test_runs_of_schedules_count_with_how_late_they_were(scene: Scheduled, port: int) -> None:
    scheduler = scene.scheduler("--metrics-port", str(port + 1))
    page = Scraped(port + 1)
    page.until_probe("/readyz", 200)
    assert page.probe("/healthz") == (200, "ok")
    scene.put_all(["tick"], "noop", every_ms=1_000, max_runs=3, overlap="allow")
    scene.put_all(["late"], "nap", every_ms=60_000, max_runs=1, misfire="skip",
                  since=1_700_000_000_000)  # fmt: skip
    runs = "taskmill_schedule_runs_total"
    page.until(lambda page: page.total(runs, task="noop") == 3, "three runs")
    page.until(lambda page: page.total("taskmill_schedules") == 2, "two schedules")
    page.until(lambda page: page.total("taskmill_misfires_total", task="nap") > 0, "misfires")
    assert page.total("taskmill_schedule_lateness_seconds_count", task="noop") == 3
    assert page.total("taskmill_schedule_lateness_seconds_sum", task="noop") < 30
    assert page.total("taskmill_tasks_enqueued_total", task="noop") == len(
        [run for run in scene.runs() if run.schedule == "tick"]
    )
    assert page.labels(runs, "queue") == {"default"}
    assert scheduler.terminate() == 0


def test_a_queue_without_a_worker_is_told_of_and_idle_it_has_no_lag(
    scene: Scheduled, port: int
) -> None:
    scene.scheduler("--metrics-port", str(port + 1))
    scene.oracle.put_tasks([f"t{n}" for n in range(30)], "noop")
    scene.oracle.put_tasks(["f1", "f2"], "fails", {"message": "no"})
    page = Scraped(port + 1)

    def waits(page: Scraped) -> bool:
        age = page.total("taskmill_oldest_task_age_seconds", queue="default")
        return page.total("taskmill_consumer_lag") == 32 and age > 0

    page.until(waits, "lag of a queue without workers", LOOK_S)
    assert page.total("taskmill_group_members") == 0
    assert page.total("taskmill_dlq_depth") == 0
    worker = scene.add().wait_ready(3)
    scene.oracle.wait_consumed()

    def is_done(page: Scraped) -> bool:
        return (
            page.total("taskmill_consumer_lag") == 0
            and page.total("taskmill_oldest_task_age_seconds") == 0
            and page.total("taskmill_group_members") == 1
            and page.total("taskmill_dlq_depth") == len(scene.oracle.letters()) == 2
        )

    page.until(is_done, "no lag, one member, two letters", LOOK_S)
    assert page.labels("taskmill_lso_stuck_seconds", "topic") >= {scene.oracle.tasks}
    assert page.total("taskmill_lso_stuck_seconds") == 0
    # The worker tells the same of what it owns: never to be added up.
    own = Scraped(port)
    own.until(lambda page: page.labels("taskmill_consumer_lag", "partition") == {"0", "1", "2"},
              "all partitions")  # fmt: skip
    assert worker.terminate() == 0


def test_what_waits_and_what_was_passed_on_is_counted(scene: Scheduled, port: int) -> None:
    scene.scheduler("--metrics-port", str(port + 1))
    scene.add().wait_ready(3)
    scene.oracle.put_tasks(["a", "b"], "flaky", {"fails": 1})
    scene.oracle.put_tasks(["c"], "flaky", {"fails": 1, "wait": "10m"})
    states = scene.oracle.wait_states(["a", "b"], 60)
    assert {states[key]["status"] for key in (b"a", b"b")} == {"succeeded"}
    page, own = Scraped(port + 1), Scraped(port)
    page.until(lambda page: page.total("taskmill_passed_on_total", tier="1s") == 2, "two retries")
    page.until(lambda page: page.total("taskmill_waiting_tasks", tier="delayed") == 1,
               "one that waits", LOOK_S)  # fmt: skip
    own.until(lambda page: page.total("taskmill_retries_total") == 3, "three retries")
    assert own.total("taskmill_retries_total", tier="1s") == 2
    assert own.total("taskmill_retries_total", tier="delayed") == 1
