from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.brokers import PrivateBroker, delete_topics, quiet_port
from support.states import StateWriter, make_state
from taskmill.app import App
from taskmill.producer import tail
from taskmill.producer.handle import Handle
from taskmill.producer.ids import new_id
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import (
    ClosedError,
    ConfigError,
    InvalidResult,
    InvalidTaskId,
    ResultLost,
    ResultTimeout,
    TaskFailed,
    Unreachable,
)
from taskmill.runtime.topics import ensure
from taskmill.schemas.models import TaskState
from taskmill.schemas.states import Status

pytestmark = pytest.mark.kafka


@pytest.fixture
def app(settings: Settings) -> Iterator[App]:
    with App("reader-test", settings) as app:
        app.task(add)
        yield app


@pytest.fixture
def writer(app: App, settings: Settings) -> StateWriter:
    app.enqueue("add", {"a": 0})  # the topics come into being
    return StateWriter(settings)


def add(a: int, b: int = 2) -> int: ...  # type: ignore[empty-body]


def enqueue(app: App, **options: Any) -> Handle[int]:
    return app.enqueue("add", {"a": 1}, **options)


def becomes(handle: Handle[Any], status: Status) -> bool:
    """Ask until `status` is the answer: a commit is visible only once its markers are written,
    which the broker does after it has answered the writer."""
    deadline = SYSTEM_CLOCK.monotonic() + 20
    while handle.status() is not status:
        assert SYSTEM_CLOCK.monotonic() < deadline
    return True


# ---- one task -----------------------------------------------------------------------------------


def test_a_task_is_queued_until_a_worker_tells_of_it(app: App, writer: StateWriter) -> None:
    handle = enqueue(app)
    assert handle.status() is Status.QUEUED
    assert handle.state() is None
    writer.commit(make_state(handle.id, Status.RUNNING))
    assert becomes(handle, Status.RUNNING)
    writer.commit(make_state(handle.id))
    assert becomes(handle, Status.SUCCEEDED)
    assert handle.state() == make_state(handle.id)


def test_a_result_is_found_whether_it_came_before_or_after_the_question(
    app: App, writer: StateWriter
) -> None:
    before = enqueue(app)
    writer.commit(make_state(before.id))
    assert before.result(timeout=20) == 3

    after = enqueue(app)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(after.result, 20)
        with pytest.raises(ResultTimeout, match=f"{after.id}.* not ended within 0.2 s; it goes on"):
            after.result(timeout=0.2)
        writer.commit(make_state(after.id, result=b"4"))
        assert waiting.result() == 4


def test_only_what_is_committed_is_seen(app: App, writer: StateWriter) -> None:
    handle = enqueue(app)
    with writer.transaction(commit=False):
        writer.put(make_state(handle.id, result=b"666"))
    assert handle.state() is None
    with writer.transaction():
        writer.put(make_state(handle.id))
        with pytest.raises(ResultTimeout):
            handle.result(timeout=0.3)
    assert handle.result(timeout=20) == 3


@pytest.mark.parametrize(
    ("status", "message"),
    [(Status.DEAD, "is dead .ValueError: no."), (Status.CANCELLED, "is cancelled")],
)
def test_a_task_that_ended_without_a_result_is_told_by_its_error(
    app: App, writer: StateWriter, status: Status, message: str
) -> None:
    handle = enqueue(app)
    writer.commit(make_state(handle.id, status))
    with pytest.raises(TaskFailed, match=message) as caught:
        handle.result(timeout=20)
    assert (caught.value.task_id, caught.value.status) == (handle.id, status)


def test_the_greatest_generation_and_seq_counts_not_the_last_write(
    app: App, writer: StateWriter
) -> None:
    handle = enqueue(app, id="merged")
    writer.commit(
        make_state("merged", result=b"1"),
        make_state("merged", Status.RUNNING, generation=1, seq=1),
        make_state("merged", generation=1, seq=0, result=b"2"),
    )
    assert becomes(handle, Status.RUNNING)
    writer.commit(make_state("merged", generation=1, seq=1, result=b"3"))
    assert handle.result(timeout=20) == 3


def test_a_second_task_of_the_same_id_finds_the_first_ones_result_however_old(
    app: App, writer: StateWriter
) -> None:
    first = enqueue(app, id="receipt:1")
    writer.commit(make_state("receipt:1", result=b"41"))
    assert first.result(timeout=20) == 41
    with App("later", app.settings) as later:
        later.task(add)
        assert enqueue(later, id="receipt:1").result(timeout=20) == 41


