"""Handles mean the same by Kafka and by a console: one list of tests for the two."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.brokers import quiet_port
from support.clocks import AheadClock
from support.consoles import Stand, eventually
from taskmill import App, ResultExpired, ResultTimeout, TaskFailed, Unreachable
from taskmill.console.tokens import TokenTable
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ClosedError, InvalidInput, NotAllowed

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def secret(stand: Stand) -> str:
    """A token that may operate."""
    _, found = TokenTable(stand.settings).create(["operate"], queues=None, by="test")
    headers = {"Authorization": f"Bearer {found}"}
    # The console has heard of it.
    eventually(lambda: httpx.get(f"{stand.console.url}/api/v1/me", headers=headers).is_success)
    return found


@pytest.fixture(params=["kafka", "console"])
def settings(request: pytest.FixtureRequest, stand: Stand, secret: str) -> Settings:
    """Those of the stand; with its console, or without."""
    if request.param == "kafka":
        return stand.settings
    return stand.settings.model_copy(update={"api_url": stand.console.url, "api_token": secret})


@pytest.fixture
def app(settings: Settings) -> Iterator[App]:
    with App("handles", settings) as one:
        yield one


def run(app: App, name: str, **args: Any) -> Any:
    return app.enqueue(name, args, declared=False)


def test_a_result_is_waited_for(app: App) -> None:
    assert run(app, "add", a=2, b=3).result(timeout=20) == 5
    assert asyncio.run(run(app, "echo", value={"ü": [1.5, None]}).aresult(timeout=20)) == {
        "ü": [1.5, None]
    }
    assert run(app, "echo", value=None).result(timeout=20) is None
    assert run(app, "unkept").result(timeout=20) is None


def test_a_result_is_of_the_declared_type(app: App) -> None:
    @app.task(name="echo")
    def echo(value: Any) -> tuple[int, ...]:
        return tuple(value)

    assert echo.enqueue(value=[1, 2]).result(timeout=20) == (1, 2)


def test_a_large_result_is_whole(app: App) -> None:
    handle = run(app, "large", size=100_000)
    assert len(handle.result(timeout=20)) == 100_000
    assert len(asyncio.run(handle.aresult(timeout=20))) == 100_000


@pytest.mark.parametrize("message", ["no such thing", "x" * 9000])
def test_a_failure_is_told(app: App, message: str) -> None:
    handle = app.enqueue("fails", {"message": message}, declared=False, max_attempts=1)
    with pytest.raises(TaskFailed) as failed:
        handle.result(timeout=20)
    assert failed.value.error_type == "ValueError"
    assert failed.value.error_message[:1000] == message[:1000]
    assert handle.status() == "dead"


def test_states_are_the_same_record(app: App, stand: Stand) -> None:
    handle = app.enqueue("add", {"a": 2}, declared=False, id=f"a/b?c%d ü {app.settings.api_url}")
    state = handle.outcome(timeout=20)
    with App("by-kafka", stand.settings) as other:
        known = other.handle(handle.id).outcome(timeout=20)
    assert state == known
    assert handle.state() == known
    assert handle.status() == "succeeded"


def test_what_nobody_enqueued_is_queued_for_all_that_is_known(app: App) -> None:
    handle = app.handle("nobody")
    assert (handle.state(), handle.queued(), handle.status()) == (None, None, "queued")
    with pytest.raises(ResultTimeout, match=r"'nobody' has not ended within 0\.7 s"):
        handle.result(timeout=0.7)


def test_a_time_limit_leaves_the_task_alone_and_a_cancellation_ends_it(app: App) -> None:
    handle = run(app, "nap", ms=60_000)
    with pytest.raises(ResultTimeout):
        handle.result(timeout=0.5)
    with pytest.raises(ResultTimeout):
        asyncio.run(handle.aresult(timeout=0.5))
    handle.cancel()
    with pytest.raises(TaskFailed, match="is cancelled"):
        handle.result(timeout=20)
    handle.cancel()  # it stays as it is
    asyncio.run(handle.acancel())
    assert handle.status() == "cancelled"


def test_a_task_is_cancelled_the_moment_it_is_enqueued(app: App) -> None:
    handle = app.enqueue("add", {"a": 1}, declared=False, delay="1h")
    asyncio.run(handle.acancel())
    with pytest.raises(TaskFailed, match="is cancelled"):
        handle.result(timeout=20)


def test_an_id_that_is_not_known_ends_as_cancelled_as_by_kafka(app: App) -> None:
    handle = app.handle("never enqueued")
    handle.cancel()
    with pytest.raises(TaskFailed, match="is cancelled"):
        handle.result(timeout=20)


def test_a_scheduled_task_has_another_time(app: App) -> None:
    handle = app.enqueue("add", {"a": 1}, declared=False, delay="1h")
    first = eventually(handle.state)
    handle.reschedule(delay="2h")
    moved = eventually(
        lambda: s if (s := handle.state()).next_attempt_at != first.next_attempt_at else None
    )
    assert moved.status == "scheduled"
    assert abs(moved.next_attempt_at - first.next_attempt_at - HOUR_MS) < 120_000
    handle.cancel()
    with pytest.raises(TaskFailed):
        handle.result(timeout=20)
    with pytest.raises(InvalidInput, match="is cancelled: only one that is scheduled"):
        handle.reschedule(delay="2h")


def test_a_result_is_there_until_its_time_is_over(app: App, settings: Settings) -> None:
    handle = run(app, "brief", size=10)
    assert handle.result(timeout=20) == "x" * 10
    with App("later", settings, clock=AheadClock(2 * HOUR_MS)) as later:
        late = later.handle(handle.id)
        with pytest.raises(ResultExpired):
            late.result(timeout=20)
        state = late.state()
    assert state is not None
    assert (state.status, state.result) == ("succeeded", None)
    assert state.result_expires_at == handle.outcome(timeout=20).result_expires_at


def test_a_closed_app_says_so(app: App) -> None:
    handle = run(app, "add", a=1)
    handle.status()
    app.close()
    with pytest.raises(ClosedError):
        handle.status()


def test_many_wait_at_once_on_one_loop(app: App) -> None:
    handles = app.enqueue_many(
        [app.call("add", {"a": n, "b": 0}, declared=False) for n in range(30)]
    )

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(one.aresult(timeout=30) for one in handles))

    assert asyncio.run(all_of_them()) == list(range(30))


# ---- of a console alone -------------------------------------------------------------------------


def test_a_console_that_is_away_is_unreachable(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskmill.console.client.handles.ANSWER_S", 0.5)
    url = f"http://127.0.0.1:{quiet_port()}"
    with App("away", stand.settings, api_url=url, api_token="x") as app:
        handle = app.handle("a")
        for ask in (handle.status, handle.cancel, lambda: handle.result(timeout=1)):
            with pytest.raises(Unreachable, match=url):
                ask()


def test_a_token_that_does_not_count_is_told_at_once(stand: Stand) -> None:
    with App("who", stand.settings, api_url=stand.console.url, api_token="tm_x_y") as app:
        handle = app.handle("a")
        for ask in (handle.status, handle.cancel, handle.result):
            with pytest.raises(NotAllowed, match="token"):
                ask()
