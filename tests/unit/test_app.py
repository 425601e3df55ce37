from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import taskmill
from support.clocks import HandClock
from taskmill.app import App
from taskmill.producer.definition import TaskCall
from taskmill.producer.ids import new_id, time_of
from taskmill.producer.middleware import Hooks, Middleware
from taskmill.producer.process import PerProcess
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.errors import (
    ClosedError,
    ConfigError,
    InvalidArguments,
    InvalidTaskId,
    UnknownTask,
)


def test_importing_taskmill_imports_no_kafka_client() -> None:
    code = "import sys, taskmill; sys.exit('confluent_kafka' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    for name in taskmill.__all__:
        assert getattr(taskmill, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = taskmill.Nothing  # type: ignore[attr-defined]


def test_an_app_reads_its_settings_at_the_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App("shop", prefix="mine")
    monkeypatch.setenv("TASKMILL_PARTITIONS", "7")
    assert (app.settings.prefix, app.settings.partitions) == ("mine", 7)
    other = App("shop", app.settings, prefix="other")
    assert (other.settings.prefix, other.settings.partitions) == ("other", 7)


def test_a_bad_setting_or_name_is_one_line() -> None:
    with pytest.raises(ConfigError, match="partitions"):
        _ = App("shop", partitions=0).settings
    with pytest.raises(ConfigError, match="App 'no good'"):
        App("no good")


def test_options_are_checked_before_anything_is_sent() -> None:
    app = App("shop")

    @app.task
    def send(order_id: int) -> None: ...

    with pytest.raises(InvalidTaskId, match="0 bytes"):
        send.options(id="")
    with pytest.raises(InvalidTaskId, match="513 bytes"):
        send.options(id="x" * 513)
    with pytest.raises(InvalidTaskId, match="Unicode"):
        send.options(id="\ud800")
    with pytest.raises(ConfigError, match="queue"):
        send.options(queue="a/b")
    with pytest.raises(InvalidArguments, match="header 'n'"):
        send.options(headers={"n": 1})  # type: ignore[dict-item]
    call = send.options(id="ünï", queue="mail", headers={"a": "b"}).call(1)
    assert (call.id, call.key, call.queue, call.headers, call.is_generated) == (
        "ünï",
        "ünï".encode(),
        "mail",
        {"a": "b"},
        False,
    )


def test_time_limits_of_a_call_travel_and_those_of_a_task_do_not() -> None:
    clock = HandClock()
    app = App("shop", clock=clock)

    @app.task(timeout="30s", expires="1h", deadline="1d")
    def send(order_id: int) -> None: ...

    def asked(call: TaskCall[Any]) -> tuple[int | None, int | None, int | None]:
        _, task, _ = app.encode(call)
        return task.timeout_ms, task.expires_at, task.deadline

    assert asked(send.call(1)) == (None, None, None)
    assert asked(send.options(timeout="1.5s").call(1)) == (1_500, None, None)
    limits = {"expires": "1s", "deadline": "1m"}
    at = (None, clock.ms + 1_000, clock.ms + 60_000)
    assert asked(send.options(**limits).call(1)) == at
    assert asked(app.call("send", {"order_id": 1}, **limits)) == at
    assert asked(app.call("elsewhere", {}, **limits, declared=False)) == at
    with pytest.raises(ConfigError, match=r"^timeout: duration 'soon': expected a number and"):
        send.options(timeout="soon")


def test_a_task_of_another_program_is_sent_only_where_that_is_said() -> None:
    app = App("shop")
    with pytest.raises(UnknownTask, match="none are, in this App"):
        app.call("elsewhere", {"a": 1})
    call = app.call("elsewhere", {"a": 1}, declared=False)
    assert (call.name, call.payload, call.queue) == ("elsewhere", b'{"a":1}', "default")
    for args in ({"a": object()}, {"a": float("nan")}, {1: 2}):
        with pytest.raises(InvalidArguments):
            app.call("elsewhere", args, declared=False)  # type: ignore[arg-type]


def test_ids_are_uuid7_that_tell_their_time_and_rise() -> None:
    before = SYSTEM_CLOCK.now_ms()
    ids = [new_id() for _ in range(1000)]
    after = SYSTEM_CLOCK.now_ms()
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    assert all(before <= (time_of(one) or 0) <= after for one in ids)


@given(st.text())
def test_other_ids_tell_no_time(text: str) -> None:
    assert time_of(text) is None


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_makes_ids_of_its_own() -> None:
    new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "".join(new_id() for _ in range(100)).encode())
        os._exit(0)
    ours = {new_id() for _ in range(100)}
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    assert not ours & {text[i : i + 36] for i in range(0, len(text), 36)}