def test_the_result_is_of_the_declared_type(app: App, writer: StateWriter) -> None:
    def pair() -> tuple[int, str]: ...  # type: ignore[empty-body]

    app.task(pair)
    handle = app.enqueue("pair", {})
    writer.commit(make_state(handle.id, result=b'[1,"a"]'))
    assert handle.result(timeout=20) == (1, "a")
    assert app.handle(handle.id).result(timeout=20) == [1, "a"]
    wrong = app.enqueue("pair", {})
    writer.commit(make_state(wrong.id, result=b'["a"]'))
    with pytest.raises(InvalidResult, match="'pair' is not of the declared type"):
        wrong.result(timeout=20)


# ---- large results ------------------------------------------------------------------------------


def test_a_large_result_or_error_is_fetched_from_its_own_topic(
    app: App, writer: StateWriter
) -> None:
    big = b'"' + b"x" * 100_000 + b'"'
    done, failed = enqueue(app), enqueue(app)
    with writer.transaction():
        writer.put_large(make_state(done.id, seq=1), b'"of another attempt"')
        writer.put_large(make_state(done.id, seq=2), big)
        writer.put_large(make_state(failed.id, Status.DEAD), None, "long " * 500)
    assert app.handle(done.id).result(timeout=20) == "x" * 100_000
    assert asyncio.run(app.handle(done.id).aresult(timeout=20)) == "x" * 100_000
    assert app.handle(done.id).outcome(timeout=20).result == big
    with pytest.raises(TaskFailed, match="ValueError: " + "long " * 500):
        failed.result(timeout=20)


def test_a_large_result_that_is_no_longer_kept_is_told(
    app: App, writer: StateWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskmill.producer.reader.RESULT_S", 0.5)
    handle = enqueue(app)
    writer.commit(
        make_state(handle.id, result=None, large=f"{app.settings.prefix}.results.default")
    )
    with pytest.raises(ResultLost, match="no longer kept"):
        handle.result(timeout=20)


# ---- many ---------------------------------------------------------------------------------------


def test_a_thousand_results_are_awaited_at_once_by_one_thread(
    app: App, writer: StateWriter
) -> None:
    calls = [app.call("add", {"a": n}) for n in range(1000)]
    handles = app.enqueue_many(calls)
    threads = threading.active_count()

    async def main() -> list[Any]:
        waiting = [asyncio.ensure_future(handle.aresult(30)) for handle in handles]
        done, _ = await asyncio.wait(waiting, timeout=0.2)
        assert not done
        assert threading.active_count() <= threads + 2  # the reader's, and the writer's below
        writing = asyncio.to_thread(
            writer.commit, *(make_state(h.id, result=b"%d" % n) for n, h in enumerate(handles))
        )
        await writing
        return await asyncio.gather(*waiting)

    assert asyncio.run(main()) == list(range(1000))


def test_waiters_that_gave_up_are_forgotten(app: App, writer: StateWriter) -> None:
    handle = enqueue(app)

    async def main() -> None:
        doomed = [asyncio.ensure_future(handle.aresult()) for _ in range(10)]
        await asyncio.sleep(0)
        for one in doomed:
            one.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)

    asyncio.run(main())
    assert handle.state() is None
    session = app._reader.get()._session
    assert session is not None
    deadline = SYSTEM_CLOCK.monotonic() + 10
    while session._placed:
        # Only looked at: asking for the state would place the next watch.
        assert SYSTEM_CLOCK.monotonic() < deadline
        SYSTEM_CLOCK.sleep(0.01)
    writer.commit(make_state(handle.id))
    assert handle.result(timeout=20) == 3


def test_what_fell_out_of_memory_is_read_again(
    app: App, writer: StateWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "KEPT", 5)
    handles = app.enqueue_many([app.call("add", {"a": n}) for n in range(200)])
    assert handles[0].status() is Status.QUEUED  # from here on the partitions are followed
    for n, handle in enumerate(handles):
        writer.commit(make_state(handle.id, result=b"%d" % n))
    assert handles[-1].result(timeout=20) == 199
    assert [handle.result(timeout=20) for handle in handles] == list(range(200))
    old = enqueue(app, id="old")
    assert old.status() is Status.QUEUED


