"""Enqueueing on a real broker: one, many, from threads, coroutines and forked processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from support.brokers import PrivateBroker, quiet_port
from support.enqueued import records, tasks
from taskmill.app import App
from taskmill.producer.middleware import Middleware
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import (
    ClosedError,
    EnqueueError,
    InvalidArguments,
    PayloadTooLarge,
    Unreachable,
)
from taskmill.runtime.partition import murmur2, partition_for
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import Task

pytestmark = pytest.mark.kafka


@pytest.fixture
def app(settings: Settings) -> Iterator[App]:
    with App("producer-test", settings) as app:
        app.task(add)
        yield app


def add(a: int, b: int = 2) -> int:
    return a + b


def task(app: App) -> Any:
    return app.tasks["add"]


# ---- one ----------------------------------------------------------------------------------------


def test_an_enqueued_task_lies_where_java_would_put_it_and_says_so(
    app: App, settings: Settings
) -> None:
    before = SYSTEM_CLOCK.now_ms()
    handle = task(app).options(headers={"trace": "t"}).enqueue(1, b=3)
    (message,) = records(settings)
    assert message.key() == handle.id.encode()
    assert message.partition() == (murmur2(handle.id.encode()) & 0x7FFFFFFF) % 2
    assert message.headers() == [
        ("taskmill-partition", f"{message.partition()}/2".encode()),
    ]
    decoded = CODEC.decode_task(message.value())
    assert (decoded.id, decoded.name, decoded.payload) == (handle.id, "add", b'{"a":1,"b":3}')
    assert decoded.headers == {"trace": "t"}
    assert before <= decoded.enqueued_at <= SYSTEM_CLOCK.now_ms()


def test_the_topics_of_a_queue_come_into_being_at_its_first_task(
    app: App, settings: Settings
) -> None:
    task(app).options(queue="mail", id="a/b ünï").enqueue(1)
    assert list(tasks(settings, "mail")) == ["a/b ünï"]
    names = AdminClient({"bootstrap.servers": settings.bootstrap_servers}).list_topics(timeout=10)
    assert Topics(settings.prefix, "mail").state in names.topics


def test_a_task_is_sent_by_name_to_a_program_that_declares_it(app: App, settings: Settings) -> None:
    handle = app.enqueue("report.build", {"year": 2026}, declared=False)
    assert tasks(settings)[handle.id].payload == b'{"year":2026}'
    handle = app.enqueue("add", {"a": 1})
    assert tasks(settings)[handle.id].payload == b'{"a":1}'


def test_enqueue_returns_only_after_the_brokers_acknowledgement(
    private_broker: Callable[..., PrivateBroker], tmp_path: Path
) -> None:
    broker = private_broker()
    settings = Settings(
        bootstrap_servers=broker.bootstrap, prefix="ack", partitions=1, state_dir=tmp_path
    )
    with App("ack", settings) as app:
        app.task(add)
        task(app).enqueue(1)
        broker.pause()
        started = threading.Event()

        def enqueue() -> str:
            started.set()
            return str(task(app).enqueue(2).id)

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(enqueue)
            started.wait()
            with pytest.raises(TimeoutError):
                future.result(timeout=1.0)
            broker.resume()
            assert future.result(timeout=20) in tasks(settings)


def test_a_broker_that_goes_away_fails_an_enqueue_by_its_deadline(
    private_broker: Callable[..., PrivateBroker], tmp_path: Path
) -> None:
    broker = private_broker()
    settings = Settings(
        bootstrap_servers=broker.bootstrap,
        prefix="away",
        partitions=1,
        state_dir=tmp_path,
        enqueue_timeout_s=2.0,
    )
    with App("away", settings) as app:
        app.task(add)
        until_accepted(app)
        broker.kill()
        began = SYSTEM_CLOCK.monotonic()
        with pytest.raises(Unreachable, match=f"{broker.bootstrap} did not acknowledge task 'x'"):
            task(app).options(id="x").enqueue(2)
        assert SYSTEM_CLOCK.monotonic() - began < 3.0
        with pytest.raises(EnqueueError, match="3 of 3 tasks were not accepted") as caught:
            app.enqueue_many([task(app).call(n) for n in range(3)])
        assert caught.value.exit_code == 3
        assert set(caught.value.failed) == {0, 1, 2}
        broker.start()
        assert until_accepted(app) in tasks(settings)


def until_accepted(app: App) -> str:
    """Enqueue once more until a broker that has just started takes it; the ID."""
    deadline = SYSTEM_CLOCK.monotonic() + 60
    while True:
        try:
            return str(task(app).enqueue(1).id)
        except Unreachable:
            assert SYSTEM_CLOCK.monotonic() < deadline


@pytest.mark.parametrize("timeout_s", [0.3, 1.5])
def test_an_unreachable_broker_is_told_with_address_and_deadline(
    timeout_s: float, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{quiet_port()}"
    app = App("nowhere", bootstrap_servers=address, enqueue_timeout_s=timeout_s, state_dir=tmp_path)
    app.task(add)
    began = SYSTEM_CLOCK.monotonic()
    with pytest.raises(Unreachable, match=f"{address} did not answer within {timeout_s:g} s") as e:
        task(app).enqueue(1)
    assert "\n" not in str(e.value)

    async def enqueue() -> None:
        await task(app).aenqueue(1)

    with pytest.raises(Unreachable, match=address):
        asyncio.run(enqueue())
    with pytest.raises(Unreachable, match=address):
        app.enqueue_many([task(app).call(1)])
    app.close()
    assert SYSTEM_CLOCK.monotonic() - began < 3 * timeout_s + 3


def test_a_task_that_is_too_large_is_refused_before_it_is_sent(settings: Settings) -> None:
    with App("large", settings, max_task_bytes=2000) as app:
        app.task(name="keep")(lambda text: None)
        keep: Any = app.tasks["keep"]
        with pytest.raises(PayloadTooLarge, match=r"'keep' is 2\d\d\d bytes encoded; .* is 2000"):
            keep.enqueue("x" * 2000)
        with pytest.raises(PayloadTooLarge):
            app.enqueue_many([keep.call("x"), keep.call("x" * 2000)])
        handle = keep.enqueue("x" * 1500)
    assert list(tasks(settings)) == [handle.id]


def test_a_topic_that_takes_less_than_the_settings_say_is_told(settings: Settings) -> None:
    topic = Topics(settings.prefix, "default").tasks
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 2, 1, config={"max.message.bytes": "3000"})])[
        topic
    ].result()
    with App("small", settings, kafka={"compression.type": "none"}) as app:
        app.task(name="keep")(lambda text: None)
        with pytest.raises(PayloadTooLarge, match=rf"more than topic {topic} takes"):
            app.enqueue("keep", {"text": "x" * 5000})
        # On two partitions: the broker refuses a batch as a whole.
        small, large = "small-0", "large-0"
        while partition_for(large.encode(), 2) == partition_for(small.encode(), 2):
            large += "0"
        calls = [
            app.call("keep", {"text": "x"}, id=small),
            app.call("keep", {"text": "x" * 5000}, id=large),
        ]
        with pytest.raises(EnqueueError) as caught:
            app.enqueue_many(calls)
    assert isinstance(caught.value.failed[1], PayloadTooLarge)
    assert list(caught.value.handles) == [0]
    assert caught.value.handles[0].id in tasks(settings)


# ---- many ---------------------------------------------------------------------------------------


def test_ten_thousand_tasks_come_back_as_handles_in_order(app: App, settings: Settings) -> None:
    calls = [task(app).call(n) for n in range(10_000)]
    handles = app.enqueue_many(calls)
    assert [handle.id for handle in handles] == [call.id for call in calls]
    stored = tasks(settings)
    assert [stored[handle.id].payload for handle in handles] == [
        b'{"a":%d}' % n for n in range(10_000)
    ]


def test_many_tasks_may_go_to_several_queues_and_none_at_all_is_fine(
    app: App, settings: Settings
) -> None:
    assert app.enqueue_many([]) == []
    calls = [task(app).options(queue=f"q{n % 2}", id=str(n)).call(n) for n in range(10)]
    handles = app.enqueue_many(iter(calls))
    assert [(handle.id, handle.queue) for handle in handles] == [
        (str(n), f"q{n % 2}") for n in range(10)
    ]
    assert set(tasks(settings, "q0")) == {"0", "2", "4", "6", "8"}


def test_a_full_client_queue_makes_enqueue_many_wait_not_fail(settings: Settings) -> None:
    kafka = {"queue.buffering.max.messages": "500"}
    with App("full", settings, kafka=kafka) as app:
        app.task(add)
        handles = app.enqueue_many([task(app).call(n) for n in range(5_000)])
    assert set(tasks(settings)) == {handle.id for handle in handles}


# ---- threads, coroutines, processes -------------------------------------------------------------


def test_many_threads_enqueue_at_once(app: App, settings: Settings) -> None:
    def enqueue(n: int) -> list[str]:
        return [task(app).enqueue(n).id for _ in range(20)]

    with ThreadPoolExecutor(16) as pool:
        ids = [one for part in pool.map(enqueue, range(16)) for one in part]
    assert len(set(ids)) == 320
    assert set(tasks(settings)) == set(ids)


def test_many_coroutines_enqueue_at_once_and_a_cancelled_one_harms_no_other(
    app: App, settings: Settings
) -> None:
    async def enqueue() -> list[str]:
        await task(app).aenqueue(-1)
        doomed = asyncio.ensure_future(task(app).aenqueue(-2))
        await asyncio.sleep(0)
        doomed.cancel()
        handles = await asyncio.gather(*(task(app).aenqueue(n) for n in range(500)))
        with pytest.raises(asyncio.CancelledError):
            await doomed
        return [handle.id for handle in handles]

    ids = asyncio.run(enqueue())
    assert len(set(ids)) == 500
    assert set(ids) <= set(tasks(settings))


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_enqueues_and_exits_beside_its_parent(app: App, settings: Settings) -> None:
    task(app).options(id="parent-1").enqueue(1)
    child = os.fork()
    if child == 0:
        # Not os._exit alone: the interpreter's own exit must not hang on the parent's client.
        code = 1
        try:
            task(app).options(id="child").enqueue(2)
            app.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    task(app).options(id="parent-2").enqueue(3)
    assert set(tasks(settings)) == {"parent-1", "child", "parent-2"}


PROGRAM = """
import asyncio, os, sys
from taskmill import App
app = App("program", bootstrap_servers=sys.argv[1], prefix=sys.argv[2], partitions=2)

