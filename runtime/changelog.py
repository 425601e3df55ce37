"""Reading a compacted topic back into its local store, and the offsets that this rests on.

What a read-committed reader is told as the end of a partition is its last *stable* offset: with a
transaction open it lies before records that will count (18 instead of 23, measured). So the end is
asked with AdminClient.list_offsets(latest, READ_UNCOMMITTED), and a restore reads committed records
until its position has passed that end; it passes markers and aborted records too. Order matters:
ask for the stable committed offsets first, they wait for the transactions that move them; then the
end; then read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, TimeoutError
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import StoreDamaged, Unreachable
from taskmill.runtime.kafka import OncePerMinute, bootstrap_servers, client_config, taken
from taskmill.runtime.store import Put, Store

logger = logging.getLogger("taskmill.changelog")

#: One record: key, value (None deletes), and the time (ms) with which the topic holds it.
Change = tuple[bytes, bytes | None, int]
ToPuts = Callable[[Sequence[Change]], Iterable[Put]]
Stop = Callable[[], bool]
T = TypeVar("T")

#: Records read, turned into puts and applied at a time: some MiB, and 20 ms without a look at stop.
_BATCH = 2000
#: How long one wait lasts before stop is looked at.
_LOOK_S = 0.1
#: Between two tries of a request that failed.
_RETRY_S = 0.5
_REQUEST_S = 5.0
#: One request for a group's offsets, which waits for stable ones.
_OFFSETS_S = 0.5
#: The same while a transaction is being completed, which takes the broker milliseconds.
_UNSTABLE_S = 0.02
#: How long an open transaction is waited for in silence.
_PATIENCE_S = 1.0
_PROGRESS_S = 5.0
#: No transaction of a worker is open for longer: after 10 s it has timed out, and within another
#: 10 s the broker has looked for such and aborted it.
_HANGING_S = 60.0


#: What it means that a consumer has asked in vain.
_NO_OFFSET = KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "the leader knows no end offset yet")
_UNSTABLE = KafkaError(
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    "unstable offsets: a transaction that moves them is open, or the coordinator is away",
)


class Stopped(Exception):
    """`stop` said so before the work was done; what was read stays in the store."""


class RestoreResult(NamedTuple):
    """What one restore did: records read, seconds taken, and the offset that the store reaches."""

    entries: int
    seconds: float
    end_offset: int


class Committed(NamedTuple):
    """A group's committed offset, and what was said with it."""

    offset: int
    metadata: str


