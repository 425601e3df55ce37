"""Asks something of tasks that were enqueued: puts records on `control`, and makes the topic."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import NamedTuple

from confluent_kafka import KafkaException

from taskmill.producer.client import ProducerClient
from taskmill.producer.delivery import AsyncDelivery, Delivery
from taskmill.producer.reads import Orders, Reads
from taskmill.producer.refusal import STALE, Refusals
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError, InvalidInput, Unreachable
from taskmill.runtime.kafka import bootstrap_servers
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topics import Kind, TopicAdmin, Topics, ensure
from taskmill.schemas.codec import Codec, check_id
from taskmill.schemas.models import CANCEL, RESCHEDULE, Control, TaskState

#: A count is asked again after this. One on a wrong partition is not re-routed, as a task is.
FRESH_S = 1.0


class Ways(NamedTuple):
    """What handles are made with: how to read of their tasks, and how to ask something of them.

    Each is of the process that calls it, and may raise ClosedError.
    """

    reader: Callable[[], Reads]
    sender: Callable[[], Orders]


class ControlSender:
    """One process's way to `control`. Thread-safe; what begins with `a` from any event loop."""

    def __init__(
        self, settings: Settings, name: str, codec: Codec, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._settings = settings
        self._encode = codec.encode_control
        self._clock = clock
        self._timeout_s = settings.enqueue_timeout_s
        self._refusals = Refusals(
            bootstrap_servers(settings),
            self._timeout_s,
            of="what is asked of task",
            again="asking it again is safe",
        )
        self._client = self._new_client(settings, f"{name}-control")
        self._lock = threading.Lock()
        #: By queue: the count of partitions, and until when it holds.
        self._counts: dict[str, tuple[int, float]] = {}

    def _new_client(self, settings: Settings, name: str) -> ProducerClient:
        return ProducerClient(settings, name, self._refusals, self._clock)

    def cancel(
        self, queue: str, task_id: str, name: str | None = None, actor: str | None = None
    ) -> None:
        """Ask that the task be cancelled; returns once that is acknowledged.

        `name` is the task's, where that is known. Raises InvalidInput for an ID, or a queue that
        has no topics; ConfigError for topics that contradict each other; Unreachable; ClosedError.
        """
        self.send(queue, self._cancellation(task_id, name, actor))

    async def acancel(
        self, queue: str, task_id: str, name: str | None = None, actor: str | None = None
    ) -> None:
        """As `cancel`, for asyncio."""
        await self.asend(queue, self._cancellation(task_id, name, actor))

    def reschedule(
        self, queue: str, state: TaskState, not_before: int, actor: str | None = None
    ) -> None:
        """Ask that the task of `state`, which is scheduled, wait until `not_before` (UTC ms);
        returns once that is acknowledged. Raises as `cancel`."""
        asked = Control(
            state.id,
            RESCHEDULE,
            self._clock.now_ms(),
            state.generation,
            state.name,
            not_before,
            state.seq,
            state.next_attempt_at,
            state.enqueued_at,
            actor,
        )
        self.send(queue, asked)

    def now_ms(self) -> int:
        """UTC milliseconds, from which delays count."""
        return self._clock.now_ms()

    def _cancellation(self, task_id: str, name: str | None, actor: str | None) -> Control:
        check_id(task_id)
        return Control(task_id, CANCEL, self._clock.now_ms(), name=name or None, actor=actor)

    def send(self, queue: str, control: Control) -> None:
        """Put `control` on its topic; returns once it is acknowledged. Raises as `cancel`."""
        value = self._encode(control)
        deadline = Deadline(self._timeout_s, self._clock)
        delivery = Delivery()
        count = self._count(queue, deadline)
        self._hand_over(queue, control.id, value, count, delivery, deadline)
        if not delivery.wait(deadline.left()):
            raise self._refusals.unacknowledged(control.id)
        self._check(delivery, queue, control.id, value)

    async def asend(self, queue: str, control: Control) -> None:
        """As `send`, for asyncio."""
        value = self._encode(control)
        deadline = Deadline(self._timeout_s, self._clock)
        delivery = AsyncDelivery()
        try:
            async with asyncio.timeout(deadline.left()):
                count = await asyncio.to_thread(self._count, queue, deadline)
                await asyncio.to_thread(
                    self._hand_over, queue, control.id, value, count, delivery, deadline
                )
                await delivery.done
        except TimeoutError:
            raise self._refusals.unacknowledged(control.id) from None
        self._check(delivery, queue, control.id, value)

    def close(self) -> None:
        """Deliver what is on its way, for some seconds at the most, and end."""
        self._client.close()

    def _hand_over(
        self,
        queue: str,
        task_id: str,
        value: bytes,
        count: int,
        delivery: Delivery | AsyncDelivery,
        deadline: Deadline,
    ) -> None:
        topic, key = self._topics(queue).control, task_id.encode()
        p = partition_for(key, count)
        try:
            while not self._client.send(topic, key, value, p, [], delivery):
                if deadline.over():
                    raise self._refusals.unacknowledged(task_id)
                self._client.wait_for_room()
        except KafkaException as error:
            self._counts.pop(queue, None)
            raise self._refusals.of(error.args[0], task_id, topic, len(value)) from None

    def _check(
        self, delivery: Delivery | AsyncDelivery, queue: str, task_id: str, value: bytes
    ) -> None:
        if delivery.error is None:
            self._refusals.trouble = ""
            return
        if delivery.error.code() in STALE:
            self._counts.pop(queue, None)
        topic = self._topics(queue).control
        raise self._refusals.of(delivery.error, task_id, topic, len(value))

    def _topics(self, queue: str) -> Topics:
        return Topics(self._settings.prefix, queue)

    # ---- the topic ------------------------------------------------------------------------------

    def _count(self, queue: str, deadline: Deadline) -> int:
        """How many partitions `control` has; it is made where it is missing."""
        if not self._lock.acquire(timeout=deadline.left()):
            raise self._refusals.unreachable()
        try:
            count, until = self._counts.get(queue, (0, 0.0))
            if self._clock.monotonic() >= until:
                count = self._find(queue, deadline)
                self._counts[queue] = count, self._clock.monotonic() + FRESH_S
            return count
        except Unreachable:
            raise self._refusals.unreachable() from None
        finally:
            self._lock.release()

    def _find(self, queue: str, deadline: Deadline) -> int:
        topics = self._topics(queue)
        tasks, found = self._ask(topics, deadline)
        if tasks is None:
            raise InvalidInput(
                f"there is no queue {queue!r} (no topic {topics.tasks}): nothing was sent"
            )
        if found is None:
            left = max(0.1, deadline.left())
            ensure(self._settings, queue, [Kind.CONTROL], timeout_s=left, clock=self._clock)
            tasks, found = self._ask(topics, deadline)
        if found is None or found != tasks:
            raise ConfigError(
                f"{topics.control} has {found or 'no'} partitions and {topics.tasks} {tasks}: no "
                f"worker reads it. Delete {topics.control}, the next cancellation makes it anew"
            )
        return found

    def _ask(self, topics: Topics, deadline: Deadline) -> tuple[int | None, int | None]:
        """The partitions of `tasks` and `control`; None where there is no such topic."""
        # An admin client: a broker may make the topic that a producer asks for.
        there = TopicAdmin(self._settings, max(0.1, deadline.left()), self._clock).metadata().topics
        counts = {name: len(topic.partitions) for name, topic in there.items()}
        return counts.get(topics.tasks), counts.get(topics.control)
