"""What became of tasks, by the same watches as on Kafka. Who waits for an end drives the mill."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Message

from taskmill.producer.reader import StateReader
from taskmill.producer.watch import Seen, StateWatch, Watch
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.schemas.codec import Codec
from taskmill.testing.broker import MemoryBroker

End = Future[Seen | None]


class _Awaited(Future[Any]):
    """The end of a task. Whoever waits for it, and is no coroutine, has the tasks run meanwhile."""

    def __init__(self, drive: Callable[[End, float | None], None]) -> None:
        super().__init__()
        self._drive = drive

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self._drive(self, timeout)
        return super().result(0)


class MemoryReader(StateReader):
    """Reads `broker`. `drive(end, timeout)` has tasks run until `end` is there; `waited(end)` is
    told of one that is not there yet, for which somebody may wait in a loop."""

    def __init__(
        self,
        broker: MemoryBroker,
        settings: Settings,
        codec: Codec,
        clock: Clock,
        drive: Callable[[End, float | None], None],
        waited: Callable[[End], None],
    ) -> None:
        super().__init__(settings, codec, clock)
        self._broker = broker
        self._drive = drive
        self._waited = waited
        self._awaited: defaultdict[tuple[str, bytes], list[StateWatch]] = defaultdict(list)
        broker.listeners.append(self._appended)

    def _submit(self, watch: Watch) -> None:
        if isinstance(watch, StateWatch) and watch.until_end:
            watch.future = _Awaited(self._drive)
        for message in self._broker.of_key(watch.topic, watch.key):
            watch.offer(message)
        watch.looked_back()
        if not isinstance(watch, StateWatch):
            if not watch.future.done():
                watch.give_up()
            return
        watch.reached()
        if not watch.future.done():
            self._awaited[watch.topic, watch.key].append(watch)
            self._waited(watch.future)

    def _appended(self, message: Message) -> None:
        place = message.topic() or "", message.key() or b""
        if place in self._awaited:
            for watch in self._awaited.pop(place):
                watch.offer_newest(message)
                if not watch.future.done():
                    self._awaited[place].append(watch)
