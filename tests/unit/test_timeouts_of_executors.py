"""Executors, where the time of a handler is over, and where it does not end then."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.limited import Sink, Told, reasons, spin
from support.protocols import held, owner, record
from taskmill.consumer.attempt import Attempts
from taskmill.consumer.executors.loop import LoopExecutor
from taskmill.consumer.executors.threads import ThreadExecutor
from taskmill.consumer.record import Record
from taskmill.consumer.timeouts import Timekeeper
from taskmill.producer.definition import TaskDefinition
from taskmill.producer.middleware import Hooks
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.schemas.states import Status

pytestmark = pytest.mark.timeout(60)

#: Short, and long enough for a machine that does other things too.
TIMEOUT = "50ms"
GRACE_S = 0.2


class Scene:
    """An executor of `fns`, and what it hands on."""

    def __init__(self, kind: type, size: int, fns: dict[str, Callable[..., Any]], **options: Any):
        self.sink = Sink()
        self.wait = self.sink.wait
        self.told = Told()
        self.keeper = Timekeeper(SYSTEM_CLOCK, GRACE_S)
        definitions = {n: TaskDefinition(f, name=n, **options) for n, f in fns.items()}
        attempts = Attempts(definitions, SYSTEM_CLOCK, Hooks((self.told,)), 1000, self.keeper)
        clock = (SYSTEM_CLOCK,) if kind is LoopExecutor else ()
        self.executor = kind(attempts, size, self.sink, *clock)
        self.lease = held(owner(0))
        self.offset = 0
        self.executor.start()

    def submit(self, *names: str) -> list[Record]:
        records = []
        for name in names:
            records.append(record(self.lease, self.offset, name=name))
            self.offset += 1
        self.executor.submit(records)
        return records

    def close(self) -> int:
        left = self.executor.stop(0.5) if not isinstance(self.executor, LoopExecutor) else 0
        if isinstance(self.executor, LoopExecutor):
            self.executor.stop()
        self.keeper.stop()
        return left or 0


@contextmanager
def threads(size: int, **fns: Callable[..., Any]) -> Iterator[Scene]:
    scene = Scene(ThreadExecutor, size, fns, timeout=TIMEOUT)
    yield scene
    scene.close()


@contextmanager
def loop(size: int, **fns: Callable[..., Any]) -> Iterator[Scene]:
    scene = Scene(LoopExecutor, size, fns, timeout=TIMEOUT)
    yield scene
    scene.close()


def is_quiet(scene: Scene) -> None:
    while not scene.executor.is_quiet():
        SYSTEM_CLOCK.sleep(0.001)


def test_a_thread_goes_on_after_an_interruption() -> None:
    with threads(1, spins=lambda: spin(30), quick=lambda: 1) as scene:
        scene.submit("spins", "quick")
        outcomes = scene.wait(2)
        assert reasons(outcomes) == ["timed_out", "succeeded"]
        is_quiet(scene)
        assert "in spin" in (outcomes[0].failure.stack if outcomes[0].failure else "")
        assert not scene.keeper.stuck


def test_a_thread_that_cannot_be_interrupted_is_left_behind_and_the_pool_keeps_its_size() -> None:
    release = threading.Event()

    def stuck() -> str:
        release.wait(30)  # a lock: Python is not asked before it is released
        return "too late"

    with threads(1, stuck=stuck, quick=lambda: 1) as scene:
        scene.submit("stuck", "quick")
        outcomes = scene.wait(2)
        assert reasons(outcomes) == ["timed_out", "succeeded"]
        failure = outcomes[0].failure
        assert failure is not None
        assert failure.stack.count("in stuck") == 1
        assert "release.wait(30)" in failure.stack
        assert "taskmill" not in failure.stack.partition("\n")[2].partition("\n")[0]
        is_quiet(scene)
        assert scene.keeper.stuck == {("", "stuck"): 1}
        assert scene.close() == 1
        release.set()
        assert len(scene.told.runs) == 2
    assert len(outcomes) == 2


def test_a_thread_left_behind_that_ends_is_no_place_more_and_tells_nothing() -> None:
    release = threading.Event()
    ran: list[str] = []

    def stuck() -> None:
        release.wait(30)

    def names() -> None:
        ran.append(threading.current_thread().name)

    with threads(1, stuck=stuck, names=names) as scene:
        scene.submit("stuck")
        scene.wait(1)
        (old,) = scene.executor._left
        release.set()
        old.join(10)
        assert not old.is_alive()
        scene.submit("names", "names", "names")
        outcomes = scene.wait(4)
        assert reasons(outcomes) == ["timed_out", *["succeeded"] * 3]
        assert set(ran) == {"taskmill-thread-0"}
        assert len(scene.told.runs) == 4


def test_a_coroutine_is_cancelled_and_has_time_to_clean_up() -> None:
    cleaned: list[str] = []

    async def sleeps() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("up")

    async def quick() -> int:
        return 1

    with loop(1, sleeps=sleeps, quick=quick) as scene:
        scene.submit("sleeps", "quick")
        outcomes = scene.wait(2)
        assert reasons(outcomes) == ["timed_out", "succeeded"]
        assert cleaned == ["up"]
        failure = outcomes[0].failure
        assert failure is not None
        assert failure.error.type == "taskmill.runtime.errors.TimedOut"
        assert "in sleeps" in failure.stack
        is_quiet(scene)


def test_a_loop_that_is_held_up_takes_nothing_of_the_grace() -> None:
    cleaned: list[str] = []

    async def sleeps() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("up")

    async def holds_up() -> None:
        await asyncio.sleep(0)
        spin(0.05 + 2 * GRACE_S)

    with loop(2, sleeps=sleeps, holds_up=holds_up) as scene:
        scene.submit("sleeps", "holds_up")
        outcomes = scene.wait(2)
        assert sorted(reasons(outcomes)) == ["succeeded", "timed_out"]
        assert cleaned == ["up"]
        assert not scene.keeper.stuck


def test_a_coroutines_own_time_limit_is_its_own() -> None:
    async def limits_itself() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(30)

    with loop(1, limits_itself=limits_itself) as scene:
        scene.submit("limits_itself")
        (outcome,) = scene.wait(1)
        assert outcome.failure is not None
        assert (outcome.failure.reason, outcome.failure.error.type) == ("failed", "TimeoutError")


def test_a_coroutine_that_returns_after_all_has_succeeded() -> None:
    async def insists() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "half of it"
        return "all"

    with loop(1, insists=insists) as scene:
        scene.submit("insists")
        (outcome,) = scene.wait(1)
        assert (outcome.status, outcome.result) == (Status.SUCCEEDED, b'"half of it"')


def test_what_a_coroutines_clean_up_raises_is_told_beside_the_timeout() -> None:
    async def fails() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            raise ConnectionError("cannot roll back")

    with loop(1, fails=fails) as scene:
        scene.submit("fails")
        (outcome,) = scene.wait(1)
        assert outcome.failure is not None
        assert outcome.failure.reason == "timed_out"
        assert "ConnectionError: cannot roll back" in outcome.failure.stack


def test_a_coroutine_that_does_not_end_is_left_behind_and_another_takes_its_place() -> None:
    released: list[asyncio.Event] = []
    ended = threading.Event()

    async def waits_within() -> None:
        while not released[0].is_set():
            try:
                await released[0].wait()
            except asyncio.CancelledError:
                continue

    async def stuck() -> None:
        released.append(asyncio.Event())
        await waits_within()
        ended.set()

    async def quick() -> int:
        return 1

    with loop(1, stuck=stuck, quick=quick) as scene:
        scene.submit("stuck", "quick")
        outcomes = scene.wait(2)
        assert reasons(outcomes) == ["timed_out", "succeeded"]
        assert outcomes[0].failure is not None
        assert "in waits_within" in outcomes[0].failure.stack
        assert scene.keeper.stuck == {("", "stuck"): 1}
        is_quiet(scene)
        scene.executor.loop.call_soon_threadsafe(released[0].set)
        assert ended.wait(10)
        scene.submit("quick")
        assert reasons(scene.wait(3)) == ["timed_out", "succeeded", "succeeded"]
        assert len(scene.told.runs) == 3


def test_a_lost_partition_ends_a_coroutine_with_a_limit_without_an_outcome() -> None:
    started = threading.Event()

    async def sleeps() -> None:
        started.set()
        await asyncio.sleep(30)

    scene = Scene(LoopExecutor, 1, {"sleeps": sleeps}, timeout="1h")
    scene.submit("sleeps")
    assert started.wait(10)
    scene.lease.held = False
    scene.executor.cancel([scene.lease])
    is_quiet(scene)
    scene.close()
    assert not scene.sink.outcomes
