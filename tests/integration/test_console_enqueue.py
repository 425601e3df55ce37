"""Where a console is named and no Kafka is, an App's tasks get in by the console."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.brokers import quiet_port
from support.consoles import Stand, eventually
from support.enqueued import tasks
from taskmill import App, EnqueueError, Middleware, Unreachable
from taskmill.console.client import enqueuer
from taskmill.console.tokens import TokenTable
from taskmill.producer.handle import Handle
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ClosedError, ConfigError, InvalidInput, NotAllowed
from taskmill.schemas.models import Task

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


def by_console(stand: Stand, folder: Path, *scopes: str) -> Settings:
    """Settings of somebody who knows the console, and no Kafka."""
    _, secret = TokenTable(stand.settings).create(scopes, queues=None, by="test")
    head = {"Authorization": f"Bearer {secret}"}
    eventually(lambda: httpx.get(f"{stand.console.url}/api/v1/me", headers=head).is_success)
    return Settings(
        bootstrap_servers=None,
        state_dir=folder / "elsewhere",
        api_url=stand.console.url,
        api_token=secret,
        enqueue_timeout_s=20.0,
    )


@pytest.fixture
def app(stand: Stand, tmp_path: Path) -> Iterator[App]:
    with App("far", by_console(stand, tmp_path, "enqueue", "operate")) as one:
        yield one


def run(app: App, name: str, **args: Any) -> Handle[Any]:
    return app.enqueue(name, args, declared=False)


def test_a_task_goes_in_and_its_result_comes_back(app: App) -> None:
    assert run(app, "add", a=2, b=3).result(timeout=20) == 5
    value = {"ü": [1.5, None, 2**70], '"': "\u2028"}
    assert run(app, "echo", value=value).result(timeout=20) == value


def test_a_declared_task_is_checked_here_and_awaited(app: App) -> None:
    @app.task(name="add")
    def add(a: int, b: int = 1) -> int:
        return a + b

    async def scene() -> list[int]:
        handles = await asyncio.gather(*(add.aenqueue(n, b=1) for n in range(5)))
        return [await handle.aresult(timeout=20) for handle in handles]

    assert asyncio.run(scene()) == [1, 2, 3, 4, 5]
    with pytest.raises(InvalidInput, match="argument 'a'"):
        add.enqueue("no number")  # type: ignore[arg-type]


def test_options_arrive(app: App, stand: Stand) -> None:
    handle = app.enqueue(
        "echo", {"value": 1}, declared=False, id="opt/1", delay="1h", expires="10m",
        deadline="2h", timeout="1.5s", max_attempts=2, headers={"who": "ü"},
    )  # fmt: skip
    later = app.enqueue("echo", {"value": 1}, declared=False, at="2199-06-01T00:00:00.001Z")
    client = stand.console.client("read")
    found = eventually(lambda: _known(client, "opt/1"))
    at = eventually(lambda: _known(client, later.id))
    task = tasks(stand.settings)["opt/1"]
    since = (task.not_before or 0) - task.enqueued_at
    assert since == 3_600_000
    assert task.expires_at == (task.not_before or 0) + 600_000
    assert task.deadline == (task.not_before or 0) + 7_200_000
    assert (task.timeout_ms, task.max_attempts) == (1500, 2)
    assert task.headers == {"who": "ü"}
    assert found["args"] == {"value": 1}
    assert at["next_attempt_at"] == "2199-06-01T00:00:00.001Z"
    handle.cancel()
    later.cancel()


def _known(client: httpx.Client, id: str) -> dict[str, Any] | None:
    answer = client.get(f"/api/v1/tasks/{id.replace('/', '%2F')}")
    found = answer.json()
    return found if answer.is_success and found["status"] == "scheduled" else None


def test_one_id_is_one_task(app: App, stand: Stand) -> None:
    for _ in range(2):
        handle = app.enqueue("add", {"a": 1, "b": 1}, declared=False, id="once")
        assert handle.result(timeout=20) == 2
    with App("by-kafka", stand.settings) as other:
        assert other.handle("once").outcome(timeout=20).generation == 0


def test_many_go_in_batches(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enqueuer, "_BATCH_BYTES", 1000)
    calls = [app.call("add", {"a": n, "b": n}, declared=False) for n in range(40)]
    handles = app.enqueue_many(calls)
    assert [handle.id for handle in handles] == [call.id for call in calls]
    assert [handle.result(timeout=20) for handle in handles] == [2 * n for n in range(40)]
    assert app.enqueue_many([]) == []


def test_a_batch_that_is_refused_later_says_what_was_accepted(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueuer, "_BATCH_BYTES", 1)
    calls = [app.call("add", {"a": 1, "b": 1}, declared=False) for _ in range(2)]
    calls.insert(1, app.call("add", {"a": 1, "b": 1}, declared=False, queue="nowhere"))
    with pytest.raises(EnqueueError, match=r"2 of 3 .* number 2: .*nowhere") as failed:
        app.enqueue_many(calls)
    assert list(failed.value.handles) == [0]
    assert list(failed.value.failed) == [1, 2]
    with pytest.raises(InvalidInput, match="nowhere"):
        app.enqueue_many(calls[1:])


def test_hooks_see_it_and_change_it(app: App) -> None:
    seen: list[tuple[str, str]] = []

    class Mark(Middleware):
        def before_enqueue(self, task: Task) -> Task | None:
            return task._replace(id="marked", payload=b'{"value":"changed"}')

        def after_enqueue(self, task: Task, handle: Handle[Any]) -> None:
            seen.append((task.id, handle.id))

    app.use(Mark)
    assert run(app, "echo", value="as it was").result(timeout=20) == "changed"
    assert seen == [("marked", "marked")]


def test_what_a_console_cannot_take_is_refused(app: App) -> None:
    class Lock(Middleware):
        def before_enqueue(self, task: Task) -> Task | None:
            return task._replace(lock_key="k")

    with pytest.raises(InvalidInput, match="'nowhere'"):
        app.enqueue("add", {}, declared=False, queue="nowhere")
    app.use(Lock)
    with pytest.raises(ConfigError, match="TASKMILL_BOOTSTRAP_SERVERS"):
        run(app, "add", a=1)


def test_another_time_is_not_asked_of_a_kafka_that_nobody_named(app: App) -> None:
    handle = app.enqueue("add", {"a": 1}, declared=False, delay="1h")
    eventually(lambda: handle.status() == "scheduled")
    with pytest.raises(ConfigError, match=r"reschedule goes by Kafka.*BOOTSTRAP_SERVERS"):
        handle.reschedule(delay="2h")
    handle.cancel()


def test_a_time_that_is_past_is_said_to_be(app: App, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "taskmill.producer"):
        handle = app.enqueue("add", {"a": 1, "b": 2}, declared=False, at="2020-01-01T00:00Z")
    assert "is past, it runs at once" in caplog.text
    assert handle.result(timeout=20) == 3


def test_who_may_not_is_told(stand: Stand, tmp_path: Path) -> None:
    with (
        App("reads", by_console(stand, tmp_path, "read")) as app,
        pytest.raises(NotAllowed, match="'enqueue'"),
    ):
        run(app, "add", a=1)


def test_a_console_that_is_away_and_an_app_that_is_closed(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{quiet_port()}"
    settings = Settings(
        bootstrap_servers=None, state_dir=tmp_path, api_url=url, enqueue_timeout_s=0.5
    )
    app = App("alone", settings, clock=SYSTEM_CLOCK)
    with pytest.raises(Unreachable, match=f"the console at {url} does not answer"):
        run(app, "add", a=1)
    app.close()
    with pytest.raises(ClosedError):
        run(app, "add", a=1)


def test_where_kafka_is_named_tasks_go_there(stand: Stand) -> None:
    settings = stand.settings.model_copy(update={"api_url": f"http://127.0.0.1:{quiet_port()}"})
    with App("both", settings) as app:
        assert run(app, "add", a=1).id
