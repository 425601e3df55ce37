"""The meter: counts that another process reads, whatever becomes of the one that counts."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from taskmill.runtime import meter as meters
from taskmill.runtime.meter import Meter, SharedMeter, shared_memory
from taskmill.runtime.metric_page import Page, counts_of, merged
from taskmill.runtime.metric_table import BUCKETS, METRICS, OTHER

FINISHED, DURATION = "taskmill_tasks_finished_total", "taskmill_task_duration_seconds"


def page(meter: Meter) -> str:
    registry = CollectorRegistry()
    registry.register(Page(meter.read))
    return generate_latest(registry).decode()


def test_every_metric_is_named_as_prometheus_asks() -> None:
    for name, row in METRICS.items():
        assert name.startswith("taskmill_")
        assert name.endswith("_total") == (row.kind == "counter")
        assert name.endswith("_info") == (row.kind == "info")
        if row.kind == "histogram":
            assert name.endswith("_seconds")
        assert row.text.endswith(".")
        assert "id" not in row.labels
        assert row.roles


def test_what_is_counted_is_served_with_help_and_type() -> None:
    meter = Meter()
    meter.add(FINISHED, "mail", 'a "b"\n', "dead", by=2)
    meter.add(FINISHED, "mail", 'a "b"\n', "dead")
    meter.set("taskmill_tasks_in_flight", "mail", to=7)
    meter.set("taskmill_worker_info", "1.2", to=1)
    text = page(meter)
    assert f"# HELP {FINISHED} Outcomes committed" in text
    assert f"# TYPE {FINISHED} counter" in text
    assert FINISHED + '{outcome="dead",queue="mail",task="a \\"b\\"\\n"} 3.0' in text
    assert 'taskmill_tasks_in_flight{queue="mail"} 7.0' in text
    assert 'taskmill_worker_info{version="1.2"} 1.0' in text


def test_a_time_lies_in_the_bucket_that_ends_with_it_and_an_hour_is_not_beyond_all() -> None:
    meter = Meter()
    for seconds in (0.0, 0.001, 0.0011, 3600.0, 3600.1):
        meter.observe(DURATION, "q", "t", seconds=seconds)
    text = page(meter)

    def below(bound: str) -> float:
        line = next(x for x in text.splitlines() if x.startswith(DURATION) and f'"{bound}"' in x)
        return float(line.split()[-1])

    assert [below(x) for x in ("0.001", "0.005", "900.0", "3600.0", "+Inf")] == [2, 3, 3, 4, 5]
    assert f'{DURATION}_count{{queue="q",task="t"}} 5.0' in text
    assert f'{DURATION}_sum{{queue="q",task="t"}} 7200.1021' in text


def test_a_gauge_that_is_no_more_leaves_the_page() -> None:
    meter = Meter()
    meter.set("taskmill_consumer_lag", "t", "0", to=3)
    assert 'partition="0"' in page(meter)
    meter.set("taskmill_consumer_lag", "t", "0", to=math.nan)
    assert 'partition="0"' not in page(meter)
    meter.set("taskmill_consumer_lag", "t", "0", to=4)
    assert '"t"} 4.0' in page(meter)


def test_tasks_beyond_what_is_told_apart_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "MOST_SERIES", 5)
    meter = Meter()
    for number in range(100):
        meter.add(FINISHED, "q", f"t{number}", "dead")
    found = {key[1][1]: cells[0] for key, cells in meter.read().items()}
    assert found == {**{f"t{n}": 1.0 for n in range(5)}, OTHER: 95.0}
    # Those without a task are as many as there are queues and partitions.
    for number in range(20):
        meter.set("taskmill_consumer_lag", "t", str(number), to=1)
    assert len(meter.read()) == 26


def test_what_there_is_no_room_for_is_not_told_and_hurts_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meters, "_KEYS", 200)
    meter = Meter()
    for number in range(50):
        meter.add(FINISHED, "q", f"t{number}", "dead")
        meter.observe(DURATION, "q", f"t{number}", seconds=1)
    assert 0 < len(meter.read()) < 10
    assert all(cells == (1.0,) or sum(cells) == 2 for cells in meter.read().values())


def test_threads_that_count_at_once_lose_nothing() -> None:
    meter = Meter()

    def count() -> None:
        for _ in range(5_000):
            meter.add(FINISHED, "q", "t", "dead")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.read()[FINISHED, ("q", "t", "dead")] == (20_000.0,)


def _count_and_die(fd: int) -> None:
    meter = Meter(fd)
    meter.add(FINISHED, "q", "t", "succeeded", by=41)
    meter.observe(DURATION, "q", "t", seconds=2.0)
    meter.set("taskmill_tasks_in_flight", "q", to=9)
    meter.say({"healthy": None, "ready": "restoring", "port": 0})
    meter.add(FINISHED, "q", "t", "succeeded")
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_has_counted_is_read_after_its_end() -> None:
    fd = shared_memory()
    shared = SharedMeter(fd)
    assert shared.read() == {}
    assert shared.seen_at is None
    assert shared.status() == {}
    child = multiprocessing.get_context("fork").Process(target=_count_and_die, args=(fd,))
    child.start()
    child.join()
    os.close(fd)
    assert child.exitcode == -signal.SIGKILL
    reading = shared.read()
    assert reading[FINISHED, ("q", "t", "succeeded")] == (42.0,)
    assert sum(reading[DURATION, ("q", "t")][:-1]) == 1
    assert shared.status() == {"healthy": None, "ready": "restoring", "port": 0}
    assert shared.seen_at is not None
    assert ("taskmill_tasks_in_flight", ("q",)) in reading
    assert ("taskmill_tasks_in_flight", ("q",)) not in counts_of(reading)
    shared.close()


def test_processes_are_added_up_and_what_is_one_truth_for_all_is_not() -> None:
    one, other = Meter(), Meter()
    for meter, n in ((one, 1), (other, 2)):
        meter.add(FINISHED, "q", "t", "dead", by=n)
        meter.observe(DURATION, "q", "t", seconds=n)
        meter.set("taskmill_tasks_in_flight", "q", to=n)
        meter.set("taskmill_oldest_task_age_seconds", "q", to=n)
        meter.set("taskmill_consumer_lag", "topic", str(n), to=n)
    whole = merged([one.read(), other.read()])
    assert whole[FINISHED, ("q", "t", "dead")] == (3.0,)
    assert whole[DURATION, ("q", "t")][-1] == 3.0
    assert sum(whole[DURATION, ("q", "t")][: len(BUCKETS) + 1]) == 2
    assert whole["taskmill_tasks_in_flight", ("q",)] == (3.0,)
    assert whole["taskmill_oldest_task_age_seconds", ("q",)] == (2.0,)
    assert whole["taskmill_consumer_lag", ("topic", "1")] == (1.0,)
    assert whole["taskmill_consumer_lag", ("topic", "2")] == (2.0,)
