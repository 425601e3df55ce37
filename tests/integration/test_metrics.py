"""Metrics of a real run agree with what a plain consumer counts on the topics."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.brokers import PrivateBroker, quiet_port
from support.oracle import Put
from support.queues import Queue
from support.scraped import Scraped
from support.wire import task_value
from support.workers import Gate, WorkerProcess
from taskmill import App
from taskmill.runtime.config import Settings

pytestmark = pytest.mark.kafka

PARTITIONS = 4
FINISHED, DURATION = "taskmill_tasks_finished_total", "taskmill_task_duration_seconds"


@pytest.fixture
def port() -> int:
    return quiet_port()


@pytest.fixture
def queue(settings: Settings, tmp_path: Path, port: int) -> Iterator[Queue]:
    changed = {"partitions": PARTITIONS, "metrics_port": port}
    with Queue(Settings(**{**settings.model_dump(), **changed}), tmp_path) as one:
        yield one


def statuses(queue: Queue) -> Counter[str]:
    """How many states of each status lie on the topic."""
    return Counter(s["status"] for found in queue.oracle.states().values() for s in found)


def agree(page: Scraped, queue: Queue) -> None:
    """Each outcome that the page counts lies on `state`, and each there is counted."""
    told = statuses(queue)
    for outcome in ("succeeded", "dead", "retrying", "cancelled", "expired"):
        assert page.total(FINISHED, outcome=outcome) == told[outcome], outcome
    assert page.total("taskmill_dead_letters_total") == len(queue.oracle.letters())


def until_idle(page: Scraped, ids: int) -> None:
    """Until the gauges, which are looked at once a second, know of so many IDs and no lag."""

    def is_idle(page: Scraped) -> bool:
        return (
            page.total("taskmill_idempotency_entries") == ids
            and len(page.labels("taskmill_consumer_lag", "partition")) == PARTITIONS
            and page.total("taskmill_consumer_lag") == 0
        )

    page.until(is_idle, f"lag of 0 and {ids} IDs")


def test_a_worker_counts_what_lies_on_the_topics_and_is_idle_in_the_end(
    queue: Queue, port: int
) -> None:
    queue.add().wait_ready(PARTITIONS)
    page = Scraped(port)
    page.until_probe("/readyz", 200)
    assert page.probe("/healthz") == (200, "ok")
    ids = [f"t{n}" for n in range(300)]
    queue.oracle.put_tasks(ids, "noop")
    queue.oracle.put_tasks(ids[:50], "noop")
    queue.oracle.put_tasks(["f1", "f2"], "fails", {"message": "no"})
    queue.oracle.put_tasks(["a", "b", "c"], "nobody-declares-this")
    queue.oracle.put(b"g", b"garbage")
    queue.oracle.wait_states([*ids, "f1", "f2", "a", "b", "c"])
    queue.oracle.wait_consumed()
    until_idle(page, 306)
    agree(page, queue)
    assert page.total("taskmill_duplicates_total") == 50
    assert page.total("taskmill_dead_letters_total", reason="undecodable") == 1
    ended = {dict(k[1])["task"] for k, v in page.values.items() if k[0] == FINISHED and v}
    assert ended == {"noop", "fails", "(unknown)"}
    assert page.total(f"{DURATION}_count", task="noop") == 300
    assert page.total("taskmill_task_wait_seconds_count", task="noop") == 300
    assert page.total("taskmill_partitions_owned") == PARTITIONS
    assert page.total("taskmill_restore_seconds_count") == PARTITIONS
    assert page.total("taskmill_commit_seconds_count") > 0
    assert page.total("taskmill_oldest_task_age_seconds") == 0
    assert page.total("taskmill_tasks_in_flight") == 0
    assert page.total("taskmill_worker_info") == 1


def test_what_a_worker_and_an_app_enqueue_is_counted_once(
    queue: Queue, port: int, tmp_path: Path
) -> None:
    (tmp_path / "parents.py").write_text(
        "from taskmill import App, Context\n"
        "app = App('parents')\n"
        "@app.task\n"
        "async def child(n: int) -> None: ...\n"
        "@app.task\n"
        "async def parent(ctx: Context) -> None:\n"
        "    ctx.enqueue(*(child.call(n=n) for n in range(3)))\n"
        "    await child.aenqueue(n=9)\n"
    )
    queue.add(target="parents:app").wait_ready(PARTITIONS)
    with App("shop", queue.settings) as app:
        app.enqueue_many([app.call("parent", {}, declared=False) for _ in range(5)])
        app.enqueue("parent", {}, declared=False)
        mine = list(app.metrics.collect())
    assert [(s.labels["task"], s.value) for s in mine[0].samples if s.name.endswith("_total")] == [
        ("parent", 6.0)
    ]
    page = Scraped(port).until(
        lambda page: page.total(FINISHED, task="child") == 24, "24 children done"
    )
    # Children are enqueued in transactions, which leave markers.
    until_idle(page, 30)
    assert page.total("taskmill_tasks_enqueued_total", task="child") == 24
    agree(page, queue)


def test_lag_and_age_tell_of_what_waits(queue: Queue, port: int) -> None:
    with Gate() as gate:
        queue.add("--concurrency", "2", env=gate.env).wait_ready(PARTITIONS)
        ids = [f"t{n}" for n in range(20)]
        queue.oracle.put_tasks(ids, "gated")
        gate.wait_count(2)
        page = Scraped(port).until(
            lambda page: page.total("taskmill_oldest_task_age_seconds") > 0.5, "age"
        )
        page.until(lambda page: page.total("taskmill_consumer_lag") == 20, "lag of 20")
        assert page.total("taskmill_tasks_in_flight") == 20
        gate.open()
        until_idle(page, 20)
        page.until(lambda page: page.total("taskmill_oldest_task_age_seconds") == 0, "no age")


def test_a_worker_is_not_ready_while_the_broker_is_away_and_lives_on(tmp_path: Path) -> None:
    port = quiet_port()
    broker = PrivateBroker()
    try:
        settings = Settings(
            bootstrap_servers=broker.start(),
            prefix="away",
            state_dir=tmp_path / "state",
            partitions=2,
            metrics_port=port,
        )
        with WorkerProcess(settings, tmp_path) as worker:
            page = Scraped(port)
            worker.wait_ready(2)
            page.until_probe("/readyz", 200)
            broker.kill()
            assert "does not answer" in page.until_probe("/readyz", 503)
            assert page.probe("/healthz") == (200, "ok")
            broker.start()
            page.until_probe("/readyz", 200, timeout_s=60)
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
    finally:
        broker.remove()


# ---- --processes --------------------------------------------------------------------------------


def workers_of(supervisor: WorkerProcess) -> dict[int, int]:
    """The pid of the newest worker in each slot."""
    lines = re.findall(r"\[slot (\d+)\] .* pid (\d+)$", supervisor.log, re.MULTILINE)
    return {int(slot): int(pid) for slot, pid in lines}


def test_one_page_counts_all_workers_and_a_killed_ones_too(queue: Queue, port: int) -> None:
    with Gate() as gate:
        supervisor = queue.add("--processes", "2", env=gate.env)
        page = Scraped(supervisor.wait_for(rf"metrics on port ({port}),")[1])
        page.until_probe("/readyz", 200, timeout_s=60)
        assert page.probe("/healthz") == (200, "ok")
        page.until(
            lambda page: page.total("taskmill_partitions_owned") == PARTITIONS, "all partitions"
        )
        assert page.total("taskmill_worker_processes") == 2
        ids = [f"t{n}" for n in range(400)]
        queue.oracle.put_tasks(ids, "noop")
        queue.oracle.put_tasks(ids[:40], "noop")
        queue.oracle.put_tasks(["f1", "f2", "f3"], "fails", {"message": "no"})
        queue.oracle.wait_states([*ids, "f1", "f2", "f3"])
        queue.oracle.wait_consumed()
        until_idle(page, len(ids) + 3)
        agree(page, queue)
        before = dict(page.values)
        # Nothing is under way but handlers: what is counted is committed, and the other way round.
        gated = [f"g{n}" for n in range(8)]
        queue.oracle.put_tasks(gated, "gated")
        gate.wait_begun(*gated)
        victim = workers_of(supervisor)[0]
        os.kill(victim, signal.SIGKILL)
        supervisor.wait_for(rf"\(pid {victim}\) ended with signal SIGKILL")
        page.until(lambda page: page.total("taskmill_worker_restarts_total") == 1, "a restart")
        for (name, labels), value in before.items():
            if name.endswith(("_total", "_count", "_sum", "_bucket")):
                assert page.values[name, labels] >= value, f"{name} {labels} has gone back"
        page.until_probe("/readyz", 200, timeout_s=60)
        gate.open()
        more = [f"m{n}" for n in range(200)]
        queue.oracle.put_all(Put(i.encode(), task_value(i, "noop")) for i in more)
        queue.oracle.wait_states([*gated, *more])
        queue.oracle.wait_consumed()
        until_idle(page, len(ids) + 3 + len(gated) + len(more))
        agree(page, queue)
        assert page.total("taskmill_duplicates_total") == 40
        assert page.total(f"{DURATION}_count", task="gated") == len(gated)
        assert page.total("taskmill_worker_processes") == 2
        assert supervisor.terminate() == 0, supervisor.log


def test_a_port_that_the_app_alone_knows_is_served_by_the_supervisor(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(
        "from taskmill import App\napp = App('own', metrics_port=0)\n"
        "@app.task\nasync def noop() -> None: ...\n"
    )
    with Queue(settings, tmp_path) as queue:
        supervisor = queue.add("--processes", "2", target="own:app")
        page = Scraped(supervisor.wait_for(r"metrics on port (\d+),")[1])
        page.until_probe("/readyz", 200, timeout_s=60)
        assert page.fetch().total("taskmill_worker_info") == 1
        assert len([x for x in supervisor.lines if "metrics on port" in x]) == 1
