"""Retries through the tiers: as often as the policy says, never early, nothing lost or doubled."""

from __future__ import annotations

import os
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.clocks import AheadClock
from support.queues import Queue
from support.wire import read_state, task_value
from support.workers import WorkerProcess
from taskmill import App
from taskmill.consumer.retry_watch import OVERDUE_MS, RetryWatch
from taskmill.runtime.clock import Clock, SystemClock
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]

PARTITIONS = 2
TIERS = ("100ms", "400ms", "2s")


class Attempt(NamedTuple):
    number: int
    seq: int
    at: int


class Scene(Queue):
    """A queue with quick tiers, its workers and its schedulers."""

    def scheduler(self, *options: str) -> WorkerProcess:
        """Start one, and wait until it serves a tier."""
        one = self.add(*options, target="", role="scheduler")
        one.wait_for("passing on")
        return one

    def attempts(self) -> dict[str, list[Attempt]]:
        found: dict[str, list[Attempt]] = defaultdict(list)
        path = self.folder / "attempts"
        for line in path.read_text().splitlines() if path.exists() else ():
            id, *numbers = line.rsplit(" ", 3)
            found[id].append(Attempt(*map(int, numbers)))
        return found

    def waited(self, tier: str) -> int:
        """How many records a tier's topic has seen."""
        topics = Topics(self.settings.prefix, "default")
        return len(self.oracle.read(topics.retry(tier)))


@pytest.fixture
def scene(settings: Settings, tmp_path: Path) -> Iterator[Scene]:
    with Scene(settings.model_copy(update={"retry_tiers": TIERS}), tmp_path) as one:
        yield one


def test_what_fails_k_times_runs_k_plus_one_times_and_keeps_what_it_saved(scene: Scene) -> None:
    scene.scheduler()
    scene.add().wait_ready(PARTITIONS)
    for k in range(4):
        scene.oracle.put_tasks([f"fails {k}"], "flaky", {"fails": k})
    ids = [f"fails {k}" for k in range(4)]
    ended = scene.oracle.wait_states(ids)
    states = scene.oracle.check(ids)
    for k, id in enumerate(ids):
        assert ended[id.encode()]["status"] == "succeeded"
        assert [a.number for a in scene.attempts()[id]] == list(range(1, k + 2))
        assert [a.seq for a in scene.attempts()[id]] == list(range(k + 1))
        *before, last = [s for s in states[id.encode()] if s["status"] != "running"]
        assert [s["status"] for s in before] == ["retrying"] * k
        assert [(s["attempt"], s["seq"]) for s in before] == [(n + 1, n) for n in range(k)]
        assert [s["error"]["message"] for s in before] == [f"attempt {n + 1}" for n in range(k)]
        assert all(s["next_attempt_at"] >= s["finished_at"] for s in before)
        saved = ",".join(str(n) for n in range(1, k + 2))
        assert last["result"] == f'{{"attempt":{k + 1},"seq":{k},"saved":[{saved}]}}'.encode()
    assert not scene.oracle.letters()


def test_what_always_fails_ends_in_the_dlq_after_the_last_attempt_its_bytes_untouched(
    scene: Scene,
) -> None:
    scene.scheduler()
    scene.add().wait_ready(PARTITIONS)
    value = task_value("always", "flaky", {"fails": 99})
    scene.oracle.put(b"always", value, headers={"x-own": b"kept"})
    twice = task_value("twice", "flaky", {"fails": 99}, max_attempts=2)
    place = scene.oracle.put(b"twice", twice)
    ended = scene.oracle.wait_states(["always", "twice"])
    scene.oracle.check(["always", "twice"])
    assert [s["status"] for s in ended.values()] == ["dead", "dead"]
    assert [len(scene.attempts()[id]) for id in ("always", "twice")] == [4, 2]
    letters = {letter.key: letter for letter in scene.oracle.letters()}
    assert letters[b"always"].value == value
    assert letters[b"twice"].value == twice
    told = letters[b"always"].headers
    assert (told["x-own"], told["taskmill-attempts"]) == (b"kept", b"4")
    assert told["taskmill-error-message"] == b"attempt 4"
    assert int(told["taskmill-first-failure"] or 0) < int(told["taskmill-last-failure"] or 0)
    assert not {"taskmill-attempt", "taskmill-seq", "taskmill-due"} & told.keys()
    assert letters[b"twice"].headers["taskmill-original-offset"] == b"%d" % place.offset


def test_no_attempt_is_early_and_what_a_handler_asked_for_is_not_rounded_up(scene: Scene) -> None:
    scene.scheduler()
    scene.add().wait_ready(PARTITIONS)
    waits = {"": 100, "99ms": 99, "300ms": 300, "4200ms": 4_200}
    for wait in waits:
        scene.oracle.put_tasks([f"waits {wait}"], "flaky", {"fails": 1, "wait": wait})
    ids = [f"waits {wait}" for wait in waits]
    scene.oracle.wait_states(ids)
    scene.oracle.check(ids)
    for wait, least_ms in waits.items():
        first, second = scene.attempts()[f"waits {wait}"]
        assert second.at - first.at >= least_ms, wait
    assert [scene.waited(tier) for tier in TIERS] == [1, 0, 0]


