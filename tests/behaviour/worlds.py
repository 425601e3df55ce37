"""The two worlds that an App works in: Kafka, and the harness."""

from __future__ import annotations

import gc
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from confluent_kafka import Producer

from behaviour.shop import Notes, make_shop
from support.workers import WorkerProcess
from taskmill import App, Settings, Task
from taskmill.consumer.letters import Filter, Letter, Letters
from taskmill.consumer.replay import Replay
from taskmill.consumer.replay_order import Order
from taskmill.consumer.replay_sources import LetterSource
from taskmill.consumer.worker import Worker
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.topics import Topics
from taskmill.scheduler.board import Board
from taskmill.scheduler.reconcile import reconcile
from taskmill.schemas.codec import CODEC
from taskmill.testing import Harness

#: What must come has come by then.
LONG_S = 30.0


class World(ABC):
    """Where the tasks of `app` run. `notes` is what its handlers saw."""

    app: App
    notes: Notes

    @abstractmethod
    def until(self, condition: Callable[[], bool]) -> None:
        """Let time pass until `condition` holds."""

    @abstractmethod
    def put(self, key: bytes, value: bytes) -> None:
        """Put a record on the queue, as any client may."""

    @abstractmethod
    def letters(self) -> list[Letter]:
        """The dead letters that were not replayed."""

    @abstractmethod
    def replay(self, letter: Letter) -> None:
        """Have a dead letter's task run again."""

    def put_task(self, task: Task) -> None:
        """Put a task there without asking its declaration."""
        self.put(task.id.encode(), CODEC.encode_task(task))

    def letter(self, id: str) -> Letter:
        """The letter of one ID, once it is there."""
        self.until(lambda: any(one.id == id for one in self.letters()))
        (found,) = [one for one in self.letters() if one.id == id]
        return found


class Memory(World):
    """A Harness."""

    def __init__(self, notes: Notes, app: App) -> None:
        self.notes, self.app = notes, app
        self.mill = Harness(app)
        notes.clock = self.mill.clock

    def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(round(LONG_S * 10)):
            if condition():
                return
            self.mill.advance("100ms")
        raise AssertionError(f"not within {LONG_S:g} s of the harness's time")

    def put(self, key: bytes, value: bytes) -> None:
        topic = Topics(self.app.settings.prefix, "default").tasks
        self.mill._broker.append(topic, key, value)

    def letters(self) -> list[Letter]:
        return self.mill.letters

    def replay(self, letter: Letter) -> None:
        assert self.mill.replay(letter) == 1

    def __enter__(self) -> Self:
        self.mill.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.mill.__exit__(None, None, None)


class Kafka(World):
    """A worker in this process, and a scheduler beside it."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.notes = Notes()
        self.app = make_shop(self.notes, settings)
        self._settings, self._folder = settings, folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        stack, settings = self._stack, self._settings
        stack.enter_context(self.app)
        interval = sys.getswitchinterval()
        stack.callback(sys.setswitchinterval, interval)
        stack.callback(gc.set_threshold, *gc.get_threshold())
        stack.callback(gc.unfreeze)
        scheduler = WorkerProcess(settings, self._folder, target="", role="scheduler")
        stack.callback(scheduler.kill)
        worker = Worker(self.app)
        assert worker.start()
        stack.callback(worker.stop)
        stack.callback(worker.drain, 5.0)
        with Board(settings, CODEC, SYSTEM_CLOCK) as board:
            now = SYSTEM_CLOCK.now_ms()
            reconcile(board, self.app.name, self.app.schedules.values(), now)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + LONG_S
        while not condition():
            assert time.monotonic() < end, f"not within {LONG_S:g} s"
            time.sleep(0.02)

    def put(self, key: bytes, value: bytes) -> None:
        where = {"bootstrap.servers": str(self._settings.bootstrap_servers)}
        producer = Producer({**where, "partitioner": "murmur2_random"})
        producer.produce(Topics(self._settings.prefix, "default").tasks, value, key)
        assert producer.flush(30) == 0

    def letters(self) -> list[Letter]:
        with Letters(self._settings, "default") as letters:
            return list(letters.scan(Filter()))

    def replay(self, letter: Letter) -> None:
        with Letters(self._settings, "default") as letters:
            assert letter.id is not None
            chosen = Filter(ids=(letter.id,))
            source = LetterSource(letters, chosen, letters.stretches(chosen), CODEC)
            replay = Replay(self._settings, "default", letters.replayed, lambda progress: None)
            assert replay.run(Order(asked={"id": letter.id}), source).replayed == 1
