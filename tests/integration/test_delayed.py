"""Delayed tasks: at their time or later, never before it, once, whatever becomes of schedulers."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from support.proof import fresh_seeds
from support.queues import Queue
from support.wire import read_state, task_value
from support.workers import WorkerProcess
from taskmill import App
from taskmill.consumer.delayed import DelayedKey
from taskmill.runtime.config import Settings
from taskmill.runtime.topic_table import Kind
from taskmill.runtime.topics import Topics, ensure

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]

PARTITIONS = 2


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Scene(Queue):
    """A queue, its workers and its schedulers."""

    def scheduler(self, *options: str, **process: object) -> WorkerProcess:
        """Start one, and wait until it is at work."""
        one = self.add(*options, target="", role="scheduler", **process)
        one.wait_for("scheduler: slot")
        return one

    @property
    def topics(self) -> Topics:
        return Topics(self.settings.prefix, "default")

    def began(self) -> dict[str, list[int]]:
        """When each attempt of each ID began, by the machine's clock."""
        found: dict[str, list[int]] = defaultdict(list)
        path = self.folder / "attempts"
        for line in path.read_text().splitlines() if path.exists() else ():
            id, _, _, at = line.rsplit(" ", 3)
            found[id].append(int(at))
        return found

    def put_delayed(self, due: dict[str, int]) -> None:
        for id, at in due.items():
            self.oracle.put(id.encode(), task_value(id, "flaky", {"fails": 0}, not_before=at))

    def check_times(self, due: dict[str, int]) -> None:
        """Each ran once, and not before its time."""
        began = self.began()
        assert began.keys() == due.keys()
        for id, at in due.items():
            (ran,) = began[id]
            assert ran >= at, id


@pytest.fixture
def scene(settings: Settings, tmp_path: Path) -> Iterator[Scene]:
    with Scene(settings, tmp_path) as one:
        yield one


def test_a_task_of_any_client_waits_for_its_time_and_runs_once(scene: Scene) -> None:
    scene.scheduler()
    scene.add().wait_ready(PARTITIONS)
    (seed,) = fresh_seeds("delayed", 1)
    print("seed", seed)
    random, start = Random(seed), now_ms()
    due = {f"task {n}": start + random.randrange(0, 3_000) for n in range(60)}
    scene.put_delayed(due)
    scene.put_delayed(due)  # twins: duplicates, whatever has become of the first
    ended = scene.oracle.wait_states(due)
    scene.oracle.wait_consumed()
    states = scene.oracle.check(due)
    scene.check_times(due)
    for id, at in due.items():
        waits = [s for s in states[id.encode()] if s["status"] == "scheduled"]
        assert [(s["seq"], s["next_attempt_at"]) for s in waits] in ([], [(0, at)])
        assert ended[id.encode()]["seq"] == len(waits)
    live = {record.key: record.value for record in scene.oracle.read(scene.topics.delayed)}
    assert set(live.values()) == {None}, "what was passed on is deleted from where it waited"


def test_options_say_when_and_the_state_says_that_it_waits(scene: Scene) -> None:
    scene.scheduler()
    scene.add().wait_ready(PARTITIONS)
    with App("test", scene.settings) as app:

        @app.task
        async def flaky(fails: int) -> object: ...

        before = now_ms()
        later = flaky.options(id="later", delay="1s").enqueue(fails=0)
        scene.oracle.wait_consumed()
        assert later.status().value == "scheduled"
        past = flaky.options(id="past", at="2020-01-01T00:00Z").enqueue(fails=0)
        assert past.result(timeout=30)
        assert later.result(timeout=30)
    assert scene.began()["later"][0] >= before + 1_000


def test_an_exact_retry_comes_at_its_time_and_goes_through_no_tier(scene: Scene) -> None:
    scene.scheduler()
    scene.add().wait_ready(PARTITIONS)
    scene.oracle.put_tasks(["exact"], "flaky", {"fails": 2, "wait": "1500ms"})
    scene.oracle.wait_state("exact")
    states = scene.oracle.check(["exact"])[b"exact"]
    began = scene.began()["exact"]
    assert len(began) == 3
    for state, at in zip([s for s in states if s["status"] == "retrying"], began[1:], strict=True):
        assert state["next_attempt_at"] == state["finished_at"] + 1_500 <= at
    assert states[-1]["result"].endswith(b'"saved":[1,2,3]}')
    retry = scene.topics.retry("10s")
    assert not scene.oracle.read(retry)


def test_what_is_passed_on_too_early_comes_back(scene: Scene) -> None:
    """As by a scheduler whose clock is ahead, or in the steps of a wait of weeks."""
    ensure(scene.settings, "default", [Kind.DELAYED])
    scene.scheduler()
    scene.add().wait_ready(PARTITIONS)
    due = {"early": now_ms() + 3_000}
    key = DelayedKey(now_ms(), b"early", 0, 1).pack()
    told = {"taskmill-seq": b"1", "taskmill-not-before": b"%d" % due["early"]}
    value = task_value("early", "flaky", {"fails": 0})
    scene.oracle.put(key, value, headers=told, topic=scene.topics.delayed)
    ended = scene.oracle.wait_state("early")
    scene.check_times(due)
    states = [read_state(r.value) for r in scene.oracle.read(scene.topics.state) if r.value]
    (wait,) = [s for s in states if s["status"] == "scheduled"]
    assert (wait["seq"], wait["next_attempt_at"]) == (1, due["early"])
    assert ended["seq"] == 2


def test_what_waits_is_kept_while_nobody_passes_it_on_and_two_share_it(scene: Scene) -> None:
    scene.add().wait_ready(PARTITIONS)
    start = now_ms()
    due = {f"task {n}": start + 10 * n for n in range(300)}
    scene.put_delayed(due)
    scene.oracle.wait_states([], timeout_s=1)
    scene.oracle.wait_consumed()
    waiting = {r.key for r in scene.oracle.read(scene.topics.delayed)}
    assert waiting
    assert {DelayedKey.unpack(key or b"").seq for key in waiting} == {1}
    schedulers = [scene.scheduler() for _ in range(2)]
    for one in schedulers:
        one.wait_for(r"restored \S+delayed\S+ \[")
    scene.oracle.wait_states(due)
    scene.oracle.check(due)
    scene.check_times(due)
    assert [one.terminate() for one in schedulers] == [0, 0]


def test_a_scheduler_that_comes_back_reads_what_changed_meanwhile(scene: Scene) -> None:
    scene.add().wait_ready(PARTITIONS)
    first = scene.scheduler()
    far = {f"far {n}": now_ms() + 3_600_000 for n in range(20)}
    scene.put_delayed(far)
    first.wait_for(r"restored \S+delayed\S+ \[", times=PARTITIONS)
    scene.put_delayed({"soon": now_ms()})
    scene.oracle.wait_state("soon")
    assert first.terminate() == 0
    near = {f"near {n}": now_ms() + 100 for n in range(20)}
    scene.put_delayed(near)
    scene.oracle.wait_consumed()
    again = scene.scheduler()
    again.wait_for(r"restored \S+delayed\S+ \[", times=PARTITIONS)
    assert "rebuilt" not in again.log
    scene.oracle.wait_states(near)
    assert scene.began().keys() == {"soon", *near}
