"""The executor of coroutines, where records arrive while it is told to start nothing more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from support.protocols import held, owner, record
from taskmill.consumer.attempt import Attempts
from taskmill.consumer.executors.loop import LoopExecutor
from taskmill.consumer.record import Outcome
from taskmill.producer.definition import TaskDefinition
from taskmill.producer.middleware import Hooks
from taskmill.runtime.clock import SYSTEM_CLOCK


async def work() -> None: ...


class Scene:
    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        attempts = Attempts({"work": TaskDefinition(work)}, SYSTEM_CLOCK, Hooks(()), 1_000)
        self.executor = LoopExecutor(attempts, 10, self.outcomes.extend, SYSTEM_CLOCK)


@pytest.fixture
def scene() -> Iterator[Scene]:
    one = Scene()
    one.executor.start()
    yield one
    one.executor.stop()


def test_it_is_not_quiet_before_what_came_has_reached_it(scene: Scene) -> None:
    executor, reached = scene.executor, threading.Event()
    lease = held(owner(0))
    go_on = threading.Event()
    executor.loop.call_soon_threadsafe(go_on.wait, 10)  # the loop is busy with something
    gated = record(lease, 0)._replace(is_gated=True)
    executor.submit([gated, record(lease, 1)])
    executor.shed()
    assert not executor.is_quiet()
    executor.loop.call_soon_threadsafe(reached.set)
    go_on.set()
    assert reached.wait(10)
    while not executor.is_quiet():
        SYSTEM_CLOCK.sleep(0.001)
    assert [outcome.record for outcome in scene.outcomes] == [gated]