class Changelog:
    """The clients with which one thread restores stores: an admin client and a consumer, reused.

    Every method waits until Kafka answers, however long it is away (one log line a minute), and
    raises Stopped once `stop()` is true.
    """

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._settings = settings
        self._say = OncePerMinute("changelog", clock, bootstrap_servers(settings))
        self._admin = self._new_admin()
        self._consumer = self._new_reader(
            "changelog",
            # Demanded by the client; partitions are assigned by hand, nothing is committed.
            f"{settings.prefix}.changelog",
            auto_offset_reset="earliest",
            enable_partition_eof=True,
            # A short tail is the usual case: with the default of 500 ms each partition waits that
            # long for its first answer, with this 9 ms.
            fetch_wait_max_ms=5,
            fetch_error_backoff_ms=50,
            # Memory: at most so much is fetched ahead of what was applied. Looked at again after
            # 10 ms; with the default of 1 s the reader runs dry (99 k/s, so 173 k/s).
            queued_max_messages_kbytes=16 * 1024,
            fetch_queue_backoff_ms=10,
        )
        #: What asks for the offsets of a group, by group.
        self._groups: dict[str, Consumer] = {}

    def _new_admin(self) -> AdminClient:
        return AdminClient(client_config(self._settings, "changelog-admin", clock=self._clock))

    def _new_reader(self, name: str, group: str, **config: Any) -> Consumer:
        return Consumer(
            client_config(
                self._settings,
                name,
                clock=self._clock,
                group_id=group,
                enable_auto_commit=False,
                isolation_level="read_committed",
                **config,
            )
        )

    def close(self) -> None:
        """Close the consumers; the admin client ends with this object."""
        self._consumer.close()
        for consumer in self._groups.values():
            consumer.close()

    def topic_id(self, topic: str, *, stop: Stop) -> str:
        """`topic` and its UUID, another one when it was deleted and made again."""

        def ask() -> Future[Any]:
            futures = self._admin.describe_topics(
                TopicCollection([topic]), request_timeout=_REQUEST_S
            )
            return futures[topic]

        return f"{topic}/{self._answer(lambda: self._wait(ask(), stop), stop).topic_id}"

    def end_offset(self, topic: str, partition: int, *, stop: Stop) -> int:
        """The offset behind the last record, of open transactions too."""
        where = TopicPartition(topic, partition)

        def ask() -> Future[Any]:
            futures = self._admin.list_offsets(
                {where: OffsetSpec.latest()},  # type: ignore[no-untyped-call]
                isolation_level=IsolationLevel.READ_UNCOMMITTED,
                request_timeout=_REQUEST_S,
            )
            return futures[where]

        def known() -> int:
            offset = int(self._wait(ask(), stop).offset)
            if offset < 0:
                # A leader that has just been elected gives no offset, and no error (-1001).
                raise KafkaException(_NO_OFFSET)
            return offset

        return self._answer(known, stop)

    def stable_offsets(
        self, group: str, topic: str, partitions: Sequence[int], *, stop: Stop
    ) -> dict[int, Committed | None]:
        """What `group` has committed for each partition, None where nothing; waits for a
        transaction that is about to move one (KIP-447)."""
        # Not AdminClient.list_consumer_group_offsets: it dies of SIGSEGV where the coordinator has
        # moved or is loading, as after a broker's end (librdkafka 2.16, #5040). A read-committed
        # consumer asks for stable offsets too; it subscribes to nothing, and so joins nothing.
        consumer = self._groups.get(group)
        if consumer is None:
            consumer = self._groups[group] = self._new_reader("changelog-offsets", group)
        where = [TopicPartition(topic, p) for p in partitions]

        def ask() -> list[TopicPartition]:
            try:
                found = consumer.committed(where, timeout=_OFFSETS_S)
            except KafkaException as failure:
                if failure.args[0].code() == KafkaError._TIMED_OUT:
                    raise KafkaException(_UNSTABLE) from None
                raise
            for one in found:
                if one.error:
                    raise KafkaException(one.error)
            return found

        return {
            one.partition: None
            if one.offset == OFFSET_INVALID
            else Committed(one.offset, one.metadata or "")
            for one in self._answer(ask, stop)
        }

    def restore(
        self, topic: str, partition: int, store: Store, to_puts: ToPuts, *, stop: Stop
    ) -> RestoreResult:
        """Bring `store` up to the end that `topic` has now, from its checkpoint on.

        `to_puts` says what a batch of records means for the store. Waits for transactions that are
        open at that end. Raises StoreDamaged where the store fails, or reaches beyond the end:
        then it is no copy of this topic.
        """
        began = self._clock.monotonic()
        end = self.end_offset(topic, partition, stop=stop)
        start = store.checkpoint()
        if start > end:
            raise StoreDamaged(
                f"the store of {topic} [{partition}] reaches offset {start}, its topic {end}"
            )
        where = TopicPartition(topic, partition, start)
        records, reached = 0, start
        if start < end:
            self._consumer.assign([where])
            try:
                records, reached = self._read(where, end, store, to_puts, stop)
            finally:
                self._consumer.unassign()
        else:
            # Nothing changed, and that is known as of now.
            store.apply((), end)
        return RestoreResult(records, self._clock.monotonic() - began, reached)

    def _read(
        self, where: TopicPartition, end: int, store: Store, to_puts: ToPuts, stop: Stop
    ) -> tuple[int, int]:
        """From `where` until the position has passed `end`; records read, and the position."""
        began = told = self._clock.monotonic()
        stuck: float | None = None
        hanging = float("inf")
        records, reached = 0, where.offset
        while reached < end:
            changes, position = self._take(where)
            if position > reached:
                store.apply(self._puts(to_puts, changes, stop), position)
                records, reached, stuck = records + len(changes), position, None
                hanging = float("inf")
            elif stuck is None:
                stuck = self._clock.monotonic() + _PATIENCE_S
            if stop():
                raise Stopped
            now = self._clock.monotonic()
            name = f"{where.topic} [{where.partition}]"
            if stuck is not None and now >= stuck:
                logger.info("%s waits at %d of %d, for an open transaction", name, reached, end)
                stuck, hanging = float("inf"), now + _HANGING_S
            if now >= hanging:
                hanging = float("inf")
                logger.warning(
                    "%s: a transaction at offset %d has been open for longer than any of a "
                    "worker's may be. A broker has lost its end: look with `kafka-transactions.sh "
                    "find-hanging` (docs/hanging.md)",
                    name,
                    reached,
                )
            if stuck is None and now - told >= _PROGRESS_S:
                told = now
                rate = records / (now - began)
                logger.info("restoring %s: at %d of %d, %.0f/s", name, reached, end, rate)
        return records, reached

    def _take(self, where: TopicPartition) -> tuple[list[Change], int]:
        """What there is, up to a batch, and the offset that comes next; waits a moment for it."""
        messages = taken(self._consumer, _BATCH, _LOOK_S)
        changes: list[Change] = []
        # It has passed all that was handed out, and markers and aborted records behind that.
        position = self._consumer.position([where])[0].offset
        for message in messages:
            error = message.error()
            if error is None:
                key = message.key()
                # A compacted topic has no record without a key; an empty one is nobody's.
                if key:
                    changes.append((key, message.value(), message.timestamp()[1]))
            elif error.code() == KafkaError._PARTITION_EOF:
                # The position is unknown while no record came, as where all were deleted.
                position = max(position, message.offset() or 0)
            else:
                self._say(error)
        return changes, position

    def _puts(self, to_puts: ToPuts, changes: list[Change], stop: Stop) -> Iterable[Put]:
        """`to_puts`, as often as it takes where it has to ask a registry that is away."""
        while True:
            try:
                return to_puts(changes)
            except Unreachable as error:
                self._say(KafkaError(KafkaError._RETRY, str(error)))
            self._pause(_RETRY_S, stop)

    def _answer(self, ask: Callable[[], T], stop: Stop) -> T:
        """The answer to `ask`, asked again until there is one."""
        began = self._clock.monotonic()
        while True:
            try:
                return ask()
            except KafkaException as failure:
                error = failure.args[0]
            unstable = error.code() == KafkaError.UNSTABLE_OFFSET_COMMIT
            if not unstable:
                # An admin client keeps to what it knew: to the epoch of a partition's leader, and
                # is refused for good once that broker was restarted; to a controller that is dead,
                # until it asks for metadata again after five minutes (librdkafka 2.16).
                self._admin = self._new_admin()
            # A transaction that is being completed needs milliseconds: nothing to tell.
            if not unstable or self._clock.monotonic() - began > _PATIENCE_S:
                self._say(error)
            self._pause(_UNSTABLE_S if unstable else _RETRY_S, stop)

    def _wait(self, future: Future[T], stop: Stop) -> T:
        while not stop():
            try:
                return future.result(_LOOK_S)
            except TimeoutError:
                continue
        raise Stopped

    def _pause(self, seconds: float, stop: Stop) -> None:
        if stop():
            raise Stopped
        self._clock.sleep(seconds)
