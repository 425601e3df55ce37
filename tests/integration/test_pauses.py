"""Paused queues: nothing of them is begun, whatever becomes of their workers; nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import Command, set_environment
from support.queues import Queue
from support.workers import Gate, WorkerProcess
from taskmill.runtime.config import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]

PARTITIONS = 2
PAUSED, ON = "queue default is paused", "queue default goes on"


@pytest.fixture
def queue(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    set_environment(settings, monkeypatch)
    with Queue(settings, tmp_path) as one:
        yield one


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate() as one:
        yield one


def waiting(command: Command) -> int:
    (one,) = command("queues", "list", "default", "--json").json["queues"]
    assert one["lag_is_exact"]
    return int(one["lag"])


def check_once(queue: Queue, gate: Gate, ids: list[str]) -> None:
    """Each of `ids` ends, and its handler was begun once."""
    queue.oracle.wait_states(ids)
    queue.oracle.check(ids)
    assert sorted(gate.begun) == sorted(ids)


def started(queue: Queue, gate: Gate, *options: str) -> WorkerProcess:
    return queue.add(*options, env=gate.env).wait_ready(PARTITIONS)


@pytest.mark.parametrize("name", ["gated", "gated_thread", "gated_process"])
def test_what_runs_ends_and_nothing_else_is_begun_until_it_goes_on(
    queue: Queue, gate: Gate, command: Command, name: str
) -> None:
    worker = started(queue, gate, "--concurrency", "1")
    ids = [f"t{n}" for n in range(12)]
    queue.oracle.put_tasks(ids, name)
    first = gate.wait_count(1)
    assert command("queues", "pause", "--json").json == {"paused": ["default"]}
    worker.wait_for(PAUSED)
    gate.open()
    # What has begun is committed, and what was taken and has not begun is not.
    queue.oracle.wait_states(first)
    assert waiting(command) >= 11
    more = [f"u{n}" for n in range(5)]
    queue.oracle.put_tasks(more, name)
    assert waiting(command) >= 11
    assert sorted(gate.begun) == sorted(first)
    assert command("queues", "resume", "--json").json == {"resumed": ["default"]}
    worker.wait_for(ON)
    check_once(queue, gate, ids + more)
    assert waiting(command) == 0
    assert worker.terminate() == 0


def test_a_pause_outlasts_workers_and_holds_through_rebalances(
    queue: Queue, gate: Gate, command: Command
) -> None:
    gate.open()
    command("queues", "pause")
    ids = [f"t{n}" for n in range(20)]
    queue.oracle.put_tasks(ids, "gated")
    first = started(queue, gate)
    first.wait_for(PAUSED)
    assert first.terminate() == 0
    second = started(queue, gate)
    third = queue.add(env=gate.env)
    third.wait_for(PAUSED)
    # Each has one of the two partitions now.
    second.wait_for(r"revoked \[\d\]|assigned \[\d\], new")
    third.wait_for(r"restored \S+ \[\d\]")
    second.kill()
    third.wait_ready(PARTITIONS)
    fourth = queue.add(env=gate.env)
    fourth.wait_for(r"restored \S+ \[\d\]")
    assert waiting(command) == 20
    assert gate.begun == []
    command("queues", "resume")
    check_once(queue, gate, ids)
    assert waiting(command) == 0


def test_what_was_taken_and_cancelled_while_paused_is_not_begun(
    queue: Queue, gate: Gate, command: Command
) -> None:
    worker = started(queue, gate, "--concurrency", "1")
    ids = ["a", "b", "c", "d"]
    queue.oracle.put_tasks(ids, "gated")
    (running,) = gate.wait_count(1)
    command("queues", "pause")
    worker.wait_for(PAUSED)
    gone, *rest = [id for id in ids if id != running]
    assert command("cancel", gone, "--json").code == 0
    assert queue.oracle.wait_state(gone)["status"] == "cancelled"
    gate.open()
    queue.oracle.wait_state(running)
    assert gate.begun == [running]
    command("queues", "resume")
    queue.oracle.wait_states(ids)
    assert sorted(gate.begun) == sorted([running, *rest])


def test_another_queue_of_the_same_worker_goes_on(
    queue: Queue, gate: Gate, command: Command, settings: Settings
) -> None:
    gate.open()
    command("topics", "create", "-q", "other")
    command("queues", "pause", "other")
    worker = queue.add("-q", "default", "-q", "other", env=gate.env)
    worker.wait_for("queue other is paused")
    assert command("enqueue", "gated", "-q", "other", "--id", "held").code == 0
    queue.oracle.put_tasks(["runs"], "gated")
    queue.oracle.wait_state("runs")
    assert gate.begun == ["runs"]
    command("queues", "resume", "other")
    gate.wait_count(2)
    assert gate.begun == ["runs", "held"]


def test_a_drained_worker_leaves_what_it_held_to_the_next(
    queue: Queue, gate: Gate, command: Command
) -> None:
    worker = started(queue, gate, "--concurrency", "1")
    ids = [f"t{n}" for n in range(10)]
    queue.oracle.put_tasks(ids, "gated")
    (running,) = gate.wait_count(1)
    command("queues", "pause")
    worker.wait_for(PAUSED)
    gate.let(running)
    queue.oracle.wait_state(running)
    assert worker.terminate() == 0
    gate.open()
    started(queue, gate).wait_for(PAUSED)
    command("queues", "resume")
    check_once(queue, gate, ids)


def test_the_commands_say_what_they_did(queue: Queue, command: Command) -> None:
    assert command("queues", "resume", "--json").json == {"resumed": []}
    assert "goes on: it was not paused" in command("queues", "resume").err
    assert command("queues", "pause", "--json").json == {"paused": ["default"]}
    again = command("queues", "pause")
    assert (again.code, again.err) == (0, "queue 'default' is paused: it was before\n")
    (one,) = command("queues", "list", "--json").json["queues"]
    assert (one["paused"], one["lag"], one["depth"], one["letters"]) == (True, 0, 0, 0)
    assert "@" in one["paused_by"]
    assert one["paused_at"].endswith("Z")
    assert (one["oldest_age_ms"], one["workers"], one["rate_in"]) == (None, [], 0)
    assert [p["state"] for p in one["partitions"]] == ["unowned"] * PARTITIONS
    shown = command("queues", "list")
    assert "paused" in shown.out
    assert command("topics", "check").code == 0
    for given in (["pause", "nowhere"], ["resume", "nowhere"], ["list", "nowhere"]):
        refused = command("queues", *given)
        assert refused.code == 2
        assert refused.err == "taskmill: queue 'nowhere' has no topics; queues here: default\n"
    both = command("queues", "resume", "default", "nowhere")
    assert both.code == 2
    assert command("queues", "list", "--json").json["queues"][0]["paused"], "nothing was written"
    wrong = command("queues", "pause", "a.b")
    assert (wrong.code, "queue 'a.b'" in wrong.err) == (2, True)
