"""Time limits in a whole worker: tasks of any client, of every kind of handler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.queues import Queue
from support.scraped import Scraped
from support.wire import NOW_MS, task_value
from support.workers import Gate, runs
from taskmill import App, TaskFailed
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate() as one:
        yield one


@pytest.fixture
def queue(settings: Settings, tmp_path: Path) -> Iterator[Queue]:
    """Its workers serve metrics and let a handler that does not end go after half a second."""
    changed = {"metrics_port": 0, "timeout_grace_ms": 500}
    with Queue(Settings(**{**settings.model_dump(), **changed}), tmp_path) as one:
        yield one


def put(queue: Queue, id: str, name: str, **fields: Any) -> None:
    queue.oracle.put(id.encode(), task_value(id, name, **fields))


def reasons(queue: Queue) -> dict[bytes | None, bytes | None]:
    return {letter.key: letter.headers["taskmill-reason"] for letter in queue.oracle.letters()}


def test_every_kind_of_handler_is_stopped_and_its_place_runs_the_next(
    queue: Queue, gate: Gate
) -> None:
    worker = queue.add("--concurrency", "1", env=gate.env).wait_ready(2)
    # The coroutine waits in the loop; the thread in a system call, where it cannot be reached; the
    # process in Python that never ends.
    for name in ("gated", "gated_thread"):
        put(queue, name, name, timeout_ms=300)
    put(queue, "gated_process", "gated_process", timeout_ms=300, payload=b'{"spin":true}')
    gate.wait_begun("gated", "gated_thread", "gated_process")
    gate.let("gated_process")
    # One place each: these wait for the places to be free.
    for name in ("noop", "in_thread", "in_process"):
        put(queue, name, name)
    states = queue.oracle.wait_states(
        ("gated", "gated_thread", "gated_process", "noop", "in_thread", "in_process")
    )
    assert {key.decode(): state["status"] for key, state in states.items()} == {
        **dict.fromkeys(("gated", "gated_thread", "gated_process"), "dead"),
        **dict.fromkeys(("noop", "in_thread", "in_process"), "succeeded"),
    }
    assert set(reasons(queue).values()) == {b"timed_out"}
    for letter in queue.oracle.letters():
        assert letter.key is not None
        assert f"in {letter.key.decode()}".encode() in (
            letter.headers["taskmill-error-stack"] or b""
        )
        assert letter.headers["taskmill-error-message"] == (
            b"still running after its timeout of 0.3 s"
        )
    worker.wait_for("task gated_thread of gated_thread does not end, 0.5 s after it was told to")
    port = worker.wait_for(r"metrics on port (\d+)")[1]
    page = Scraped(port).until(
        lambda page: page.total("taskmill_stuck_handlers_total", task="gated_thread") == 1,
        "stuck handler",
    )
    assert page.total("taskmill_stuck_handlers_total") == 1
    assert page.total("taskmill_dead_letters_total", reason="timed_out") == 3
    # Nothing waits for the thread that was left behind.
    assert worker.terminate() == 0


def test_what_has_not_started_in_time_is_told_to_whoever_waits_and_is_no_dead_letter(
    queue: Queue, settings: Settings
) -> None:
    app = App("shop", settings)

    @app.task
    async def noop() -> None: ...

    with app:
        handle = noop.options(expires="1ms").enqueue()
        longer = noop.options(expires="1h").enqueue()
        SYSTEM_CLOCK.sleep(0.01)
        queue.add().wait_ready(2)
        with pytest.raises(TaskFailed, match="is expired: it had not started in time"):
            handle.result(timeout=30)
        assert longer.result(timeout=30) is None
    assert list(runs(queue.folder)) == [longer.id]
    assert not queue.oracle.letters()


def test_nothing_starts_beyond_its_deadline(queue: Queue) -> None:
    put(queue, "late", "noop", deadline=NOW_MS)
    queue.add().wait_ready(2)
    state = queue.oracle.wait_state("late")
    assert state["status"] == "dead"
    assert state["error"]["type"] == "taskmill.runtime.errors.DeadlineExceeded"
    assert reasons(queue) == {b"late": b"expired"}
    assert not runs(queue.folder)
