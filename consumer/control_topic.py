"""The topic `control` as workers read it: whether it is there, where they are in it, its orders."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from taskmill.consumer.orders import Order
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import DecodeError
from taskmill.runtime.kafka import client_config
from taskmill.runtime.partition import partition_for
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import CANCEL, RESCHEDULE, Control

logger = logging.getLogger("taskmill.worker")

#: Orders at a time.
BATCH = 1_000
#: One question to Kafka.
CALL_S = 5.0

GONE = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


class ControlTopic:
    """`name`, of a queue whose `tasks` has so many `partitions`, as `group` reads it."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        partitions: int,
        group: str,
        codec: Codec,
        clock: Clock,
    ) -> None:
        self.name = name
        self.clock = clock
        self._settings = settings
        self._partitions = partitions
        self._group = group
        self._decode = codec.decode_control
        #: What was told once: of a count that differs, and of records that are passed over.
        self._told: set[str] = set()

    def consumer(self, role: str) -> Consumer:
        """One of given places: the group's offsets are read, and it is not joined."""
        return Consumer(
            client_config(
                self._settings,
                f"control-{role}-{self.name}",
                clock=self.clock,
                group_id=self._group,
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                auto_offset_reset="earliest",
                # It is asked for stable offsets too.
                isolation_level="read_committed",
                enable_partition_eof=True,
                queued_min_messages=BATCH,
                queued_max_messages_kbytes=1024,
                fetch_message_max_bytes=64 * 1024,
                # An idle topic costs two requests a second.
                fetch_wait_max_ms=500,
            )
        )

    def is_there(self, consumer: Consumer) -> bool | None:
        """Whether it can be read; None: Kafka does not say."""
        try:
            found = consumer.list_topics(self.name, timeout=CALL_S).topics.get(self.name)
        except KafkaException as error:
            logger.debug("looking for %s: %s", self.name, error.args[0].str())
            return None
        if found is None or (found.error is not None and found.error.code() in GONE):
            return False
        count = len(found.partitions)
        if found.error is not None or not count:
            return None
        if count != self._partitions:
            self._tell(
                f"{self.name} has {count} partitions, and the queue's other topics have "
                f"{self._partitions}: nothing is cancelled. Delete it, the next cancellation makes "
                "it anew"
            )
        return count == self._partitions

    def committed(self, consumer: Consumer, partitions: Iterable[int]) -> dict[int, int]:
        """Where each is read from: the group's stable offset, 0 where there is none. Raises
        KafkaException."""
        asked = [TopicPartition(self.name, p) for p in partitions]
        found = consumer.committed(asked, timeout=CALL_S)
        for tp in found:
            if tp.error is not None:
                raise KafkaException(tp.error)
        return {tp.partition: max(tp.offset, 0) for tp in found}

    def orders(self, messages: Iterable[Message], p: int) -> list[Order]:
        """What those of partition `p` ask for. Raises Unreachable where a registry is away."""
        now_ms = self.clock.now_ms()
        return [self._order(message, p, now_ms) for message in messages]

    def _order(self, message: Message, p: int, now_ms: int) -> Order:
        offset = message.offset()
        assert offset is not None, "a record has one"
        try:
            control = self._decode(message.value())
            self._check(control, message.key(), p)
        except DecodeError as error:
            self._tell(f"passed over on {self.name} [{p}] at {offset}: {error}")
            return Order(offset, None)
        return Order(offset, control, now_ms)

    def _check(self, control: Control, key: bytes | str | None, p: int) -> None:
        """Raise DecodeError for what is not this partition's, or not known here."""
        identity = control.id.encode()
        if key != identity:
            raise DecodeError(f"its key is not its id, {control.id!r:.80}")
        if partition_for(identity, self._partitions) != p:
            raise DecodeError("murmur2 of its key says another partition")
        if control.action not in (CANCEL, RESCHEDULE):
            raise DecodeError(f"action {control.action!r:.80} is not known here")
        if control.action == RESCHEDULE and control.not_before is None:
            raise DecodeError("a reschedule without not_before")

    def _tell(self, what: str) -> None:
        """Log it once, and a hundred such things at the most."""
        if what not in self._told and len(self._told) < 100:
            self._told.add(what)
            logger.warning("%s", what)
