"""Tasks that last: running states, what they save and enqueue, at most once, and crash loops."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.oracle import Oracle
from support.queues import Queue
from support.wire import read_task
from support.witness import Witness
from support.workers import WorkerProcess, runs
from taskmill.runtime.config import Settings
from taskmill.schemas.states import Status, check_transition

pytestmark = pytest.mark.kafka

LASTING = "support.lasting:app"


class Scene(Queue):
    """A queue, a witness of its states, and workers of the lasting App."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.witness = Witness(self.oracle.bootstrap, [self.oracle.state])

    def start(self, *options: str, **changed: Any) -> WorkerProcess:
        settings = Settings(**{**self.settings.model_dump(), **changed})
        return self.add("-q", "default", *options, settings=settings, target=LASTING)

    def wait_running(self, id: str, **fields: Any) -> dict[str, Any]:
        """Wait for a running state of `id` with these fields."""
        key, found = id.encode(), []

        def there() -> bool:
            found[:] = [
                state
                for state in self.witness.states[key]
                if state["status"] == "running"
                and all(state[name] == value for name, value in fields.items())
            ]
            return bool(found)

        self.witness.until(there, lambda: f"{fields} in {self.witness.states[key]}", 40)
        return dict(found[-1])

    def wait_ended(self, *ids: str, timeout_s: float = 60.0) -> list[dict[str, Any]]:
        """Wait for the ends of `ids`; all states of each have followed one another legally."""
        keys = [id.encode() for id in ids]
        self.witness.until(
            lambda: self.witness.ended.issuperset(keys),
            lambda: f"ends of {ids}: {[self.witness.states[key] for key in keys]}",
            timeout_s,
        )
        for key in keys:
            before = None
            for state in self.witness.states[key]:
                check_transition(before, Status(state["status"]))
                before = Status(state["status"])
        return [self.witness.states[key][-1] for key in keys]

    def close(self) -> None:
        self.witness.close()
        super().close()


@pytest.fixture
def scene(settings: Settings, tmp_path: Path) -> Iterator[Scene]:
    with Scene(settings, tmp_path) as one:
        yield one


def reasons(scene: Scene) -> dict[str, str]:
    """The reason of each dead letter, by ID."""
    return {
        (letter.key or b"").decode(): letter.headers["taskmill-reason"].decode()
        for letter in scene.oracle.letters()
    }


# ---- running states ---------------------------------------------------------------------------


def test_a_task_that_lasts_has_a_running_state_and_a_short_one_has_none(scene: Scene) -> None:
    scene.start()
    scene.oracle.put_tasks(["long"], "lasts", {"seconds": 2.5})
    scene.oracle.put_tasks(["short"], "lasts", {"seconds": 0.1})
    state = scene.wait_running("long")
    assert state["started_at"] >= state["enqueued_at"]
    assert state["finished_at"] is None
    (end, _) = scene.wait_ended("long", "short")
    assert end["started_at"] == state["started_at"]
    assert [s["status"] for s in scene.witness.states[b"short"]] == ["succeeded"]
    assert [s["status"] for s in scene.witness.states[b"long"]] == ["running", "succeeded"]


@pytest.mark.timeout(90)
def test_a_handler_outlasts_the_poll_interval_and_the_transaction_timeout(scene: Scene) -> None:
    """Transactions time out after 10 s, and the consumer is to poll every 7 s."""
    worker = scene.start(group_protocol="classic", kafka={"max.poll.interval.ms": "7000"})
    scene.oracle.put_tasks(["long"], "lasts", {"seconds": 13})
    (end,) = scene.wait_ended("long")
    assert end["status"] == "succeeded"
    assert end["finished_at"] - end["started_at"] >= 13_000
    assert runs(scene.folder) == ["long"]
    assert worker.log.count("assigned") == 1


def test_the_state_of_a_long_task_is_written_again_before_it_is_forgotten(scene: Scene) -> None:
    """A quarter of the window, a minute here, goes by."""
    scene.start(dedup_window_ms=60_000)
    scene.oracle.put_tasks(["long"], "lasts", {"seconds": 18})
    scene.wait_ended("long")
    statuses = [s["status"] for s in scene.witness.states[b"long"]]
    assert statuses == ["running", "running", "succeeded"]


def test_a_large_result_is_deleted_once_it_has_outlived_its_time(scene: Scene) -> None:
    scene.start()
    scene.oracle.put_tasks(["large"], "brief", {"size": 3000})
    scene.oracle.put_tasks(["small"], "brief", {"size": 30})
    scene.wait_ended("large", "small")
    with Witness(scene.oracle.bootstrap, [scene.oracle.results]) as witness:
        results = witness.seen[scene.oracle.results]
        witness.until(lambda: len(results) == 2, "the result and its deletion")
    assert [(r.key, r.value is None) for r in results] == [(b"large", False), (b"large", True)]


# ---- save -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pages", "pages_apart"])
def test_what_a_handler_saved_is_there_after_its_worker_was_killed(scene: Scene, name: str) -> None:
    worker = scene.start()
    scene.oracle.put_tasks(["book"], name, {"total": 9, "stop_at": 4})
    scene.wait_running("book", saved=b"4")
    worker.kill()
    scene.start()
    (end,) = scene.wait_ended("book")
    assert json.loads(end["result"]) == {"from": 4, "saved": 9}