# ---- IDs from elsewhere -------------------------------------------------------------------------


def test_a_task_is_found_by_its_id_alone(app: App, writer: StateWriter) -> None:
    ids = [new_id(), "plain", "a/b?c=%d ünï"]
    for one in ids:
        enqueue(app, id=one)
    writer.commit(*map(make_state, ids))
    with App("elsewhere", app.settings) as other:
        for one in ids:
            assert other.handle(one).result(timeout=20) == 3
            assert other.handle(one).status() is Status.SUCCEEDED
    with pytest.raises(InvalidTaskId):
        app.handle("")


def test_a_task_without_a_state_is_found_on_its_topic_and_an_unknown_one_is_not(
    app: App, settings: Settings
) -> None:
    handle = enqueue(app)
    enqueue(app, id="plain")
    for one in (handle, app.handle(handle.id), app.handle("plain")):
        state = one.queued()
        assert isinstance(state, TaskState)
        assert (state.id, state.name, state.status) == (one.id, "add", Status.QUEUED)
    assert app.handle(new_id()).queued() is None
    assert app.handle("nobody").queued() is None
    assert app.handle("nobody").state() is None
    assert app.handle("nobody", "no-such-queue").state() is None
    assert app.handle("nobody", "no-such-queue").queued() is None


# ---- trouble ------------------------------------------------------------------------------------


def test_an_unreachable_broker_is_told_with_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskmill.producer.answers.ANSWER_S", 1.0)
    address = f"127.0.0.1:{quiet_port()}"
    with App("nowhere", bootstrap_servers=address, state_dir=tmp_path) as app:
        with pytest.raises(Unreachable, match=f"{address} did not answer within 1 s"):
            app.handle("x").status()
        with pytest.raises(Unreachable, match=f"{address} did not answer within 0.5 s"):
            app.handle("x").result(timeout=0.5)


def test_who_waits_while_the_broker_is_away_gets_the_result_when_it_is_back(
    private_broker: Callable[..., PrivateBroker], tmp_path: Path
) -> None:
    broker = private_broker()
    settings = Settings(
        bootstrap_servers=broker.bootstrap, prefix="back", partitions=1, state_dir=tmp_path
    )
    with App("back", settings) as app, ThreadPoolExecutor(2) as pool:
        app.task(add)
        first, second = enqueue(app), enqueue(app)
        assert first.status() is Status.QUEUED
        waiting = pool.submit(first.result, 90)
        broker.kill()
        with pytest.raises(Unreachable):
            second.result(timeout=5)
        waiting_too = pool.submit(second.result, 90)
        broker.start()
        StateWriter(settings).commit(make_state(first.id), make_state(second.id, result=b"5"))
        assert (waiting.result(), waiting_too.result()) == (3, 5)


def test_who_waits_while_the_topics_are_made_anew_gets_the_result(
    app: App, writer: StateWriter, settings: Settings, broker: str
) -> None:
    handle = enqueue(app, id="again")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(handle.result, 90)
        assert handle.status() is Status.QUEUED
        delete_topics(broker, settings.prefix)
        ensure(settings, "default")
        writer.commit(make_state("again"))
        assert waiting.result() == 3


def test_a_setting_that_kafka_refuses_is_told_in_one_line(settings: Settings) -> None:
    with App("wrong", settings, kafka={"no.such.setting": "1"}) as app:
        with pytest.raises(ConfigError, match=r"no\.such\.setting"):
            app.handle("x").status()
        with pytest.raises(ConfigError, match=r"no\.such\.setting"):
            app.enqueue("x", {}, declared=False)


def test_closing_the_app_wakes_who_waits(app: App, writer: StateWriter) -> None:
    handle = enqueue(app)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(handle.result)
        assert handle.status() is Status.QUEUED
        app.close()
        with pytest.raises(ClosedError):
            waiting.result(timeout=20)


def test_an_idle_reader_ends_its_thread_and_starts_again_when_asked(
    app: App, writer: StateWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskmill.producer.reader.IDLE_S", 0.1)
    handle = enqueue(app)
    for _ in range(3):
        assert handle.status() is Status.QUEUED
        thread = app._reader.get()._thread
        if thread is not None:
            thread.join(timeout=20)
        assert app._reader.get()._thread is None
    writer.commit(make_state(handle.id))
    assert handle.result(timeout=20) == 3
