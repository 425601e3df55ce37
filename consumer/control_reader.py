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

from taskmill.consumer.core import Core
from taskmill.consumer.orders import Order
from taskmill.consumer.record import Lease
from taskmill.runtime.clock import Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import DecodeError, StoreDamaged, Unreachable
from taskmill.runtime.kafka import client_config
from taskmill.runtime.partition import partition_for
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import CANCEL, Control

logger = logging.getLogger("taskmill.worker")

#: How often it is looked whether the topic is there; a first cancellation waits so long.
LOOK_S = 2.0
#: A partition that the worker has just taken over is read after this.
TICK_S = 0.2
#: Orders at a time, and those that have been read and are not carried out at the most.
BATCH, HELD = 1_000, 10_000
#: One question to Kafka.
CALL_S = 5.0
#: Between clients, where one failed.
AGAIN_S = 2.0

_GONE = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


class ControlReader:
    """Hands the orders of one queue to `core`. `partitions`: how many `tasks` has; `damaged` is
    told of leases whose table cannot be read."""

    def __init__(
        self,
        core: Core,
        settings: Settings,
        topic: str,
        partitions: int,
        group: str,
        codec: Codec,
        damaged: Callable[[list[Lease]], None],
    ) -> None:
        self._core = core
        self._settings = settings
        self._topic = topic
        self._partitions = partitions
        self._group = group
        self._decode = codec.decode_control
        self._damaged = damaged
        #: What is fetched, by partition.
        self._fetched: dict[int, Lease] = {}
        #: What was told once: of a count that differs, and of records that are passed over.
        self._told: set[str] = set()

    def run(self) -> None:
        """The thread. Ends once the worker is stopping."""
        stopping = self._core.stopping
        while not stopping.is_set():
            consumer = self._consumer()
            try:
                self._read(consumer)
            except KafkaException as error:
                logger.warning("reading %s: %s; again soon", self._topic, error.args[0].str())
                stopping.wait(AGAIN_S)
            finally:
                consumer.close()

    def _consumer(self) -> Consumer:
        return Consumer(
            client_config(
                self._settings,
                f"control-{self._topic}",
                clock=self._core.clock,
                # Whose offsets these are; it is not joined.
                group_id=self._group,
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                auto_offset_reset="earliest",
                # It is asked for stable offsets too.
                isolation_level="read_committed",
                queued_min_messages=BATCH,
                queued_max_messages_kbytes=1024,
                fetch_message_max_bytes=64 * 1024,
                # An idle topic costs two requests a second.
                fetch_wait_max_ms=500,
            )
        )

    def _read(self, consumer: Consumer) -> None:
        core, look = self._core, Deadline(0, self._core.clock)
        self._fetched = {}
        is_there = False
        while not core.stopping.is_set():
            if look.over():
                is_there = self._is_there(consumer)
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

    def _is_there(self, consumer: Consumer) -> bool:
        """Whether the topic can be read. One that is gone has taken its offsets with it."""
        try:
            found = consumer.list_topics(self._topic, timeout=CALL_S).topics.get(self._topic)
        except KafkaException as error:
            logger.debug("looking for %s: %s", self._topic, error.args[0].str())
            return bool(self._fetched)
        if found is None or (found.error is not None and found.error.code() in _GONE):
            self._forget(consumer)
            return False
        count = len(found.partitions)
        if found.error is not None or not count:
            return bool(self._fetched)
        if count != self._partitions:
            self._tell(
                f"{self._topic} has {count} partitions, and the queue's other topics have "
                f"{self._partitions}: nothing is cancelled. Delete it, the next cancellation makes "
                "it anew"
            )
            self._forget(consumer)
            return False
        return True

    def _forget(self, consumer: Consumer) -> None:
        if self._fetched:
            consumer.unassign()
            self._fetched = {}
        with self._core.changed:
            self._core.protocol.forget_orders()

    def _follow(self, consumer: Consumer) -> None:
        """Fetch what is owned and restored by now, and nothing else."""
        core = self._core
        with core.changed:
            places = core.protocol.control_places()
        wanted = {lease.partition: lease for lease in places}
        if wanted == self._fetched and None not in places.values():
            return
        if unknown := [lease for lease, at in places.items() if at is None]:
            for lease, at in self._committed(consumer, unknown).items():
                places[lease] = at
                with core.changed:
                    core.protocol.control_from(lease, at)
        consumer.assign(
            [
                TopicPartition(self._topic, lease.partition, at or OFFSET_BEGINNING)
                for lease, at in places.items()
            ]
        )
        self._fetched = wanted

    def _committed(self, consumer: Consumer, leases: list[Lease]) -> dict[Lease, int]:
        """Stable ones: once a partition is restored, no older transaction may move one."""
        asked = [TopicPartition(self._topic, lease.partition) for lease in leases]
        found = {tp.partition: tp for tp in consumer.committed(asked, timeout=CALL_S)}
        for tp in found.values():
            if tp.error is not None:
                raise KafkaException(tp.error)
        return {lease: max(found[lease.partition].offset, 0) for lease in leases}

    def _take(self, consumer: Consumer) -> bool:
        """Take what has come; False where the topic is gone."""
        # One record first, as in poll.py: consume(n, t) waits for n of them, or for t.
        messages = consumer.consume(1, TICK_S)
        if messages:
            messages += consumer.consume(BATCH - 1, 0)
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            error = message.error()
            if error is None:
                by_partition.setdefault(message.partition() or 0, []).append(message)
            elif error.code() in _GONE:
                return False
            elif error.code() != KafkaError._PARTITION_EOF:
                logger.warning("reading %s: %s", self._topic, error.str())
        for p, batch in by_partition.items():
            lease = self._fetched.get(p)
            if lease is not None and not self._hand_over(lease, batch):
                # It is fetched again from where it was, once it can be.
                del self._fetched[p]
        return True

    def _hand_over(self, lease: Lease, batch: list[Message]) -> bool:
        now = self._core.clock.now_ms()
        try:
            orders = [self._order(message, lease.partition, now) for message in batch]
            return self._core.obey(lease, orders)
        except Unreachable as error:
            # A registry that is away: nothing is passed over that it alone can read.
            logger.warning("%s; waiting", error)
            self._core.stopping.wait(1.0)
        except StoreDamaged as error:
            logger.error("%s", error)
            self._damaged([lease])
        return False

    def _order(self, message: Message, p: int, now_ms: int) -> Order:
        offset = message.offset()
        assert offset is not None, "a record has one"
        try:
            control = self._decode(message.value())
            self._check(control, message.key(), p)
        except DecodeError as error:
            self._tell(f"passed over on {self._topic} [{p}] at {offset}: {error}")
            return Order(offset, None)
        return Order(offset, control, now_ms)

    def _check(self, control: Control, key: bytes | str | None, p: int) -> None:
        """Raise DecodeError for what is not this partition's, or not known here."""
        identity = control.id.encode()
        if key != identity:
            raise DecodeError(f"its key is not its id, {control.id!r:.80}")
        if partition_for(identity, self._partitions) != p:
            raise DecodeError("murmur2 of its key says another partition")
        if control.action != CANCEL:
            raise DecodeError(f"action {control.action!r:.80} is not known here")

    def _tell(self, what: str) -> None:
        """Log it once, and a hundred such things at the most."""
        if what not in self._told and len(self._told) < 100:
            self._told.add(what)
            logger.warning("%s", what)
