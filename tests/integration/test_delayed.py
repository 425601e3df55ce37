"""Delayed tasks: at their time or later, never before it, once, whatever becomes of schedulers."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from support.brokers import PrivateBroker
from support.faketime import SteppedClock
from support.proof import fresh_seeds
from support.queues import Queue
from support.wire import NOW_MS, read_state, task_value
from support.workers import WorkerProcess
from taskmill import App
from taskmill.consumer.delayed import DelayedKey
from taskmill.consumer.retry_watch import RetryWatch
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError, InvalidInput
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

    def wait_stamped_before(self, at_ms: int) -> None:
        """Until the broker stamps what it takes with times before that."""
        for number in range(100):
            place = self.oracle.put(b"probe %d" % number, b"no task", 0)
            seen = self.oracle.read(self.topics.tasks)
            if any(one.timestamp < at_ms for one in seen if one.offset == place.offset):
                return
            time.sleep(0.1)
        raise AssertionError("the broker's clock was not set back")

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


def test_what_waits_is_kept_while_nobody_passes_it_on_and_two_share_it(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.add().wait_ready(PARTITIONS)
    start = now_ms()
    due = {f"task {n}": start + 10 * n for n in range(300)}
    scene.put_delayed(due)
    scene.oracle.wait_states([], timeout_s=1)
    scene.oracle.wait_consumed()
    waiting = {r.key for r in scene.oracle.read(scene.topics.delayed)}
    assert waiting
    assert {DelayedKey.unpack(key or b"").seq for key in waiting} == {1}
    watch = RetryWatch(scene.settings, scene.topics, SYSTEM_CLOCK)
    watch.step()
    (message,) = [record.message for record in caplog.records if "does a" in record.message]
    assert message.startswith("delayed tasks of queue default are not passed on: does a `taskmill")
    schedulers = [scene.scheduler() for _ in range(2)]
    for one in schedulers:
        one.wait_for(r"restored \S+delayed\S+ \[")
    caplog.clear()
    watch.step()
    assert not caplog.records
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


def test_what_a_dead_owner_has_left_open_holds_nothing_up(scene: Scene) -> None:
    ensure(scene.settings, "default", [Kind.DELAYED])
    topic, prefix = scene.topics.delayed, scene.settings.prefix
    bootstrap = scene.oracle.bootstrap
    dead = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": f"{prefix}.dead",
            # Far beyond the time in which the test waits for the restore.
            "transaction.timeout.ms": 300_000,
        }
    )
    member = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{prefix}.delayed"})
    dead.init_transactions(30)
    dead.begin_transaction()
    owned = [
        TopicPartition(topic, p, 0, f"{scene.settings.prefix}.dead") for p in range(PARTITIONS)
    ]
    dead.send_offsets_to_transaction(owned, member.consumer_group_metadata(), 30)
    dead.commit_transaction(30)
    dead.begin_transaction()
    for p in range(PARTITIONS):
        dead.produce(topic, b"what is not committed", b"0000000000000/gone/0/1", p)
    dead.send_offsets_to_transaction(owned, member.consumer_group_metadata(), 30)
    dead.flush(30)
    member.close()
    scheduler = scene.scheduler()
    scheduler.wait_for(r"restored \S+delayed\S+ \[", times=PARTITIONS)
    assert "ending what" in scheduler.log


def test_what_is_scheduled_can_have_another_time_or_none(scene: Scene) -> None:
    scene.scheduler()
    scene.add().wait_ready(PARTITIONS)
    start = now_ms()
    hour, soon = start + 3_600_000, start + 4_000
    scene.put_delayed({"earlier": hour, "later": soon, "never": soon, "last": soon})
    scene.oracle.wait_consumed()
    with App("test", scene.settings) as app:
        app.handle("earlier").reschedule(at=datetime.now(UTC))
        app.handle("later").reschedule(delay="1h")
        app.handle("never").cancel()
        scene.oracle.wait_states(["earlier", "never", "last"])
        assert scene.began().keys() == {"earlier", "last"}
        state = app.handle("later").state()
        assert state is not None
        assert state.status.value == "scheduled"
        assert (state.next_attempt_at or 0) > start + 3_500_000
        assert (state.name, state.enqueued_at) == ("flaky", NOW_MS)
        # Moved once more, from a time that it was moved to.
        app.handle("later").reschedule(at="2020-01-01T00:00Z")
        scene.oracle.wait_state("later")
        with pytest.raises(InvalidInput, match=r"'later' is succeeded: only one that is scheduled"):
            app.handle("later").reschedule(delay="1h")
        with pytest.raises(ConfigError, match=r"^reschedule needs delay=… or at=…$"):
            app.handle("later").reschedule()
    scene.oracle.check(["earlier", "never", "last", "later"])
    assert len(scene.began()["later"]) == 1


def test_nothing_is_early_when_clocks_step(
    private_broker: Callable[..., PrivateBroker], tmp_path: Path
) -> None:
    """The scheduler's and the worker's are an hour ahead of the broker's, suddenly.

    librdkafka hangs under libfaketime; so it is the broker's clock that is set back.
    """
    clock = SteppedClock(tmp_path)
    broker = private_broker(env=clock.environment)
    settings = Settings(
        bootstrap_servers=broker.bootstrap,
        prefix="t",
        partitions=PARTITIONS,
        state_dir=tmp_path / "state",
    )
    with Scene(settings, tmp_path) as scene:
        ensure(settings, "default", [Kind.DELAYED])
        scene.scheduler().wait_for(r"restored \S+delayed\S+ \[", times=PARTITIONS)
        scene.add().wait_ready(PARTITIONS)
        step_ms = -3_600_000
        clock.step(step_ms // 1_000)
        scene.wait_stamped_before(now_ms() + step_ms // 2)
        start = now_ms() + step_ms
        due = {f"task {n}": start + 2_000 + 100 * n for n in range(20)}
        scene.put_delayed(due)
        states = scene.oracle.wait_states(due)
        began = [r for r in scene.oracle.read(scene.topics.tasks) if r.key == b"task 19"]
        for record in scene.oracle.read(scene.topics.state):
            state = read_state(record.value or b"")
            if state["status"] == "succeeded":
                assert record.timestamp >= due[state["id"]], state["id"]
        # What was passed on too early came back once, not again and again.
        assert max(state["seq"] for state in states.values()) <= 3
        assert began[-1].timestamp >= due["task 19"] > began[0].timestamp
