"""Tasks that handlers enqueue: to which partitions they go; what waits while that is unknown."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from taskmill.consumer.record import Child, Outcome
from taskmill.consumer.transaction import Transaction
from taskmill.producer.routes import Route, Routes
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topics import partition_count

logger = logging.getLogger("taskmill.worker")

#: To find the topic of a queue, or make it.
ROUTE_TIMEOUT_S = 3.0
#: Outcomes whose children's queue cannot be reached are offered again after this long.
AGAIN_S = 1.0
#: That one cannot be reached is said so often.
TELL_S = 60.0


class Children:
    """The commit thread's own; makes topics of queues that have none yet."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._clock = clock
        self._routes = Routes(
            settings, lambda topic, left: partition_count(settings, topic, timeout_s=left), clock
        )
        #: Outcomes whose children cannot be sent now, and when they are offered again. Others only
        #: look whether there are any.
        self.waiting: list[Outcome] = []
        self._again_at = 0.0
        self._told_at: float | None = None
        #: Queue -> until when it is not asked for again: a question takes seconds.
        self._refused: dict[str, float] = {}

    def vet(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Those of `outcomes` that a transaction can write now. One whose child belongs to a queue
        that cannot be reached, or refuses us, waits, so that no other has to wait with it."""
        if not any(outcome.children for outcome in outcomes):
            return outcomes
        refused: dict[str, bool] = {}
        ready = []
        for outcome in outcomes:
            for child in outcome.children:
                if child.queue not in refused:
                    refused[child.queue] = self._route(child.queue) is None
            if outcome.record.lease.held and any(refused[c.queue] for c in outcome.children):
                if not self.waiting:
                    self._again_at = self._clock.monotonic() + AGAIN_S
                self.waiting.append(outcome)
            else:
                ready.append(outcome)
        return ready

    def due(self) -> list[Outcome]:
        """Outcomes that have waited long enough, to be offered again."""
        if not self.waiting or self._clock.monotonic() < self._again_at:
            return []
        due, self.waiting = self.waiting, []
        return due

    def _route(self, queue: str) -> Route | None:
        """Where tasks of `queue` go; None, told once a minute: it cannot be had now."""
        if self._clock.monotonic() < self._refused.get(queue, 0.0):
            return None
        try:
            return self._routes.get(queue, Deadline(ROUTE_TIMEOUT_S, self._clock))
        except TaskmillError as error:
            now = self._clock.monotonic()
            self._refused[queue] = now + AGAIN_S
            if self._told_at is None or now - self._told_at >= TELL_S:
                self._told_at = now
                logger.warning("the queue of child tasks cannot be reached, they wait: %s", error)
            return None

    def routes_of(self, transaction: Transaction) -> dict[str, Route] | None:
        """Where the children of `transaction` go; None: not now, nothing was begun."""
        routes: dict[str, Route] = {}
        for outcomes in transaction.outcomes.values():
            for outcome in outcomes:
                for child in outcome.children:
                    if child.queue not in routes:
                        route = self._route(child.queue)
                        if route is None:
                            return None
                        routes[child.queue] = route
        return routes

    def forget(self, queues: Iterable[str]) -> None:
        """Ask anew where tasks of `queues` go."""
        for queue in queues:
            self._routes.forget(queue)


def record_of(child: Child, route: Route) -> dict[str, Any]:
    """What the producer is given for `child`."""
    p = partition_for(child.key, route.partitions)
    return {
        "topic": route.topic,
        "partition": p,
        "key": child.key,
        "value": child.value,
        "headers": route.headers[p],
    }
