"""Copies partitions in transactions that carry the position: a kill repeats and loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, Message, Producer, TopicPartition

from taskmill.consumer.bounded import BATCH, CALL_S, Reader
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import Unreachable
from taskmill.runtime.kafka import client_config

#: One transaction; the broker aborts it beyond that, and so frees its readers.
_TRANSACTION_MS = 60_000
#: A probe's: one that was let in and then killed holds up readers for so long.
_PROBE_MS = 5_000

#: Copies are made under these, until they are complete: nothing may be deleted or compacted before
#: it was counted; and a record that its sender compressed better than we do must still fit. 8 MiB
#: is the most that managed brokers take.
_COPY_BYTES = 8 * 1024 * 1024

#: `max.message.bytes` of a topic that takes no task: 95 bytes is the least that a batch with a task
#: has (61 for the batch, 8 for the record, 26 for the Task), and 78 what the marker of a
#: transaction has, which must still get through.
CLOSED_BYTES = 90
_PROBE = bytes(64)


def copy_configs(configs: dict[str, str]) -> dict[str, str]:
    """The settings of a topic with `configs`, while it is being filled."""
    largest = max(_COPY_BYTES, int(configs.get("max.message.bytes", "0")))
    return {
        **configs,
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "max.message.bytes": str(largest),
    }


class Position(NamedTuple):
    """How far a partition was copied: the next offset (None: not begun), and records written."""

    offset: int | None
    written: int


#: Where a record goes: its partition and headers; None: nowhere.
Place = Callable[[Message], tuple[int, list[Any]] | None]


def mover_name(settings: Settings, queue: str) -> str:
    """The group that keeps the positions of copies, and the transactional.id."""
    return f"{settings.prefix}.migrate.{queue}"


def what_moves(queue: str) -> str:
    """What is being done, in words."""
    return f"`topics migrate` of queue {queue!r}"


class Mover(Reader):
    """A reader with a transactional producer.

    A second one for the same queue fences the first, and ends the transaction it left open.
    """

    def __init__(self, settings: Settings, queue: str, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(settings, mover_name(settings, queue), what_moves(queue), clock)
        self._producer = self._new_producer(self.name, _TRANSACTION_MS)
        with self.told():
            self._producer.init_transactions(CALL_S)

    def _new_producer(self, transactional_id: str, timeout_ms: int) -> Producer:
        return Producer(
            client_config(
                self._settings,
                "migrate",
                clock=self._clock,
                transactional_id=transactional_id,
                transaction_timeout_ms=timeout_ms,
                acks="all",
                linger_ms=5,
                # As in consumer/commit.py: else each transaction waits for the one before.
                retry_backoff_ms=2,
                retry_backoff_max_ms=10,
                compression_type="lz4",
                # librdkafka measures before it compresses; the topic has the last word.
                message_max_bytes=1_000_000_000,
                queue_buffering_max_messages=4 * BATCH,
            )
        )

    def close(self) -> None:
        """Close both clients; an open transaction is aborted by the next Mover."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        super().close()

    def positions(self, topic: str, partitions: int) -> list[Position]:
        """How far each partition of `topic` was copied."""
        with self.told():
            found = self._consumer.committed(
                [TopicPartition(topic, p) for p in range(partitions)], timeout=CALL_S
            )
        by_partition = {tp.partition: tp for tp in found}
        return [
            Position(tp.offset, int(tp.metadata or 0)) if tp.offset >= 0 else Position(None, 0)
            for tp in (by_partition[p] for p in range(partitions))
        ]

    def copy(
        self, topic: str, p: int, messages: list[Message], to: str, place: Place, at: Position
    ) -> Position:
        """Write `messages` of `topic` [p] to the places that `place` says on `to`, together with
        the position behind them; `at` says that offset, and how many were written before."""
        written = at.written
        with self.told():
            self._producer.begin_transaction()
            for message in messages:
                placed = place(message)
                if placed is not None:
                    self._produce(to, message.value(), message.key(), *placed)
                    written += 1
            assert at.offset is not None
            self._producer.send_offsets_to_transaction(
                [TopicPartition(topic, p, at.offset, metadata=str(written))],
                self._consumer.consumer_group_metadata(),
                CALL_S,
            )
            self._producer.commit_transaction(CALL_S)
        return Position(at.offset, written)

    def _produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        headers: list[Any],
    ) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, partition, headers=headers)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def write(self, topic: str, key: bytes, value: bytes | None) -> None:
        """Write one record, unless another Mover has taken this one's place."""
        with self.told():
            self._producer.begin_transaction()
            self._producer.produce(topic, value, key, 0)
            self._producer.commit_transaction(CALL_S)

    def wait_closed(self, topic: str, partitions: int) -> None:
        """Wait until each partition refuses records: its leader has seen that the topic is closed.

        Tried with records of transactions that are aborted, so that none is ever seen; and with a
        client of its own, as what it learns of the topic is soon wrong.
        """
        probe = self._new_producer(f"{self.name}.probe", _PROBE_MS)
        deadline = self._clock.monotonic() + CALL_S
        open_still = set(range(partitions))
        with self.told():
            probe.init_transactions(CALL_S)
            while open_still:
                refused = _Refused()
                probe.begin_transaction()
                for p in open_still:
                    probe.produce(topic, _PROBE, b"probe", p, on_delivery=refused)
                probe.flush(CALL_S)
                probe.abort_transaction(CALL_S)
                open_still -= refused.partitions
                if open_still and self._clock.monotonic() > deadline:
                    raise Unreachable(f"{topic} [{min(open_still)}] still takes records")


class _Refused:
    """A delivery report that notes which partitions found the record too large."""

    def __init__(self) -> None:
        self.partitions: set[int] = set()

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        p = message.partition()
        if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE and p is not None:
            self.partitions.add(p)
