"""Records and offsets in one Kafka transaction, for those whose records may come twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaException, Producer, TopicPartition

from taskmill.consumer.hand import Hand, NoAnswer
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.kafka import client_config
from taskmill.runtime.topic_table import max_task_record_bytes

#: Others wait for what an open transaction of ours holds back: short.
TRANSACTION_TIMEOUT_MS = 5_000
CALL_TIMEOUT_S = 4.0
#: librdkafka's default.
_BATCH_BYTES = 1_000_000
#: A transaction that has not answered by then hangs for ever (see consumer/commit.py).
PATIENCE_S = 8.0


class Transactions:
    """A producer under one transactional.id, made anew after whatever failed. For one thread."""

    def __init__(self, settings: Settings, transactional_id: str, clock: Clock) -> None:
        self._settings = settings
        self._transactional_id = transactional_id
        self._clock = clock
        self._producer: Producer | None = None
        self._hand: Hand[None] | None = None

    def transact(
        self,
        messages: list[dict[str, Any]],
        offsets: Sequence[TopicPartition] = (),
        metadata: Any = None,
    ) -> None:
        """Commit `messages` (arguments of `produce`) and `offsets`, if any, under the group's
        `metadata` as the last rebalance told it.

        Raises KafkaException, BufferError or TaskmillError where it did not commit, or perhaps did:
        the next one ends it either way, before it begins.
        """
        producer = self._open()
        if self._hand is None:
            self._hand = Hand(f"taskmill-transactions-{self._transactional_id}")
        try:
            self._hand.call(lambda: self._commit(producer, messages, offsets, metadata), PATIENCE_S)
        except NoAnswer:
            self._producer = self._hand = None
            raise TaskmillError(f"a transaction gave no answer in {PATIENCE_S:g} s") from None
        except (KafkaException, BufferError):
            self._drop()
            raise

    def _commit(
        self,
        producer: Producer,
        messages: list[dict[str, Any]],
        offsets: Sequence[TopicPartition],
        metadata: Any,
    ) -> None:
        deadline = Deadline(CALL_TIMEOUT_S, self._clock)
        producer.begin_transaction()
        for message in messages:
            while True:
                try:
                    producer.produce(**message)
                except BufferError:
                    producer.poll(0.1)
                else:
                    break
        if offsets:
            producer.send_offsets_to_transaction(list(offsets), metadata, deadline.left() or 0.001)
        producer.commit_transaction(deadline.left() or 0.001)

    def open(self) -> None:
        """Make the producer ahead of the first transaction, which then need not wait for it.

        Raises KafkaException."""
        self._open()

    def _open(self) -> Producer:
        if self._producer is None:
            producer = Producer(
                client_config(
                    self._settings,
                    self._transactional_id,
                    clock=self._clock,
                    transactional_id=self._transactional_id,
                    transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
                    acks="all",
                    partitioner="murmur2_random",
                    # As the worker's (consumer/commit.py), for the same reasons.
                    linger_ms=0,
                    retry_backoff_ms=2,
                    retry_backoff_max_ms=10,
                    metadata_recovery_strategy="none",
                    compression_type="lz4",
                    message_max_bytes=self._settings.max_task_bytes + 1024 * 1024,
                    # A batch is refused as a whole by a topic that takes less than it holds.
                    batch_size=min(_BATCH_BYTES, max_task_record_bytes(self._settings)),
                )
            )
            producer.init_transactions(CALL_TIMEOUT_S)
            self._producer = producer
        return self._producer

    def _drop(self) -> None:
        if self._producer is not None:
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._producer = None

    def close(self) -> None:
        """Drop the producer; what it has not committed is not."""
        self._drop()
        if self._hand is not None:
            self._hand.end()
            self._hand = None
