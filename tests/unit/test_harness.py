"""The harness that users test with: what it is beside the worlds' common behaviours."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import pytest

from taskmill import (
    App,
    ConfigError,
    Context,
    InvalidInput,
    Retry,
    Status,
    TaskFailed,
)
from taskmill.runtime.errors import Interrupted, ResultTimeout
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import JSON, Task
from taskmill.testing import Harness

app = App("harness", retry=Retry(max_attempts=3, base="10s", factor=1))
seen: list[Any] = []
who: ContextVar[str] = ContextVar("who", default="nobody")


@app.task
async def send(order_id: int, email: str = "a@b.c") -> str:
    return f"{order_id} to {email}"


@app.task
def double(number: int) -> int:
    return 2 * number


@app.task
async def nap(seconds: float) -> None:
    seen.append("begins")
    await asyncio.sleep(seconds)
    seen.append("ends")


@app.task
async def asks(number: int) -> int:
    return 1 + await (await double.aenqueue(number)).aresult()


@app.task
def asks_badly(number: int) -> int:
    return double.enqueue(number).result(1)


@app.task
def loops() -> str:
    return asyncio.run(_text())


@app.task(timeout="5s", retry=Retry(max_attempts=1))
def sleeps(seconds: float) -> None:
    clocks[0].sleep(seconds)


@app.task
async def tells() -> str:
    return who.get()


@app.task(queue="mail")
async def post(when: datetime) -> None: ...


async def _text() -> str:
    return "from a loop of its own"


clocks: list[Any] = []


@pytest.fixture
def mill() -> Iterator[Harness]:
    seen.clear()
    with Harness(app, now="2026-01-01T00:00Z") as one:
        clocks[:] = [one.clock]
        yield one


# ---- time ----------------------------------------------------------------------------------------


def test_nothing_runs_before_the_test_says_so(mill: Harness) -> None:
    handle = send.enqueue(1)
    assert handle.status() is Status.QUEUED
    assert mill.history(handle) == []
    (ended,) = mill.drain()
    assert (ended.id, ended.name, ended.status) == (handle.id, "send", Status.SUCCEEDED)
    assert mill.drain() == []
    assert mill.now == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_handler_that_waits_takes_no_real_time(mill: Harness) -> None:
    nap.enqueue(3600)
    began = threading.active_count()
    assert [state.name for state in mill.drain()] == ["nap"]
    assert mill.now == datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert threading.active_count() == began


def test_time_that_passes_stops_in_the_middle_of_a_handler(mill: Harness) -> None:
    handle = nap.enqueue(60)
    assert mill.advance("59s") == []
    assert seen == ["begins"]
    assert handle.status() is Status.RUNNING
    assert [state.id for state in mill.advance("1s")] == [handle.id]
    assert [state.status for state in mill.history(handle)] == [Status.RUNNING, Status.SUCCEEDED]


def test_what_becomes_due_while_a_handler_waits_runs_at_its_time(mill: Harness) -> None:
    nap.enqueue(60)
    later = double.options(delay="20s").enqueue(1)
    assert [state.name for state in mill.drain()] == ["double", "nap"]
    state = later.state()
    assert state is not None
    assert state.finished_at == 1_767_225_620_000


def test_a_result_is_waited_for_by_the_harnesss_time(mill: Harness) -> None:
    handle = double.options(delay="5m").enqueue(4)
    with pytest.raises(ResultTimeout, match="not ended within 10 s of the harness's time"):
        handle.result(timeout=10)
    assert mill.now == datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)
    assert handle.result() == 8
    with pytest.raises(ResultTimeout, match="has not ended"):
        app.handle("unheard-of").result()


def test_a_function_sees_its_timeout_by_the_clock(mill: Harness) -> None:
    handle, short = sleeps.enqueue(6), sleeps.enqueue(4)
    with pytest.raises(TaskFailed, match="timeout of 5 s"):
        handle.result()
    assert short.result() is None
    with pytest.raises(TaskFailed):
        sleeps.enqueue(5).result()
    assert mill.letters[0].reason == "timed_out"
    assert issubclass(Interrupted, BaseException)


def test_an_id_is_forgotten_once_its_window_is_over(mill: Harness) -> None:
    first = double.options(id="one").enqueue(1)
    assert first.result() == 2
    mill.advance("8d")
    double.options(id="one").enqueue(1)
    assert mill.drain() == []
    mill.advance("1d")
    double.options(id="one").enqueue(2)
    assert [state.id for state in mill.drain()] == ["one"]


def test_a_handler_that_waits_for_nothing_is_told_of(
    mill: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskmill.testing.loop.STUCK_S", 0.01)

    @app.task(name="stuck")
    async def stuck() -> None:
        await asyncio.Event().wait()

    with Harness(app) as other:
        stuck.enqueue()
        with pytest.raises(Exception, match="waits for something that nothing here does"):
            other.drain()


# ---- handlers ------------------------------------------------------------------------------------


def test_handlers_may_wait_for_each_other_and_in_threads(mill: Harness) -> None:
    assert asks.enqueue(4).result() == 9

    @app.task(name="threaded")
    async def threaded() -> str:
        await asyncio.to_thread(time.sleep, 0.01)
        return threading.current_thread().name

    with Harness(app):
        assert threaded.enqueue().result() == threading.current_thread().name
    assert not [one for one in threading.enumerate() if one.name.startswith("asyncio")]


def test_a_function_may_run_a_loop_and_cannot_drain(mill: Harness) -> None:
    assert loops.enqueue().result() == "from a loop of its own"
    asks_badly.options(max_attempts=1).enqueue(1)
    mill.drain()
    assert "aresult" in mill.letters[0].error


def test_handlers_find_the_context_of_the_test(mill: Harness) -> None:
    token = who.set("the test")
    assert tells.enqueue().result() == "the test"
    who.reset(token)


def test_only_named_queues_are_worked_on() -> None:
    with Harness(app, queues=["default"]) as mill:
        there = post.enqueue(when=datetime(2026, 1, 1, tzinfo=UTC))
        elsewhere = app.enqueue("theirs", {}, declared=False, queue="billing")
        mill.drain()
        assert there.status() is elsewhere.status() is Status.QUEUED
    with Harness(app) as mill:
        post.options(queue="bulk").enqueue(when=datetime(2026, 1, 1, tzinfo=UTC))
        app.enqueue("theirs", {}, declared=False, queue="billing")
        assert [state.name for state in mill.drain()] == ["post"]


def test_a_task_whose_effects_are_postgresqls_is_refused() -> None:
    other = App("effects")

    @other.task(effects="postgresql")
    def pay(ctx: Context) -> None: ...

    with Harness(other) as mill:
        pay.enqueue()
        mill.drain()
        assert "test this task on Kafka" in mill.letters[0].error


# ---- what was enqueued ---------------------------------------------------------------------------


def test_enqueued_tasks_are_found_by_what_matters(mill: Harness) -> None:
    send.enqueue(order_id=1)
    send.options(id="two", delay="5m", headers={"tenant": "a"}).enqueue(2, "x@y.z")
    post.enqueue(when=datetime(2026, 1, 31, tzinfo=UTC))
    assert len(mill.assert_enqueued(send)) == 2
    (one,) = mill.assert_enqueued(send, {"order_id": 2}, delay="5m", headers={"tenant": "a"})
    assert (one.id, one.queue, one.args) == ("two", "default", {"order_id": 2, "email": "x@y.z"})
    mill.assert_enqueued(send, at="2026-01-01T00:05Z", count=1)
    mill.assert_enqueued("post", {"when": datetime(2026, 1, 31, tzinfo=UTC)}, queue="mail")
    mill.assert_enqueued(double, count=0)
    assert [one.name for one in mill.enqueued] == ["send", "send", "post"]


def test_what_is_not_found_is_told_with_what_there_is(mill: Harness) -> None:
    with pytest.raises(AssertionError, match="not enqueued: send\nnothing was enqueued"):
        mill.assert_enqueued(send)
    double.enqueue(1)
    send.options(id="one", at="2026-01-02T00:00Z").enqueue(1)
    with pytest.raises(AssertionError) as told:
        mill.assert_enqueued(send, {"order_id": 2}, delay="1h", count=1)
    assert str(told.value).splitlines() == [
        "not enqueued 1 times but 0: send {'order_id': 2} delay=3600s",
        "enqueued were:",
        "  send {'order_id': 1} id='one' queue='default' at=2026-01-02T00:00:00+00:00",
        f"  double {{'number': 1}} id='{mill.enqueued[0].id}' queue='default'",
    ]
    with pytest.raises(InvalidInput, match="no task 'sned'"):
        mill.assert_enqueued("sned")


def test_what_is_tried_again_was_enqueued_once(mill: Harness) -> None:
    handle = double.options(id="once", delay="1m").enqueue(1)
    mill.advance("1m")
    assert handle.status() is Status.SUCCEEDED
    mill.assert_enqueued(double, count=1)


def test_a_task_with_headers_of_others_was_enqueued_all_the_same(mill: Harness) -> None:
    key, topic = b"traced", f"{app.settings.prefix}.tasks.default"
    task = Task("traced", "double", b'{"number":1}', JSON, mill.clock.now_ms())
    value = CODEC.encode_task(task)
    mill._broker.append(topic, key, value, [("traceparent", b"00-1-2-01")])
    mill.assert_enqueued(double, {"number": 1}, id="traced", count=1)


def test_many_are_enqueued_in_order(mill: Harness) -> None:
    handles = app.enqueue_many([double.call(n) for n in range(1_000)])
    assert len(mill.drain()) == 1_000
    assert [handle.result() for handle in handles[:3]] == [0, 2, 4]


# ---- schedules -----------------------------------------------------------------------------------


def test_schedules_fire_as_time_passes_and_when_triggered() -> None:
    other, runs = App("calendar"), []

    @other.task
    def nightly(ctx: Context) -> None:
        runs.append(ctx.headers["schedule-time"])

    other.schedule("nightly", nightly, cron="0 3 * * *", tz="Europe/Paris")
    with Harness(other, now="2026-03-27T12:00Z") as mill:
        mill.advance("3d")
        # Summer time began on the 29th.
        assert runs == ["2026-03-28T02:00:00Z", "2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"]
        handle = mill.trigger("nightly")
        mill.drain()
        assert handle.status() is Status.SUCCEEDED
        with pytest.raises(InvalidInput, match="no schedule 'daily'; declared: nightly"):
            mill.trigger("daily")
    with Harness(other, now="2026-03-27T12:00Z", schedules=False) as mill:
        assert mill.advance("3d") == []


# ---- its life ------------------------------------------------------------------------------------


def test_the_app_is_its_own_again_afterwards() -> None:
    closed = App("closed", bootstrap_servers="127.0.0.1:1", enqueue_timeout_s=0.01)

    @closed.task
    def job() -> int:
        return 1

    for _ in range(2):
        with Harness(closed) as mill:
            handle = job.enqueue()
            mill.drain()
        assert handle.result() == 1
    with pytest.raises(ConnectionError):
        job.enqueue()
    closed.close()


def test_the_lifespan_begins_with_the_first_task() -> None:
    other, life = App("life"), []

    @other.lifespan
    async def resources() -> AsyncIterator[int]:
        life.append("begins")
        yield 1
        life.append("ends")

    @other.task
    async def job(ctx: Context) -> int:
        return int(ctx.resources)

    with Harness(other):
        pass
    assert life == []
    with Harness(other) as mill:
        job.enqueue()
        assert mill.drain()[0].result == b"1"
    assert life == ["begins", "ends"]


def test_handlers_that_still_wait_are_cancelled_at_the_end() -> None:
    seen.clear()
    with Harness(app) as mill:
        nap.enqueue(60)
        mill.advance("1s")
    assert seen == ["begins"]


def test_it_is_used_as_it_is_meant(mill: Harness) -> None:
    with pytest.raises(ConfigError, match="entered before"):
        mill.__enter__()
    with pytest.raises(ConfigError, match="enter it first"):
        Harness(app).drain()
    with pytest.raises(ConfigError, match="'soon'"):
        mill.advance("soon")
    with pytest.raises(ConfigError, match="expected a number and one of"):
        mill.advance(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no time zone"):
        Harness(app, now="2026-01-01T00:00")


def test_a_result_that_never_comes_is_not_waited_for_for_ever(
    mill: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskmill.testing.mill.MOST_JUMPS", 20)
    other = App("busy")

    @other.task
    def tick() -> None: ...

    other.schedule("tick", tick, every="1s")
    with Harness(other, queues=["default"]) as busy:
        handle = tick.options(queue="elsewhere").enqueue()
        with pytest.raises(ResultTimeout, match="is its queue worked on"):
            handle.result()
        assert busy.now.year
