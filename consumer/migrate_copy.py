"""Copies partitions in transactions that carry the position: a kill repeats and loses nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError, Unreachable
from taskmill.runtime.kafka import bootstrap_servers, client_config, is_fatal

logger = logging.getLogger("taskmill.migrate")

#: Records of one transaction: it is over in a fraction of a second, its overhead is small beside.
_BATCH = 10_000
_WAIT_S = 0.1
#: Nothing read for this long, and something there: a transaction is open, or nobody answers. The
#: broker ends one that lost its producer within 15 s of its own time-out (a minute by default).
_STALLED_S = 120.0
#: One transaction; the broker aborts it beyond that, and so frees its readers.
_TRANSACTION_MS = 60_000
#: A probe's: one that was let in and then killed holds up readers for so long.
_PROBE_MS = 5_000
_CALL_S = 30.0

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


class Reader:
    """Reads partitions, and the positions of copies. Not thread-safe."""

    def __init__(self, settings: Settings, queue: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self.name = mover_name(settings, queue)
        self._settings = settings
        self._queue = queue
        self._clock = clock
        self._where = bootstrap_servers(settings)
        self._consumer = self._new_consumer()
        self._known: set[str] = set()

    def _new_consumer(self) -> Consumer:
        return Consumer(
            client_config(
                self._settings,
                "migrate-reader",
                clock=self._clock,
                group_id=self.name,
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                enable_partition_eof=True,
                # A partition's end is the usual case (as in runtime/changelog.py).
                fetch_wait_max_ms=5,
                fetch_error_backoff_ms=50,
                # Also the most that one transaction holds, in bytes.
                queued_max_messages_kbytes=16 * 1024,
                fetch_queue_backoff_ms=10,
            )
        )

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()

    def forget(self, topic: str) -> None:
        """`topic` was made anew: what the client knows of it is of the old one."""
        if topic in self._known:
            self._known.clear()
            self._consumer.close()
            self._consumer = self._new_consumer()

    def read(self, topic: str, p: int, start: int, end: int) -> Iterator[tuple[list[Message], int]]:
        """Committed records of a partition up to `end`, in batches, and the offset behind each.

        Waits for transactions that are open in there. Raises Unreachable where that takes minutes.
        """
        if start >= end:
            return
        if topic not in self._known:
            # Assigned to a topic that it has not heard of, the client waits up to a second for its
            # next look round.
            with self._told():
                self._consumer.list_topics(topic, _CALL_S)
            self._known.add(topic)
        where = TopicPartition(topic, p, start)
        self._consumer.assign([where])
        try:
            reached, moved_at = start, self._clock.monotonic()
            while reached < end:
                messages, position = self._take(where)
                if position > reached:
                    reached, moved_at = position, self._clock.monotonic()
                    yield [m for m in messages if (m.offset() or 0) < end], min(reached, end)
                    moved_at = self._clock.monotonic()
                elif self._clock.monotonic() - moved_at > _STALLED_S:
                    raise Unreachable(
                        f"{topic} [{p}] stands at {reached} of {end} for {_STALLED_S:g} s: a "
                        f"transaction is open on it, or {self._where} does not answer"
                    )
        finally:
            self._consumer.unassign()

    def _take(self, where: TopicPartition) -> tuple[list[Message], int]:
        with self._told():
            found = self._consumer.consume(1, _WAIT_S)
            if found:
                # consume() waits until it has all, or the time is over: so first one, then the rest
                found += self._consumer.consume(_BATCH - 1, 0)
            position = self._consumer.position([where])[0].offset
        messages = []
        for message in found:
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                # The position is unknown while no record came.
                position = max(position, message.offset() or 0)
            elif is_fatal(error) or error.code() in _REFUSED:
                raise TaskmillError(f"Kafka refused: {error.str()} ({error.name()})")
            else:
                logger.info("reading %s: %s", where.topic, error.str())
        return messages, position

    def positions(self, topic: str, partitions: int) -> list[Position]:
        """How far each partition of `topic` was copied."""
        with self._told():
            found = self._consumer.committed(
                [TopicPartition(topic, p) for p in range(partitions)], timeout=_CALL_S
            )
        by_partition = {tp.partition: tp for tp in found}
        return [
            Position(tp.offset, int(tp.metadata or 0)) if tp.offset >= 0 else Position(None, 0)
            for tp in (by_partition[p] for p in range(partitions))
        ]

    @contextmanager
    def _told(self) -> Iterator[None]:
        """KafkaException becomes one of ours, in words."""
        try:
            yield
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() in _FENCED:
                raise TaskmillError(
                    f"another `topics migrate` of queue {self._queue!r} took over; this one stops"
                ) from None
            if error.retriable() or error.code() in _AWAY:
                raise Unreachable(
                    f"Kafka at {self._where} did not answer ({error.str()}); the same command "
                    "goes on where this one stopped"
                ) from None
            raise TaskmillError(f"Kafka refused: {error.str()} ({error.name()})") from None


class Mover(Reader):
    """A reader with a transactional producer.

    A second one for the same queue fences the first, and ends the transaction it left open.
    """

    def __init__(self, settings: Settings, queue: str, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(settings, queue, clock)
        self._producer = self._new_producer(self.name, _TRANSACTION_MS)
        with self._told():
            self._producer.init_transactions(_CALL_S)

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
                queue_buffering_max_messages=4 * _BATCH,
            )
        )

    def close(self) -> None:
        """Close both clients; an open transaction is aborted by the next Mover."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        super().close()

    def copy(
        self, topic: str, p: int, messages: list[Message], to: str, place: Place, at: Position
    ) -> Position:
        """Write `messages` of `topic` [p] to the places that `place` says on `to`, together with
        the position behind them; `at` says that offset, and how many were written before."""
        written = at.written
        with self._told():
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
                _CALL_S,
            )
            self._producer.commit_transaction(_CALL_S)
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
                self._producer.poll(_WAIT_S)
            else:
                return

    def write(self, topic: str, key: bytes, value: bytes | None) -> None:
        """Write one record, unless another Mover has taken this one's place."""
        with self._told():
            self._producer.begin_transaction()
            self._producer.produce(topic, value, key, 0)
            self._producer.commit_transaction(_CALL_S)

    def wait_closed(self, topic: str, partitions: int) -> None:
        """Wait until each partition refuses records: its leader has seen that the topic is closed.

        Tried with records of transactions that are aborted, so that none is ever seen; and with a
        client of its own, as what it learns of the topic is soon wrong.
        """
        probe = self._new_producer(f"{self.name}.probe", _PROBE_MS)
        deadline = self._clock.monotonic() + _CALL_S
        open_still = set(range(partitions))
        with self._told():
            probe.init_transactions(_CALL_S)
            while open_still:
                refused = _Refused()
                probe.begin_transaction()
                for p in open_still:
                    probe.produce(topic, _PROBE, b"probe", p, on_delivery=refused)
                probe.flush(_CALL_S)
                probe.abort_transaction(_CALL_S)
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


_REFUSED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
    }
)
_FENCED = frozenset(
    {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
)
_AWAY = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT})
