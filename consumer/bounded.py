"""Reads stretches of partitions, once, up to an end that was asked before."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError, Unreachable
from taskmill.runtime.kafka import bootstrap_servers, client_config, is_fatal, taken

logger = logging.getLogger("taskmill.reader")

#: Records of one batch.
BATCH = 10_000
_WAIT_S = 0.1
#: Nothing read for this long, and something there: a transaction is open, or nobody answers. The
#: broker ends one that lost its producer within 15 s of its own time-out (a minute by default).
_STALLED_S = 120.0
CALL_S = 30.0


class Reader:
    """Reads committed records of partitions. Not thread-safe."""

    def __init__(
        self, settings: Settings, group: str, what: str, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """`group`: whose offsets it may ask for; it never joins it. `what` is being done, for the
        words of errors: "`topics migrate` of queue 'default'"."""
        self.name = group
        self._what = what
        self._settings = settings
        self._clock = clock
        self._where = bootstrap_servers(settings)
        self._consumer = self._new_consumer()
        self._known: set[str] = set()

    def _new_consumer(self) -> Consumer:
        return Consumer(
            client_config(
                self._settings,
                "reader",
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

    def read(
        self, topic: str, p: int, start: int, end: int
    ) -> Generator[tuple[list[Message], int], None, None]:
        """Committed records of a partition up to `end`, in batches, and the offset behind each.

        Waits for transactions that are open in there. Raises Unreachable where that takes minutes.
        """
        if start >= end:
            return
        if topic not in self._known:
            # Assigned to a topic that it has not heard of, the client waits up to a second for its
            # next look round.
            with self.told():
                self._consumer.list_topics(topic, CALL_S)
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
        with self.told():
            found = taken(self._consumer, BATCH, _WAIT_S)
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

    @contextmanager
    def told(self) -> Iterator[None]:
        """KafkaException becomes one of ours, in words."""
        try:
            yield
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() in FENCED:
                raise TaskmillError(f"another {self._what} took over; this one stops") from None
            if error.retriable() or error.code() in _AWAY:
                raise Unreachable(
                    f"Kafka at {self._where} did not answer ({error.str()}); the same command "
                    "goes on where this one stopped"
                ) from None
            raise TaskmillError(f"Kafka refused: {error.str()} ({error.name()})") from None


_REFUSED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
    }
)
FENCED = frozenset(
    {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
)
_AWAY = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT})
