"""Where a queue's tasks go: the topic, its partition count, the header of each partition."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import Unreachable
from taskmill.runtime.topics import Topics, ensure, partition_count

#: Says `p/n`: the worker that finds it true need not hash the key again.
PARTITION_HEADER = "taskmill-partition"

#: A partition count is asked again after this: it never should change, and a wrong one only costs
#: the worker a re-routing.
REFRESH_S = 300.0
_REFRESH_TIMEOUT_S = 1.0


class Route(NamedTuple):
    """A queue's way in. `headers[p]` goes with a record on partition p."""

    topic: str
    partitions: int
    headers: list[list[tuple[str, bytes]]]
    #: Monotonic seconds after which the count is asked again.
    stale_at: float


class Routes:
    """The routes of all queues, found at first use. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        recount: Callable[[str, float], int | None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`recount(topic, timeout_s)` asks an open connection for a partition count."""
        self._settings = settings
        self._recount = recount
        self._clock = clock
        self._lock = threading.Lock()
        self._routes: dict[str, Route] = {}

    def known(self, queue: str) -> Route | None:
        """The route, where no call to Kafka is needed for it."""
        route = self._routes.get(queue)
        if route is None or self._clock.monotonic() >= route.stale_at:
            return None
        return route

    def get(self, queue: str, deadline: Deadline) -> Route:
        """The route; the queue's topics are created where they are missing.

        Raises Unreachable, and ConfigError for topics that contradict each other.
        """
        route = self.known(queue)
        if route is not None:
            return route
        if not self._lock.acquire(timeout=deadline.left()):
            raise Unreachable(f"the topics of queue {queue!r} were not found in time")
        try:
            route = self.known(queue)
            if route is None:
                route = self._routes[queue] = self._find(queue, deadline)
            return route
        finally:
            self._lock.release()

    def forget(self, queue: str) -> None:
        """Describe the queue's topic again at its next use."""
        self._routes.pop(queue, None)

    def _find(self, queue: str, deadline: Deadline) -> Route:
        topic = Topics(self._settings.prefix, queue).tasks
        old = self._routes.get(queue)
        if old is not None:
            try:
                count = self._recount(topic, min(_REFRESH_TIMEOUT_S, deadline.left()))
            except Unreachable:
                count = None
            return self._route(topic, count or old.partitions)
        found = self._count(topic, deadline)
        if found is None:
            ensure(self._settings, queue, timeout_s=_left(deadline), clock=self._clock)
            found = self._count(topic, deadline)
        return self._route(topic, found or self._settings.partitions)

    def _count(self, topic: str, deadline: Deadline) -> int | None:
        return partition_count(self._settings, topic, timeout_s=_left(deadline), clock=self._clock)

    def _route(self, topic: str, count: int) -> Route:
        headers = [[(PARTITION_HEADER, f"{p}/{count}".encode())] for p in range(count)]
        return Route(topic, count, headers, self._clock.monotonic() + REFRESH_S)


def _left(deadline: Deadline) -> float:
    """What is left for a call to Kafka: a moment at least, late answers may be at hand."""
    return max(0.1, deadline.left())
