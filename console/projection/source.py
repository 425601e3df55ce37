"""Reads committed records of partitions that it is told, each from where it is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from taskmill.console.projection.sight import Partition
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError, Unreachable
from taskmill.runtime.kafka import bootstrap_servers, client_config, is_fatal, taken

logger = logging.getLogger("taskmill.console")

_GONE = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION})


class Source:
    """A consumer without a group: offsets are the store's. Not thread-safe.

    `positions` are the offsets behind what was taken, markers of transactions included where an
    end was reached. All methods raise Unreachable or TaskmillError where Kafka says so.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.positions: dict[Partition, int] = {}
        #: Partitions whose next record had been deleted before it was read.
        self.cut = 0
        self._where = bootstrap_servers(settings)
        with self._told():
            self._consumer = Consumer(
                client_config(
                    settings,
                    "console",
                    clock=clock,
                    # It joins none and commits nothing; librdkafka wants a name.
                    group_id=f"{settings.prefix}.console",
                    enable_auto_commit=False,
                    enable_auto_offset_store=False,
                    isolation_level="read_committed",
                    # An offset that is no more there is said, not passed over.
                    auto_offset_reset="error",
                    enable_partition_eof=True,
                    fetch_wait_max_ms=100,
                    fetch_error_backoff_ms=50,
                    # What is held beside the batch that is being written.
                    queued_max_messages_kbytes=16 * 1024,
                    fetch_queue_backoff_ms=10,
                )
            )

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()

    def begin(self, offsets: Mapping[Partition, int | None]) -> None:
        """Read these partitions too, from these offsets on; None: from their beginning."""
        wanted = []
        for (topic, p), offset in offsets.items():
            self.positions[topic, p] = offset or 0
            wanted.append(TopicPartition(topic, p, OFFSET_BEGINNING if offset is None else offset))
        with self._told():
            # Assigned to a topic that it has not heard of, it waits up to a second to look round.
            for topic in {topic for topic, _ in offsets}:
                self._consumer.list_topics(topic, 10)
            self._consumer.incremental_assign(wanted)

    def end(self, partitions: list[Partition]) -> None:
        """Read these no more."""
        with self._told():
            self._consumer.incremental_unassign([TopicPartition(*one) for one in partitions])
        for one in partitions:
            self.positions.pop(one, None)

    def take(self, most: int, wait_s: float) -> list[Message]:
        """Records, waited for so long; empty: none came."""
        with self._told():
            found = taken(self._consumer, most, wait_s)
        records, last = [], {}
        for message in found:
            error = message.error()
            if error is None:
                records.append(message)
                last[message.topic(), message.partition()] = message
            else:
                self._heed(message, error)
        for where, message in last.items():
            behind = message.offset() + 1  # type: ignore[operator]
            self.positions[where] = max(self.positions[where], behind)  # type: ignore[index]
        return records

    def _heed(self, message: Message, error: KafkaError) -> None:
        where: Partition = (message.topic() or "", message.partition() or 0)
        if error.code() == KafkaError._PARTITION_EOF:
            self.positions[where] = max(self.positions.get(where, 0), message.offset() or 0)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET and where in self.positions:
            self.cut += 1
            logger.warning(
                "%s [%s]: what lay at offset %s was deleted before it was read; going on with "
                "the first that is there", *where, self.positions[where],
            )  # fmt: skip
            # Not by seek: the partition is stopped, which is no state to seek in.
            with self._told():
                self._consumer.incremental_unassign([TopicPartition(*where)])
                self._consumer.incremental_assign([TopicPartition(*where, OFFSET_BEGINNING)])
        elif is_fatal(error):
            raise Unreachable(f"Kafka at {self._where}: {error.str()}")
        elif error.code() in _GONE:
            logger.debug("%s [%s] is gone", *where)
        else:
            logger.info("reading %s: %s", message.topic(), error.str())

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() == KafkaError._INVALID_ARG:
                raise TaskmillError(f"Kafka settings: {error.str()}") from None
            raise Unreachable(f"Kafka at {self._where}: {error.str()}") from None
