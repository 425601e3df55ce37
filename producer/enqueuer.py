"""Puts tasks on Kafka and says so only once the broker has acknowledged them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from taskmill.producer.bulk import Bulk
from taskmill.producer.client import ProducerClient
from taskmill.producer.control import Ways
from taskmill.producer.counting import EnqueuedCount
from taskmill.producer.definition import TaskCall
from taskmill.producer.delivery import AsyncDelivery, Delivery
from taskmill.producer.encoding import TaskEncoder
from taskmill.producer.handle import Handle, own_since
from taskmill.producer.middleware import Hooks
from taskmill.producer.options import is_past
from taskmill.producer.refusal import STALE, Refusals
from taskmill.producer.routes import Route, Routes
from taskmill.producer.tracing import Sending, sending
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import EnqueueError, TaskmillError, Unreachable
from taskmill.runtime.kafka import bootstrap_servers
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topics import Topics
from taskmill.runtime.tracing import sending_tracing
from taskmill.schemas.codec import Codec
from taskmill.schemas.json_form import iso
from taskmill.schemas.models import Task

logger = logging.getLogger("taskmill.producer")

T = TypeVar("T")


class Enqueuer:
    """One process's way in. Thread-safe; `aenqueue` from any event loop."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        codec: Codec,
        hooks: Callable[[], Hooks],
        ways: Ways,
        clock: Clock = SYSTEM_CLOCK,
        count: EnqueuedCount | None = None,
    ) -> None:
        """`hooks` is asked at each call; `ways` is what handles are made with; `count` is told what
        the broker acknowledged."""
        self._count = count or EnqueuedCount()
        self._hooks = hooks
        self._ways = ways
        self._clock = clock
        self._prefix = settings.prefix
        self._timeout_s = settings.enqueue_timeout_s
        self._encode = TaskEncoder(codec, settings.max_task_bytes, hooks, clock).encode
        self._refusals = Refusals(bootstrap_servers(settings), self._timeout_s)
        self._client = self._new_client(settings, name)
        self._routes = self._new_routes(settings)

    def _new_client(self, settings: Settings, name: str) -> ProducerClient:
        return ProducerClient(settings, name, self._refusals, self._clock)

    def _new_routes(self, settings: Settings) -> Routes:
        return Routes(settings, self._client.partition_count, self._clock)

    def enqueue(self, call: TaskCall[T]) -> Handle[T]:
        """Send `call`; returns once it is acknowledged.

        Raises InvalidInput (nothing was sent), Unreachable at the deadline, ClosedError.
        """
        if (found := sending_tracing()) is None:
            return self._enqueue(call)
        with sending(found, self._topic(call.queue), call) as trace:
            return self._enqueue(call, trace)

    def _enqueue(self, given: TaskCall[T], trace: Sending | None = None) -> Handle[T]:
        call, task, value = self._encode(given)
        deadline = Deadline(self._timeout_s, self._clock)
        route = _traced(self._route(call.queue, deadline), call, given, trace)
        delivery = Delivery()
        self._hand_over(route, call, value, delivery, deadline)
        if not delivery.wait(deadline.left()):
            raise self._refusals.unacknowledged(call.id)
        return self._accepted(call, task, value, route, delivery)

    async def aenqueue(self, call: TaskCall[T]) -> Handle[T]:
        """As `enqueue`, without blocking the event loop."""
        if (found := sending_tracing()) is None:
            return await self._aenqueue(call)
        with sending(found, self._topic(call.queue), call) as trace:
            return await self._aenqueue(call, trace)

    async def _aenqueue(self, given: TaskCall[T], trace: Sending | None = None) -> Handle[T]:
        call, task, value = self._encode(given)
        deadline = Deadline(self._timeout_s, self._clock)
        route = self._routes.known(call.queue)
        if route is None:
            try:
                # The threads that others' look-ups take are not without number either.
                async with asyncio.timeout(deadline.left()):
                    route = await asyncio.to_thread(self._route, call.queue, deadline)
            except TimeoutError:
                raise self._refusals.unreachable() from None
        route = _traced(route, call, given, trace)
        delivery = AsyncDelivery()
        try:
            async with asyncio.timeout(deadline.left()):
                if not self._try_hand_over(route, call, value, delivery):
                    await asyncio.to_thread(self._hand_over, route, call, value, delivery, deadline)
                await delivery.done
        except TimeoutError:
            raise self._refusals.unacknowledged(call.id) from None
        return self._accepted(call, task, value, route, delivery)

    def enqueue_many(self, calls: Iterable[TaskCall[T]]) -> list[Handle[T]]:
        """Send all of `calls`, pipelined; their handles, in order, once all are acknowledged.

        All are checked and encoded before the first is sent, and held in memory until the end.
        Raises InvalidInput, Unreachable and ClosedError with nothing sent, and EnqueueError where
        some were accepted and some were not.
        """
        hooks = self._hooks()
        listed: list[TaskCall[T]] = []
        values: list[bytes] = []
        tasks: list[Task] = []
        past = 0
        for given in calls:
            call, task, value = self._encode(given)
            past += is_past(call, task.enqueued_at)
            listed.append(call)
            values.append(value)
            if hooks.after_enqueue:
                tasks.append(task)
        deadline = Deadline(self._timeout_s, self._clock)
        routes = {queue: self._route(queue, deadline) for queue in {c.queue for c in listed}}
        bulk = Bulk(listed, values, routes, self._ways)
        try:
            handles = self._send(bulk, routes)
        except EnqueueError as error:
            self._count.all_accepted(listed[place] for place in error.handles)
            raise
        finally:
            for queue in bulk.stale:
                self._routes.forget(queue)
        self._count.all_accepted(listed)
        self._refusals.trouble = ""
        if past:
            logger.warning("of %d tasks %d have a time that is past: at once", len(listed), past)
        for hook in hooks.after_enqueue:
            for task, handle in zip(tasks, handles, strict=True):
                hook(task, handle)
        return handles

    def _send(self, bulk: Bulk[T], routes: dict[str, Route]) -> list[Handle[T]]:
        given = self._client, self._refusals, self._timeout_s, self._clock
        if (found := sending_tracing()) is None or not routes:
            return bulk.send(*given)
        where = ", ".join(route.topic for route in routes.values())
        with sending(found, where, None, bulk.count) as trace:
            routes.update({queue: trace.on(route) for queue, route in routes.items()})
            return bulk.send(*given)

    def close(self) -> None:
        """Deliver what is on its way, for some seconds at the most, and end."""
        self._client.close()

    def _topic(self, queue: str) -> str:
        return Topics(self._prefix, queue).tasks

    def _route(self, queue: str, deadline: Deadline) -> Route:
        try:
            return self._routes.get(queue, deadline)
        except Unreachable:
            # Said again with the whole deadline, not with what was left of it.
            raise self._refusals.unreachable() from None

    def _hand_over(
        self,
        route: Route,
        call: TaskCall[Any],
        value: bytes,
        delivery: Delivery | AsyncDelivery,
        deadline: Deadline,
    ) -> None:
        while not self._try_hand_over(route, call, value, delivery):
            if deadline.over():
                raise self._refusals.unacknowledged(call.id)
            self._client.wait_for_room()

    def _try_hand_over(
        self,
        route: Route,
        call: TaskCall[Any],
        value: bytes,
        delivery: Delivery | AsyncDelivery,
    ) -> bool:
        """False where the client's queue is full."""
        p = partition_for(call.key, route.partitions)
        try:
            return self._client.send(route.topic, call.key, value, p, route.headers[p], delivery)
        except KafkaException as error:
            raise self._refused(error.args[0], call, value, route) from None

    def _accepted(
        self,
        call: TaskCall[T],
        task: Task,
        value: bytes,
        route: Route,
        delivery: Delivery | AsyncDelivery,
    ) -> Handle[T]:
        if delivery.error is not None:
            raise self._refused(delivery.error, call, value, route)
        self._count.accepted(call)
        self._refusals.trouble = ""
        if is_past(call, task.enqueued_at):
            about = {"task_id": call.id, "task": call.name, "queue": call.queue}
            past = iso(call.start.at_ms)
            logger.warning("task %s: %s is past, it runs at once", call.id, past, extra=about)
        since = own_since(delivery.appended_at) if call.is_generated else None
        handle: Handle[T] = Handle(call.id, call.queue, self._ways, call.definition, since)
        for hook in self._hooks().after_enqueue:
            hook(task, handle)
        return handle

    def _refused(
        self, error: KafkaError, call: TaskCall[Any], value: bytes, route: Route
    ) -> TaskmillError:
        if error.code() in STALE:
            self._routes.forget(call.queue)
        return self._refusals.of(error, call.id, route.topic, len(value))


def _traced(
    route: Route, call: TaskCall[Any], given: TaskCall[Any], trace: Sending | None
) -> Route:
    """`route` for `call`, which was `given` before the hooks, with what is carried of its trace."""
    if trace is None:
        return route
    if call.id != given.id:
        trace.names(call.id)
    return trace.on(route)
