"""The poll thread: owns the consumer, answers rebalances, feeds records to the protocol."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from taskmill.consumer.core import Core
from taskmill.consumer.decode import Decoder
from taskmill.consumer.generation import generation_of
from taskmill.consumer.record import Lease, Record
from taskmill.runtime.clock import Deadline
from taskmill.runtime.errors import StoreDamaged, Unreachable
from taskmill.runtime.kafka import as_raised, is_fatal, resume_at

logger = logging.getLogger("taskmill.worker")

#: Records taken at once. Larger ones cost memory and latency and save nothing measurable.
BATCH = 500
#: How long an idle poll blocks; commands of other threads wait that long at the most.
IDLE_S = 0.1
#: The same while a restore is under way, whose end should be acted on at once.
RESTORING_S = 0.01
#: A full worker is waited for this long before its partitions are paused: a pause throws the
#: prefetched records away, a short wait does not.
PATIENCE_S = 0.25
#: How often it is noted how far each partition is read.
LOOK_S = 1.0
#: A revocation waits this long for what is done to be committed; longer than a transaction may
#: take, shorter than any rebalance time-out.
REVOKE_S = 12.0
#: The same for a worker that was told to stop, and may have waited for its drain already.
STOP_S = 3.0


class Place(NamedTuple):
    """How far a partition is read: the next offset to be consumed, past the markers of transactions
    (negative: none is known), and the end of its log."""

    position: int
    end: int


class Poller:
    """Runs one Consumer until told to stop. All methods but `resume_at` are the thread's own."""

    def __init__(
        self,
        core: Core,
        decoder: Decoder,
        topic: str,
        incremental: bool,
        submit: Callable[[list[Record]], None],
        cancel: Callable[[list[Lease]], None],
        restore: Callable[[list[Lease]], None],
        moved: Callable[[], object] = lambda: None,
    ) -> None:
        """`moved` is called in each round."""
        self._moved = moved
        self._core = core
        self._decoder = decoder
        self._topic = topic
        self._incremental = incremental
        self._submit = submit
        self._cancel = cancel
        self._restore = restore
        self._commands: SimpleQueue[Lease] = SimpleQueue()
        self._to_seek: list[Lease] = []
        self._generation: tuple[int, str] | None = None
        self.draining = False
        #: Its queue is: nothing is fetched.
        self.paused = False
        #: Whether `places` and `joined` are kept: somebody reads them.
        self.is_watched = False
        self._look_at = 0.0
        #: Of each partition that is held, the next offset to be consumed and the end of its log.
        self.places: dict[int, Place] = {}
        #: Whether it is a member of its group, with partitions or without.
        self.has_joined = False
        #: Told of each assignment.
        self.assigned: Callable[[], None] = lambda: None

    # ---- any thread ---------------------------------------------------------------------------

    def resume_at(self, lease: Lease) -> None:
        """`lease`'s partition is restored: fetch it from the protocol's next offset."""
        self._commands.put(lease)

    # ---- the poll thread ----------------------------------------------------------------------

    def run(self, config: dict[str, Any]) -> None:
        """Poll until the core stops. Raises KafkaException where the consumer failed for good."""
        consumer = Consumer(config)
        try:
            consumer.subscribe(
                [self._topic],
                on_assign=as_raised(self._on_assign),
                on_revoke=as_raised(self._on_revoke),
                on_lost=as_raised(self._on_lost),
            )
            while not self._core.stopping.is_set():
                self._moved()
                if self.is_watched:
                    self._look(consumer)
                self._take_commands(consumer)
                # Before the poll: what was just resumed is paused again where the worker is full.
                self._flow(consumer)
                self._poll(consumer)
        finally:
            # Leaves the group, through on_revoke.
            consumer.close()
            self.has_joined, self.places = False, {}
            self._drop(self._core.protocol.partitions)

    def _look(self, consumer: Consumer) -> None:
        """Note how far each partition is read, as the client knows without asking anybody."""
        now = self._core.clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        generation = generation_of(consumer.consumer_group_metadata())
        self.has_joined = generation is not None and generation[0] > 0
        held = [TopicPartition(self._topic, p) for p in self._core.protocol.partitions]
        places = {}
        for tp in consumer.position(held) if held else ():
            # The end that came with the last fetch; negative: with none yet.
            _, end = consumer.get_watermark_offsets(tp, cached=True)
            if end >= 0:
                places[tp.partition] = Place(tp.offset, end)
        self.places = places

    def _poll(self, consumer: Consumer) -> None:
        core = self._core
        restoring = self._to_seek or len(core.tables) < len(core.protocol.partitions)
        # consume(n) waits for all n; one first, then what else is there, has no such wait.
        messages = consumer.consume(1, RESTORING_S if restoring else IDLE_S)
        if not messages:
            return
        if messages[0].error() is None and self._lease(messages[0]) is None:
            # Dropped before anything else is consumed: a rebalance in there could start its
            # partition anew, and the record would then pass for one behind that start.
            messages.clear()
        messages += consumer.consume(BATCH - 1, 0)
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            error = message.error()
            if error is not None:
                self._trouble(error)
            else:
                by_partition.setdefault(message.partition(), []).append(message)  # type: ignore[arg-type]
        for batch in by_partition.values():
            lease = self._lease(batch[0])
            if lease is None:
                continue  # being restored: the seek afterwards brings these again
            try:
                run = core.deliver(lease, self._decode(batch, lease))
            except StoreDamaged as error:
                logger.error("%s", error)
                self._restore([lease])
                continue
            if run:
                self._submit(run)

    def _lease(self, message: Message) -> Lease | None:
        with self._core.changed:
            return self._core.protocol.lease(message.partition())  # type: ignore[arg-type]

    def _decode(self, batch: list[Message], lease: Lease) -> list[Record]:
        decode = self._decoder.decode
        while True:
            try:
                return [decode(message, lease) for message in batch]
            except Unreachable as error:
                # A registry that is away must not dead-letter what it alone can read.
                self._moved()
                logger.warning("%s; waiting", error)
                self._core.clock.sleep(1.0)
                if self._core.stopping.is_set():
                    return []

    def _trouble(self, error: KafkaError) -> None:
        if is_fatal(error):
            raise KafkaException(error)
        if error.code() != KafkaError._PARTITION_EOF:
            logger.warning("consumer: %s", error.str())

    def _flow(self, consumer: Consumer) -> None:
        """Back-pressure: wait a little for a full worker, then pause what is full."""
        core = self._core
        with core.changed:
            deadline = Deadline(PATIENCE_S, core.clock)
            while core.protocol.is_full() and not deadline.over():
                core.changed.wait(deadline.left())
            hold = self._holds()
            pause, resume = core.protocol.flow(hold=hold)
            starts = [(p, core.protocol.next_offset(p)) for p in resume]
        if pause:
            consumer.pause([TopicPartition(self._topic, p) for p in pause])
        for p, offset in starts:
            self._fetch_from(consumer, p, offset)

    def _holds(self) -> bool:
        return self.draining or self.paused or self._core.protocol.is_full()

    def _take_commands(self, consumer: Consumer) -> None:
        """Start fetching restored partitions where the protocol wants them."""
        try:
            while True:
                self._to_seek.append(self._commands.get_nowait())
        except Empty:
            pass
        waiting, self._to_seek = self._to_seek, []
        for lease in waiting:
            if not lease.held:
                continue
            with self._core.changed:
                offset = self._core.protocol.next_offset(lease.partition)
            if offset is None:
                continue
            if self._fetch_from(consumer, lease.partition, offset):
                with self._core.changed:
                    self._core.protocol.fetching(lease)
            else:
                self._to_seek.append(lease)  # its fetcher has not started yet: next round

    def _fetch_from(self, consumer: Consumer, p: int, offset: int | None) -> bool:
        return resume_at(consumer, self._topic, p, offset or OFFSET_BEGINNING)

    # ---- rebalance callbacks, inside consume() ------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        indexes = [tp.partition for tp in partitions]
        metadata = consumer.consumer_group_metadata()
        generation = generation_of(metadata)
        core = self._core
        with core.changed:
            assignment = core.protocol.assigned(
                indexes, metadata, follows=_follows(self._generation, generation)
            )
            core.close_tables(assignment.ended)
            starts = {p: core.protocol.next_offset(p) for p in indexes}
            # What the assignment starts anew is paused again at once where the worker is full.
            hold = self._holds()
            held = core.protocol.flow(hold=True)[0] if hold else []
            core.changed.notify_all()
        self._generation = generation
        self.assigned()
        logger.info(
            "assigned %s, new %s", indexes, [lease.partition for lease in assignment.restore]
        )
        # An offset for each, also for those that are paused until they are restored and sought:
        # where librdkafka has to ask for the committed one and hears "not coordinator", it never
        # asks again and never fetches (librdkafka #5586, seen after a broker stood still).
        positions = [
            TopicPartition(self._topic, p, OFFSET_BEGINNING if at is None else at)
            for p, at in starts.items()
        ]
        if self._incremental:
            consumer.incremental_assign(positions)
        else:
            consumer.assign(positions)
        paused = {lease.partition for lease in assignment.restore}.union(held)
        if paused:
            consumer.pause([TopicPartition(self._topic, p) for p in paused])
        kept = [TopicPartition(self._topic, p) for p in indexes if p not in paused]
        if kept:
            consumer.resume(kept)
        self._cancel(assignment.ended)
        self._restore(assignment.restore)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        indexes = [tp.partition for tp in partitions]
        core = self._core
        with core.changed:
            # The one callback that waits: for the open transaction, and for what is done already.
            limit_s = STOP_S if core.stopping.is_set() else REVOKE_S
            core.protocol.release(indexes)
            core.nudge()
            if not core.await_commit(indexes, limit_s):
                logger.warning("revoked %s before what is done there was committed", indexes)
            if self._incremental or core.stopping.is_set():
                ended = core.protocol.lost(indexes)
            else:
                ended = core.protocol.suspend(indexes)
            core.close_tables(ended)
            core.changed.notify_all()
        logger.info("revoked %s", indexes)
        self._cancel(ended)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        logger.warning("lost %s", [tp.partition for tp in partitions])
        self._generation = None
        self._drop([tp.partition for tp in partitions])

    def _drop(self, indexes: list[int]) -> None:
        core = self._core
        with core.changed:
            ended = core.protocol.lost(indexes)
            core.close_tables(ended)
            core.changed.notify_all()
        self._cancel(ended)


def _follows(old: tuple[int, str] | None, new: tuple[int, str] | None) -> bool:
    """Whether `new` is the same member's next generation: nobody else owned its partitions."""
    return old is not None and new is not None and new == (old[0] + 1, old[1])