@app.task
def add(a: int, b: int = 2) -> int: ...

print(add.enqueue(1).id)
print(*(h.id for h in app.enqueue_many([add.call(n) for n in range(100)])), sep="\\n")

async def main():
    print((await add.aenqueue(3)).id)
    asyncio.ensure_future(add.aenqueue(4))  # nobody waits for it

asyncio.run(main())
sys.stdout.flush()
if os.fork() == 0:
    print(add.enqueue(5).id)
    sys.exit(0)  # the whole way out of an interpreter, with the parent's client in it
os.wait()
"""


def test_a_program_that_enqueues_and_exits_loses_nothing_it_was_told_is_accepted(
    settings: Settings,
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            PROGRAM,
            str(settings.bootstrap_servers),
            settings.prefix,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = done.stdout.split()
    assert len(told) == 103
    assert set(told) <= set(tasks(settings))
    assert done.stderr == ""


def test_a_closed_app_refuses_clearly(settings: Settings) -> None:
    app = App("closed", settings)
    app.task(add)
    task(app).enqueue(1)
    app.close()
    app.close()
    for use in (
        lambda: task(app).enqueue(1),
        lambda: app.enqueue_many([task(app).call(1)]),
        lambda: app.handle("x").status(),
    ):
        with pytest.raises(ClosedError, match="App 'closed' is closed"):
            use()


# ---- hooks --------------------------------------------------------------------------------------


class Stamp(Middleware):
    def __init__(self) -> None:
        self.after: list[str] = []

    def before_enqueue(self, task: Task) -> Task | None:
        if task.payload == b'{"a":13}':
            raise InvalidArguments("unlucky")
        return task._replace(headers={**task.headers, "stamp": "s"}, id=f"s-{task.id[:8]}")

    def after_enqueue(self, task: Task, handle: Any) -> None:
        assert task.id == handle.id
        self.after.append(handle.id)


def test_hooks_see_each_task_before_and_after_and_may_change_or_refuse_it(
    app: App, settings: Settings
) -> None:
    stamp = Stamp()
    app.use(stamp)
    one = task(app).options(id="11111111-x").enqueue(1)
    two = app.enqueue_many([task(app).options(id="22222222-x").call(1)])[0]
    with pytest.raises(InvalidArguments, match="unlucky"):
        app.enqueue_many([task(app).call(1), task(app).call(13)])
    assert stamp.after == [one.id, two.id] == ["s-11111111", "s-22222222"]
    stored = tasks(settings)
    assert set(stored) == {"s-11111111", "s-22222222"}
    assert stored["s-11111111"].headers == {"stamp": "s"}
