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


def transactional_producer(
    settings: Settings, client_id: str, transactional_id: str, timeout_ms: int, clock: Clock
) -> Producer:
    """A producer for short transactions, which follow each other; not initialised."""
    return Producer(
        client_config(
            settings,
            client_id,
            clock=clock,
            transactional_id=transactional_id,
            transaction_timeout_ms=timeout_ms,
            acks="all",
            partitioner="murmur2_random",
            # Everything of a transaction is handed over in one go; waiting gains nothing.
            linger_ms=0,
            # The broker answers "the one before is still being completed" to a transaction that
            # follows at once; librdkafka's pause of 100 ms then was the whole commit time (p50 106
            # ms, with 2 ms: 9 ms).
            retry_backoff_ms=2,
            retry_backoff_max_ms=10,
            # After an outage of all brokers librdkafka 2.16 otherwise drops those it knows, the
            # group's coordinator among them, and send_offsets then waits for it for ever, its
            # time-out ignored (librdkafka #5511, #5456). With this: back after 1.5 s.
            metadata_recovery_strategy="none",
            compression_type="lz4",
            # Dead letters carry the largest task, and headers.
            message_max_bytes=settings.max_task_bytes + 1024 * 1024,
            # A topic that takes less than a batch holds refuses it as a whole, time and again:
            # librdkafka does not split it (#1716).
            batch_size=min(_BATCH_BYTES, max_task_record_bytes(settings)),
            queue_buffering_max_messages=1_000_000,
        )
    )


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
            producer = transactional_producer(
                self._settings,
                self._transactional_id,
                self._transactional_id,
                TRANSACTION_TIMEOUT_MS,
                self._clock,
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