# ---- middleware and lifespan -------------------------------------------------------------------


def test_only_overridden_hooks_are_called() -> None:
    class Mine(Middleware):
        def before_run(self, context: Any, arguments: dict[str, Any]) -> None: ...

    app = App("shop")
    assert not app.hooks.run
    app.use(Mine)
    assert len(app.hooks.before_run) == 1
    assert app.hooks.run
    assert app.hooks.after_run == app.hooks.before_enqueue == Hooks().after_commit == ()
    with pytest.raises(ConfigError, match="takes a Middleware"):
        app.use(object())  # type: ignore[arg-type]


def test_a_lifespan_is_whatever_yields_once() -> None:
    events: list[str] = []

    def plain() -> Iterator[str]:
        events.append("up")
        yield "pool"
        events.append("down")

    async def coroutine() -> AsyncIterator[str]:
        events.append("up")
        yield "pool"
        events.append("down")

    async def enter(app: App) -> Any:
        async with app.resources() as resources:
            events.append("in")
            return resources

    for fn in (plain, coroutine, asynccontextmanager(coroutine)):
        app = App("shop")
        assert app.lifespan(fn) is fn
        assert asyncio.run(enter(app)) == "pool"
        assert events == ["up", "in", "down"]
        events.clear()
        with pytest.raises(ConfigError, match="has a lifespan already"):
            app.lifespan(fn)
    assert asyncio.run(enter(App("none"))) is None
    with pytest.raises(ConfigError, match="without parameters"):
        App("shop").lifespan(lambda app: app)
    wrong = App("shop")
    wrong.lifespan(lambda: 3)
    with pytest.raises(ConfigError, match="neither yields"):
        asyncio.run(enter(wrong))


# ---- clients -----------------------------------------------------------------------------------


class FakeClient:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def close(self) -> None:
        self.log.append(f"closed in {os.getpid()}")


def test_a_client_is_made_once_closed_once_and_then_refused() -> None:
    log: list[str] = []
    holder = PerProcess(lambda: FakeClient(log), "App 'x'")
    assert holder.get() is holder.get()
    holder.close()
    holder.close()
    assert len(log) == 1
    with pytest.raises(ClosedError, match="App 'x' is closed"):
        holder.get()


def test_a_dropped_client_is_closed_and_an_app_with_tasks_can_be_collected() -> None:
    log: list[str] = []
    holder = PerProcess(lambda: FakeClient(log), "App 'x'")
    holder.get()
    del holder
    gc.collect()
    assert len(log) == 1

    def app_with_a_task() -> weakref.ref[App]:
        app = App("shop")
        app.task(name="x")(lambda: None)
        return weakref.ref(app)

    gone = app_with_a_task()
    gc.collect()
    assert gone() is None


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_gets_a_client_of_its_own_and_leaves_the_parents_alone() -> None:
    log: list[str] = []
    holder = PerProcess(lambda: FakeClient(log), "App 'x'")
    parents = id(holder.get())
    child = os.fork()
    if child == 0:
        own = holder.get()
        is_well = id(own) != parents
        holder.close()
        is_well &= log == [f"closed in {os.getpid()}"]
        os._exit(0 if is_well else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert log == []
    holder.close()
