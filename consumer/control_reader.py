"""Reads `control` for the partitions that a worker owns: what is asked of tasks while they wait.

Not by subscribing: a partition of `control` is read where the worker is at work on the same one of
`tasks`, from the offset that its group committed, which moves in the worker's own transactions (see
Orders). The topic may never come into being; it is looked for, and made by whoever asks first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from taskmill.consumer.control_topic import BATCH, CALL_S, GONE, ControlTopic
from taskmill.consumer.core import Core
from taskmill.consumer.orders import Order
from taskmill.consumer.record import Lease
from taskmill.runtime.clock import Deadline
from taskmill.runtime.errors import StoreDamaged, Unreachable
from taskmill.runtime.kafka import taken

logger = logging.getLogger("taskmill.worker")

#: How often it is looked whether the topic is there; a first cancellation waits so long.
LOOK_S = 2.0
#: A partition that the worker has just taken over is read after this.
TICK_S = 0.2
#: Orders that have been read and are not carried out, at the most.
HELD = 10_000
#: Between clients, where one failed.
AGAIN_S = 2.0


class ControlReader:
    """Hands the orders of one queue to `core`; `damaged` is told of leases whose table cannot be
    read."""

    def __init__(
        self, core: Core, topic: ControlTopic, damaged: Callable[[list[Lease]], None]
    ) -> None:
        self._core = core
        self._topic = topic
        self._damaged = damaged
        #: What is fetched, by partition.
        self._fetched: dict[int, Lease] = {}

    def run(self) -> None:
        """The thread. Ends once the worker is stopping."""
        stopping = self._core.stopping
        while not stopping.is_set():
            consumer = self._topic.consumer("orders")
            try:
                self._read(consumer)
            except KafkaException as error:
                logger.warning("reading %s: %s; again soon", self._topic.name, _text(error))
                stopping.wait(AGAIN_S)
            finally:
                consumer.close()

    def _read(self, consumer: Consumer) -> None:
        core, look = self._core, Deadline(0, self._core.clock)
        self._fetched = {}
        is_there = False
        while not core.stopping.is_set():
            if look.over():
                is_there = self._look(consumer)
                look = Deadline(LOOK_S, core.clock)
            if not is_there:
                core.stopping.wait(LOOK_S)
                continue
            with core.changed:
                if core.protocol.orders_held >= HELD:
                    core.changed.wait(TICK_S)
                    continue
            self._follow(consumer)
            if not self._fetched:
                core.stopping.wait(TICK_S)
            elif not self._take(consumer):
                is_there, look = False, Deadline(0, core.clock)

    def _look(self, consumer: Consumer) -> bool:
        """Whether the topic can be read. One that is gone has taken its offsets with it."""
        found = self._topic.is_there(consumer)
        if found is False:
            if self._fetched:
                consumer.unassign()
                self._fetched = {}
            with self._core.changed:
                self._core.protocol.forget_orders()
        return bool(self._fetched) if found is None else found

    def _follow(self, consumer: Consumer) -> None:
        """Fetch what is owned and restored by now, and nothing else."""
        core = self._core
        with core.changed:
            places = core.protocol.control_places()
        wanted = {lease.partition: lease for lease in places}
        if wanted == self._fetched and None not in places.values():
            return
        if unknown := [lease for lease, at in places.items() if at is None]:
            # Stable: what would move it is older than the restore of its partition.
            found = self._topic.committed(consumer, [lease.partition for lease in unknown])
            with core.changed:
                for lease in unknown:
                    places[lease] = at = found[lease.partition]
                    core.protocol.control_from(lease, at)
        consumer.assign(
            [
                TopicPartition(self._topic.name, lease.partition, at or OFFSET_BEGINNING)
                for lease, at in places.items()
            ]
        )
        self._fetched = wanted

    def _take(self, consumer: Consumer) -> bool:
        """Take what has come; False where the topic is gone."""
        by_partition: dict[int, list[Message]] = {}
        for message in taken(consumer, BATCH, TICK_S):
            error = message.error()
            if error is None:
                by_partition.setdefault(message.partition() or 0, []).append(message)
            elif error.code() in GONE:
                return False
            elif error.code() != KafkaError._PARTITION_EOF:
                logger.warning("reading %s: %s", self._topic.name, error.str())
        for p, batch in by_partition.items():
            lease = self._fetched.get(p)
            if lease is not None and not self._hand_over(lease, batch):
                # It is fetched again from where it was, once it can be.
                del self._fetched[p]
        return True

    def _hand_over(self, lease: Lease, batch: list[Message]) -> bool:
        try:
            return self._core.obey(lease, self._topic.orders(batch, lease.partition))
        except Unreachable as error:
            # A registry that is away: nothing is passed over that it alone can read.
            logger.warning("%s; waiting", error)
            self._core.stopping.wait(1.0)
        except StoreDamaged as error:
            logger.error("%s", error)
            self._damaged([lease])
        return False


class CatchUp:
    """Reads what lies on a partition of `control` when it is taken over, so that nothing of it
    begins that was cancelled by then. For one thread."""

    def __init__(self, topic: ControlTopic) -> None:
        self._topic = topic
        self._consumer: Consumer | None = None
        self._is_there = False
        self._look = Deadline(0, topic.clock)

    def read(self, p: int, stop: Callable[[], bool]) -> tuple[int, list[Order]] | None:
        """The group's offset in `p`, and the orders from there on, HELD at the most. None: there is
        no such topic, or Kafka did not answer in time: ControlReader gets there later."""
        try:
            return self._read(p, stop)
        except (KafkaException, Unreachable) as error:
            logger.warning("%s [%d] is read later: %s", self._topic.name, p, _text(error))
            self.close()
            return None

    def _read(self, p: int, stop: Callable[[], bool]) -> tuple[int, list[Order]] | None:
        topic = self._topic
        if self._consumer is None:
            self._consumer = topic.consumer("past")
        consumer = self._consumer
        if self._look.over():
            self._is_there = bool(topic.is_there(consumer))
            self._look = Deadline(LOOK_S, topic.clock)
        if not self._is_there:
            return None
        at = topic.committed(consumer, [p])[p]
        low, end = consumer.get_watermark_offsets(TopicPartition(topic.name, p), CALL_S)
        orders: list[Order] = []
        if max(at, low) >= end:
            return at, orders
        consumer.assign([TopicPartition(topic.name, p, at or OFFSET_BEGINNING)])
        deadline = Deadline(CALL_S, topic.clock)
        try:
            is_read = False
            while not (is_read or stop() or deadline.over() or len(orders) >= HELD):
                messages = taken(consumer, BATCH, TICK_S)
                errors = [error for m in messages if (error := m.error()) is not None]
                is_read = any(error.code() == KafkaError._PARTITION_EOF for error in errors)
                orders += topic.orders([m for m in messages if m.error() is None], p)
                # The end of a partition is told once a fetch has waited in vain.
                is_read = is_read or (bool(orders) and orders[-1].offset + 1 >= end)
        finally:
            consumer.unassign()
        return at, orders

    def close(self) -> None:
        """Its client goes."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


def _text(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return first.str() if isinstance(first, KafkaError) else str(first)
