"""The way in, by the same enqueuer as on Kafka, to topics in memory."""

from __future__ import annotations

from typing import Any

from taskmill.producer.client import ProducerClient, Report
from taskmill.producer.control import ControlSender
from taskmill.producer.enqueuer import Enqueuer
from taskmill.producer.routes import Route, Routes
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Topics
from taskmill.testing.broker import MemoryBroker


class MemoryClient(ProducerClient):
    """Hands records to `broker`, which acknowledges them at once."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def send(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        partition: int,
        headers: list[tuple[str, bytes]],
        report: Report,
    ) -> bool:
        report(None, self._broker.append(topic, key, value, headers))
        return True

    def wait_for_room(self) -> None:
        """There always is."""

    def partition_count(self, topic: str, timeout_s: float) -> int | None:
        return 1

    def close(self) -> None:
        """Nothing is on its way."""


class MemoryRoutes(Routes):
    """Every queue is there, with one partition."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        super().__init__(settings, lambda topic, left: 1, clock)

    def _find(self, queue: str, deadline: Deadline) -> Route:
        return self._route(Topics(self._settings.prefix, queue).tasks, 1)


class MemoryEnqueuer(Enqueuer):
    """Enqueues into `broker`."""

    def __init__(self, broker: MemoryBroker, *given: Any, **more: Any) -> None:
        """`given`, `more`: what an Enqueuer is given."""
        self._broker = broker
        super().__init__(*given, **more)

    def _new_client(self, settings: Settings, name: str) -> ProducerClient:
        return MemoryClient(self._broker)

    def _new_routes(self, settings: Settings) -> Routes:
        return MemoryRoutes(settings, self._clock)


class MemorySender(ControlSender):
    """Asks something of tasks in `broker`."""

    def __init__(self, broker: MemoryBroker, *given: Any, **more: Any) -> None:
        """`given`, `more`: what a ControlSender is given."""
        self._broker = broker
        super().__init__(*given, **more)

    def _new_client(self, settings: Settings, name: str) -> ProducerClient:
        return MemoryClient(self._broker)

    def _ask(self, topics: Topics, deadline: Deadline) -> tuple[int | None, int | None]:
        return (1, 1) if topics.tasks in self._broker.topics() else (None, None)
