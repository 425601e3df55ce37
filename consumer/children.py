"""Where outcomes lead beside their mark: to queues of tasks that handlers enqueued, to their wait.

What leads to a place that cannot be reached now waits, so that nothing else has to wait with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from taskmill.consumer.record import Child, Outcome
from taskmill.consumer.tiers import Tiers
from taskmill.consumer.transaction import Transaction
from taskmill.producer.routes import Route, Routes
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topics import partition_count

logger = logging.getLogger("taskmill.worker")

T = TypeVar("T")

#: To find the topic of a queue, or make it.
ROUTE_TIMEOUT_S = 3.0
#: Outcomes whose children's queue cannot be reached are offered again after this long.
AGAIN_S = 1.0
#: That one cannot be reached is said so often.
TELL_S = 60.0


class Children:
    """The commit thread's own; makes topics of queues that have none yet."""

    def __init__(
        self, settings: Settings, tiers: Tiers, clock: Clock, routes: Routes | None = None
    ) -> None:
        """`routes`: where queues' tasks go, where that is not asked of Kafka."""
        self._clock = clock
        self._tiers = tiers
        self._routes = routes or Routes(
            settings, lambda topic, left: partition_count(settings, topic, timeout_s=left), clock
        )
        #: Outcomes whose children cannot be sent now, and when they are offered again. Others only
        #: look whether there are any.
        self.waiting: list[Outcome] = []
        self._again_at = 0.0
        self._told_at: float | None = None
        #: Queue, or a wait's topic -> until when it is not asked for: a question takes seconds.
        self._refused: dict[str, float] = {}

    def vet(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Those of `outcomes` that a transaction can write now. One that leads to a queue, or to a
        wait, that cannot be reached, or refuses us, waits here."""
        if not any(outcome.children or outcome.goes_on for outcome in outcomes):
            return outcomes
        refused: dict[str, bool] = {}
        ready = []
        for outcome in outcomes:
            for child in outcome.children:
                if child.queue not in refused:
                    refused[child.queue] = self._route(child.queue) is None
            waits = any(refused[child.queue] for child in outcome.children) or (
                outcome.goes_on and not self._reaches(outcome)
            )
            if waits and outcome.record.lease.held:
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
        return self._ask(
            queue, "queue of child tasks", lambda limit: self._routes.get(queue, limit)
        )

    def _reaches(self, outcome: Outcome) -> bool:
        """Whether the topic in which `outcome` waits is there; told as `_route`."""
        if self._tiers.is_there(outcome):  # as nearly always: thousands a second are asked for
            return True
        topic = self._tiers.topic(outcome)
        found = self._ask(topic, f"topic {topic}", lambda limit: self._tiers.reach(outcome, limit))
        return found is not None

    def _ask(self, place: str, what: str, ask: Callable[[Deadline], T]) -> T | None:
        if self._clock.monotonic() < self._refused.get(place, 0.0):
            return None
        try:
            return ask(Deadline(ROUTE_TIMEOUT_S, self._clock))
        except TaskmillError as error:
            now = self._clock.monotonic()
            self._refused[place] = now + AGAIN_S
            if self._told_at is None or now - self._told_at >= TELL_S:
                self._told_at = now
                logger.warning("the %s cannot be reached, tasks wait for it: %s", what, error)
            return None

    def routes_of(self, transaction: Transaction) -> dict[str, Route] | None:
        """Where the children of `transaction` go; None: not now, or a wait of it cannot be reached,
        and nothing was begun."""
        routes: dict[str, Route] = {}
        told = [taken.marks for taken in transaction.orders.values()]
        for outcomes in (*transaction.outcomes.values(), *told):
            for outcome in outcomes:
                if outcome.goes_on and not self._reaches(outcome):
                    return None
                for child in outcome.children:
                    if child.queue not in routes:
                        route = self._route(child.queue)
                        if route is None:
                            return None
                        routes[child.queue] = route
        return routes

    def forget(self, queues: Iterable[str]) -> None:
        """Ask anew where tasks of `queues` go, and where those that wait do."""
        self._tiers.forget()
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
        "headers": [*route.headers[p], *child.headers] if child.headers else route.headers[p],
    }