def test_retries_wait_while_no_scheduler_runs_and_two_share_them(scene: Scene) -> None:
    scene.add().wait_ready(PARTITIONS)
    ids = [f"task {n}" for n in range(200)]
    scene.oracle.put_tasks(ids, "flaky", {"fails": 1})
    scene.oracle.wait_consumed()
    assert {len(scene.attempts()[id]) for id in ids} == {1}
    schedulers = [scene.scheduler() for _ in range(2)]
    scene.oracle.wait_states(ids)
    scene.oracle.check(ids)
    assert {len(scene.attempts()[id]) for id in ids} == {2}
    assert [one.terminate() for one in schedulers] == [0, 0]
    assert [scene.waited(tier) for tier in TIERS] == [0, 0, 0], "what was passed on is gone"


def test_a_worker_tells_of_retries_that_nobody_passes_on(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.add().wait_ready(PARTITIONS)
    scene.oracle.put_tasks([f"task {n}" for n in range(30)], "flaky", {"fails": 1})
    scene.oracle.wait_consumed()
    topics = Topics(scene.settings.prefix, "default")

    def told(clock: Clock) -> list[str]:
        caplog.clear()
        RetryWatch(scene.settings, topics, clock).step()
        return [record.message for record in caplog.records if "does a" in record.message]

    in_time, late = SystemClock(), AheadClock(OVERDUE_MS + 10_000)
    assert told(in_time) == []
    (message,) = told(late)
    assert message.startswith("retries of queue default have been due since 20")
    scene.scheduler()
    scene.oracle.wait_states([f"task {n}" for n in range(30)])
    scene.oracle.wait_consumed()
    assert told(late) == []


def test_a_scheduler_killed_amid_many_loses_and_doubles_nothing(scene: Scene) -> None:
    first = scene.scheduler()
    scene.add().wait_ready(PARTITIONS)
    ids = [f"task {n}" for n in range(2_000)]
    scene.oracle.put_tasks(ids, "flaky", {"fails": 2})
    topics = Topics(scene.settings.prefix, "default")
    while len(scene.oracle.read(topics.retry(TIERS[0]))) < 500:
        pass
    first.kill()
    scene.scheduler()
    scene.oracle.wait_states(ids, 60)
    states = scene.oracle.check(ids)
    assert Counter(len(found) for found in scene.attempts().values()) == {3: len(ids)}
    ends = [[s["status"] for s in states[id.encode()] if s["status"] != "running"] for id in ids]
    assert ends == [["retrying", "retrying", "succeeded"]] * len(ids)


def test_a_worker_killed_amid_retries_runs_again_only_what_was_under_way(scene: Scene) -> None:
    scene.scheduler()
    workers = [scene.add(), scene.add()]
    ids = [f"task {n}" for n in range(1_000)]
    scene.oracle.put_tasks(ids, "flaky", {"fails": 2})
    workers[0].wait_ready(1)
    while sum(len(found) for found in scene.attempts().values()) < 1_000:
        pass
    os.killpg(workers[0].pid, signal.SIGKILL)
    scene.oracle.wait_states(ids, 60)
    scene.oracle.check(ids)
    assert all(len(found) >= 3 for found in scene.attempts().values())


def test_short_waits_do_not_queue_behind_long_ones(scene: Scene) -> None:
    scene.scheduler()
    scene.add().wait_ready(PARTITIONS)
    long = [f"long {n}" for n in range(300)]
    scene.oracle.put_tasks(long, "flaky", {"fails": 1, "wait": "1h"})
    scene.oracle.wait_consumed()
    scene.oracle.put_tasks(["short"], "flaky", {"fails": 1, "wait": "50ms"})
    assert scene.oracle.wait_state("short")["status"] == "succeeded"
    assert {s["status"] for id in long for s in scene.oracle.states()[id.encode()]} <= {
        "running",
        "retrying",
    }


def test_a_handle_shows_that_a_task_is_to_be_tried_again(scene: Scene) -> None:
    scene.add().wait_ready(PARTITIONS)
    scene.oracle.put_tasks(["one"], "flaky", {"fails": 1})
    scene.oracle.wait_consumed()
    with App("shop", scene.settings) as app:
        state = app.handle("one").state()
        assert state is not None
        assert (state.status, state.attempt) == ("retrying", 1)
        assert state.error is not None
        assert state.error.message == "attempt 1"
    # A slow machine may have told "running" first.
    last = scene.oracle.read(scene.oracle.state)[-1]
    assert read_state(last.value or b"")["saved"] == b"[1]"


def test_a_scheduler_waits_for_a_broker_and_ends_when_told(
    settings: Settings, tmp_path: Path
) -> None:
    away = settings.model_copy(update={"bootstrap_servers": "127.0.0.1:9"})
    with WorkerProcess(away, tmp_path, target="", role="scheduler") as one:
        one.wait_for("did not answer within .*; looking again every 2 s")
        assert one.terminate() == 0