def test_what_cannot_be_saved_is_the_handler_s_error_and_nothing_else_s(scene: Scene) -> None:
    scene.start()
    scene.oracle.put_tasks(["fits"], "saves", {"size": 16_000})
    scene.oracle.put_tasks(["large"], "saves", {"size": 17_000})
    fits, large = scene.wait_ended("fits", "large")
    assert fits["status"] == "succeeded"
    assert large["error"]["type"].endswith("PayloadTooLarge")
    assert "17002 bytes; the limit is 16384" in large["error"]["message"]


# ---- enqueue ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spawns", "spawns_apart"])
def test_children_are_sent_with_their_parent_s_success(scene: Scene, name: str) -> None:
    scene.start()
    scene.oracle.put_tasks(["parent"], name, {"count": 30})
    ends = scene.wait_ended("parent", *(f"parent/{n}" for n in range(30)))
    assert {end["status"] for end in ends} == {"succeeded"}
    tasks = [read_task(r.value or b"") for r in scene.oracle.read(scene.oracle.tasks)]
    assert {t["parent_id"] for t in tasks if t["id"] != "parent"} == {"parent"}
    assert Counter(t["id"] for t in tasks).most_common(1)[0][1] == 1
    if name == "spawns":
        other = Oracle(scene.oracle.bootstrap, scene.settings.prefix, "other")
        (away,) = (read_task(r.value or b"") for r in other.read(other.tasks))
        assert (away["id"], away["name"]) == ("parent/other", "elsewhere")


def test_children_of_a_handler_that_fails_are_never_sent(scene: Scene) -> None:
    scene.start()
    scene.oracle.put_tasks(["parent"], "spawns", {"count": 3, "fail": True})
    (end,) = scene.wait_ended("parent")
    assert end["status"] == "dead"
    assert [r.key for r in scene.oracle.read(scene.oracle.tasks)] == [b"parent"]


# ---- at most once -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["once", "once_in_thread"])
def test_an_at_most_once_task_never_starts_again_and_is_never_lost(scene: Scene, name: str) -> None:
    worker = scene.start()
    scene.oracle.put_tasks(["quick"], name)
    scene.oracle.put_tasks(["slow"], name, {"seconds": 600})
    scene.wait_running("slow")
    scene.wait_ended("quick")
    worker.kill()
    scene.start()
    (end,) = scene.wait_ended("slow")
    assert end["status"] == "dead"
    assert reasons(scene) == {"slow": "abandoned"}
    assert sorted(runs(scene.folder)) == ["quick", "slow"]


def test_its_running_mark_is_committed_before_it_starts(scene: Scene) -> None:
    scene.start()
    ids = [f"t{n}" for n in range(200)]
    scene.oracle.put_tasks(ids, "once")
    scene.wait_ended(*ids)
    for id in ids:
        assert [s["status"] for s in scene.witness.states[id.encode()]] == ["running", "succeeded"]
    assert Counter(runs(scene.folder)) == Counter(ids)


def test_a_drain_abandons_none(scene: Scene) -> None:
    """What waits for its mark is left; what has it is run, though nothing else is started."""
    ids = [f"t{n}" for n in range(600)]
    scene.oracle.put_tasks(ids, "once", {"seconds": 0.05})
    worker = scene.start("--concurrency", "5")
    scene.witness.until(lambda: len(scene.witness.ended) > 20, "some ends")
    assert worker.terminate() == 0, worker.log
    scene.start("--concurrency", "300")
    scene.wait_ended(*ids)
    assert reasons(scene) == {}
    assert Counter(runs(scene.folder)) == Counter(ids)


# ---- crash loops ------------------------------------------------------------------------------


@pytest.mark.kill
@pytest.mark.timeout(180)
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_task_that_kills_its_worker_three_times_is_dead_lettered(
    scene: Scene, protocol: str
) -> None:
    before, after = [f"a{n}" for n in range(20)], [f"b{n}" for n in range(20)]
    scene.oracle.put_tasks(before, "lasts", {"seconds": 0.3})
    scene.oracle.put_tasks(["killer"], "kills")
    scene.oracle.put_tasks(after, "lasts", {"seconds": 0.3})
    for _ in range(3):
        worker = scene.start(group_protocol=protocol)
        assert worker.wait(60) == -signal.SIGKILL
    scene.start(group_protocol=protocol)
    (end, *others) = scene.wait_ended("killer", *before, *after)
    assert end["status"] == "dead"
    assert {other["status"] for other in others} == {"succeeded"}
    assert reasons(scene) == {"killer": "crash_loop"}
    assert runs(scene.folder).count("killer") == 3


@pytest.mark.kill
def test_ends_in_order_blame_nobody(scene: Scene) -> None:
    """A task that outlasts three workers which stop on purpose has killed none of them."""
    scene.oracle.put_tasks(["long"], "lasts", {"seconds": 30})
    for turn in range(1, 5):
        worker = scene.start("--drain-timeout", "0.1s")
        worker.wait_ready(scene.settings.partitions)
        scene.witness.until(lambda turn=turn: runs(scene.folder).count("long") >= turn, "a start")
        if turn == 1:
            scene.wait_running("long")
        assert worker.terminate() == 1
        assert "ended without a word" not in worker.log
    assert reasons(scene) == {}
