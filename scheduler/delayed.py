"""The delayed topic's consumer: passes tasks on to their queue at their exact time.

One thread. Each partition that it owns has a local copy, in the order in which its tasks are due
(the keys are made so: consumer/delayed.py), on the changelog store of the idempotency table. It is
read up to the end that the topic had when the partition came, then it follows. What is due goes, in
one Kafka transaction with the deletion of its key, to the partition of `tasks` that its ID belongs
to; then it leaves the copy. It may go twice where that cannot be told from not at all: (generation,
seq) tells workers.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
)

from taskmill.consumer.decode import headers_of
from taskmill.consumer.delayed import MOVE, DelayedKey, Move, due_key
from taskmill.consumer.fence import end_transactions
from taskmill.producer.routes import PARTITION_HEADER
from taskmill.runtime.changelog import Changelog, Stopped
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import StoreDamaged, TaskmillError
from taskmill.runtime.kafka import client_config, resume_at
from taskmill.runtime.store import Put, Store
from taskmill.runtime.store_open import open_store
from taskmill.runtime.topic_table import Kind, delayed_group, queue_of
from taskmill.scheduler.held import pack, unpack
from taskmill.scheduler.member import ROUTE_S, Member, Place, gather_s, place_of, text_of, to_tasks
from taskmill.scheduler.moves import moved

logger = logging.getLogger("taskmill.scheduler")

#: Passed on in one transaction, at the most: tasks, and bytes. The first of many that are due at
#: once waits for as many to be made ready.
PER_TRANSACTION = 1_000
BYTES_PER_TRANSACTION = 16 * 1024 * 1024
#: Half of the topic's delete.retention.ms: an older copy may have missed that something went.
MAX_AGE_MS = 84 * 3_600_000
#: How long a poll blocks while a copy is opened.
OPENING_S = 0.01
#: A copy that is not complete and not read further is held up by a transaction that nobody ends.
STUCK_S = 1.0
FENCE_S = 3.0
#: Between two lines that say how far a partition is read.
PROGRESS_S = 5.0


class Part:
    """One partition that is owned: its copy, and what is known of it."""

    __slots__ = (
        "began",
        "end",
        "has_moves",
        "next_due",
        "position",
        "store",
        "stuck_at",
        "told_at",
    )

    def __init__(self, store: Store, end: int, now: float) -> None:
        self.store = store
        #: Nothing is passed on before this offset is reached; None: it has been.
        self.end: int | None = end
        self.position = store.checkpoint()
        #: When the first one is due (UTC ms); None: none waits.
        self.next_due: int | None = None
        #: Whether some of its tasks are to be given another time.
        self.has_moves = False
        self.began = self.told_at = now
        #: From then on it counts as held up, if it is not read further (monotonic; None: no more).
        self.stuck_at: float | None = now + STUCK_S

    def look(self) -> None:
        """Find out when the first one is due, and whether some are to be moved."""
        first = next(self.store.items(end=MOVE, chunk=1), None)
        self.next_due = None if first is None else DelayedKey.unpack(first[0]).due_at
        self.has_moves = next(self.store.items(MOVE, chunk=1), None) is not None

    def due(self, now_ms: int) -> Iterator[tuple[bytes, bytes]]:
        """Those that are due, the longest overdue first."""
        return self.store.items(end=due_key(now_ms + 1))


class Delayed(Member):
    """The delayed topics."""

    def __init__(
        self, settings: Settings, transactional_id: str, folder: Path, clock: Clock
    ) -> None:
        """`folder`: for the local copies, of this process alone."""
        group = delayed_group(settings.prefix)
        super().__init__(settings, "delayed tasks", group, transactional_id, clock)
        self._folder = folder
        self._transactional_id = transactional_id
        self._longest_ms = settings.dedup_window_ms // 2
        self._changelog: Changelog | None = None
        #: Came, and have no copy yet.
        self._new: set[Place] = set()
        self._parts: dict[Place, Part] = {}
        #: Passed on so far, by topic.
        self.passed: Counter[str] = Counter()
        #: Seconds that each restore took.
        self.restores: list[float] = []

    def unready(self) -> str | None:
        left = len(self._new) + sum(part.end is not None for part in list(self._parts.values()))
        not_restored = f"{left} partitions of delayed tasks are not restored yet" if left else None
        return super().unready() or not_restored

    def run(self) -> None:
        try:
            super().run()
        finally:
            if self._changelog is not None:
                self._changelog.close()

    # ---- partitions that come and go ----------------------------------------------------------

    def _assigned(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> list[TopicPartition]:
        for tp in partitions:
            self._new.add((tp.topic, tp.partition))
            tp.offset = OFFSET_BEGINNING
        return partitions

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        super()._on_assign(consumer, partitions)
        if partitions:
            # Until its copy tells from where on it is read.
            consumer.pause(partitions)

    def _forget(self, place: Place) -> None:
        self._new.discard(place)
        part = self._parts.pop(place, None)
        if part is not None:
            self._close(part, clean=True)

    def _forget_all(self) -> None:
        for place in list(self._parts):
            self._forget(place)
        self._new.clear()

    def _close(self, part: Part, *, clean: bool) -> None:
        try:
            part.store.close(clean)
        except StoreDamaged as error:
            logger.debug("a store could not be closed: %s", error)

    def _turn(self, consumer: Consumer) -> None:
        for place in sorted(self._new):
            if place not in self._parts and not self._open(place):
                continue
            topic, p = place
            if resume_at(consumer, topic, p, self._parts[place].position):
                self._new.discard(place)
        for place, part in self._parts.items():
            if part.end is not None and place not in self._new:
                self._look_whether_it_is_all(consumer, place, part, part.end)

    def _open(self, place: Place) -> bool:
        """Open the local copy of `place`; False: not now."""
        topic, p = place
        if self._changelog is None:
            self._changelog = Changelog(self._settings, self._clock)
        stop = self._stopping.is_set
        try:
            topic_id = self._changelog.topic_id(topic, stop=stop)
            end = self._changelog.end_offset(topic, p, stop=stop)
            queue = queue_of(topic, Kind.DELAYED, self._settings.prefix)
            folder = self._folder / f"{queue}" / str(p)
            store, why = open_store(folder, topic_id, p, end, MAX_AGE_MS, self._clock)
        except Stopped:
            return False
        if why is not None:
            logger.warning("local copy of %s [%d] is rebuilt: %s", topic, p, why)
        self._parts[place] = Part(store, end, self._clock.monotonic())
        return True

    def _look_whether_it_is_all(
        self, consumer: Consumer, place: Place, part: Part, end: int
    ) -> None:
        """Pass on from `place` too, where its copy has everything up to the `end` it had."""
        topic, p = place
        if part.position < end:
            # It passes the markers of transactions too, behind the last record that came.
            at: int = consumer.position([TopicPartition(topic, p)])[0].offset
            if at > part.position:
                part.position, part.stuck_at = at, self._clock.monotonic() + STUCK_S
        now = self._clock.monotonic()
        if part.position < end:
            if part.stuck_at is not None and now >= part.stuck_at:
                part.stuck_at = None
                self._fence_last_owner(place)
            if now - part.told_at >= PROGRESS_S:
                part.told_at = now
                logger.info("restoring %s [%d]: at %d of %d", topic, p, part.position, end)
            return
        part.store.apply((), part.position)
        part.end = None
        part.look()
        self.restores.append(now - part.began)
        logger.info(
            "restored %s [%d]: %d wait, in %.2f s",
            topic,
            p,
            part.store.count(),
            now - part.began,
        )

    def _fence_last_owner(self, place: Place) -> None:
        """End what the last owner of `place` has left open. One that lives has nothing open for so
        long; it makes its producer anew."""
        # Not a read_committed one: that would wait for the very offset that is being committed.
        consumer = Consumer(
            client_config(
                self._settings,
                "delayed-fence",
                clock=self._clock,
                group_id=self.group,
                enable_auto_commit=False,
                isolation_level="read_uncommitted",
            )
        )
        try:
            (last,) = consumer.committed([TopicPartition(*place)], FENCE_S)
            owner = last.metadata
            if owner and owner != self._transactional_id:
                logger.info("%s [%d]: ending what %s has left open", *place, owner)
                end_transactions(self._settings, [owner], FENCE_S, self._clock)
        except (KafkaException, TaskmillError) as error:
            # Then the broker ends it, in some 15 s.
            logger.warning("%s [%d] is held up: %s", *place, text_of(error))
        finally:
            consumer.close()

    # ---- taking in ----------------------------------------------------------------------------

    def _take(self, messages: list[Message]) -> None:
        batches: dict[Place, list[Put]] = {}
        for message in messages:
            place, key = place_of(message), message.key()
            part = self._parts.get(place)
            if part is None or place in self._new:
                continue  # it comes again, from where its copy begins
            batch = batches.setdefault(place, [])
            part.position = max(part.position, (message.offset() or 0) + 1)
            if not key:
                continue
            try:
                batch.append((key, self._taken(part, key, message)))
            except ValueError as error:
                logger.warning("%s [%d]: passed over: %s", *place, error)
        for place, puts in batches.items():
            self._apply(place, puts)

    def _taken(self, part: Part, key: bytes, message: Message) -> bytes | None:
        """What the copy holds of `message`. Raises ValueError for what nobody should have put."""
        value = message.value()
        if key.startswith(MOVE):
            if value is not None:
                Move.unpack(key, value)
                part.has_moves = True
            return value
        due_at = DelayedKey.unpack(key).due_at
        if value is None:
            return None
        if part.next_due is None or due_at < part.next_due:
            part.next_due = due_at
        return pack(headers_of(message) or [], value)

    def _apply(self, place: Place, puts: list[Put]) -> None:
        part = self._parts[place]
        try:
            part.store.apply(puts, part.position)
        except StoreDamaged as error:
            logger.error("%s; it is read anew", error)
            self._parts.pop(place)
            self._close(part, clean=False)
            self._new.add(place)

    def _due_in_s(self) -> float | None:
        if self._new:
            return OPENING_S
        ready = self._ready().values()
        if any(one.has_moves for one in ready):
            return 0.0
        times = [one.next_due for one in ready if one.next_due is not None]
        return (min(times) - self._time.now_ms()) / 1000 if times else None

    def _ready(self) -> dict[Place, Part]:
        """Those whose copies are complete."""
        return {place: part for place, part in self._parts.items() if part.end is None}

    # ---- passing on ---------------------------------------------------------------------------

    def _pass_on(self) -> float:
        for place, part in self._ready().items():
            if part.has_moves:
                # Before anything is passed on that would be late, or early, by then.
                latest = self._time.now_ms() + self._longest_ms
                self._change(*moved(place, part.store, latest))
                return 0.0
        messages, gone = self._gather(self._time.now_ms())
        if not messages:
            return 0.0
        self._change(messages, gone)
        for place, puts in gone.items():
            self.passed[place[0]] += len(puts)
        return gather_s(len(messages) // 2, PER_TRANSACTION)

    def _gather(self, now_ms: int) -> tuple[list[dict[str, Any]], dict[Place, list[Put]]]:
        """What is due, as far as one transaction holds it, and what leaves the copies with it."""
        room, size = PER_TRANSACTION, BYTES_PER_TRANSACTION
        messages: list[dict[str, Any]] = []
        gone: dict[Place, list[Put]] = {}
        waiting = [
            (part.next_due, place, part)
            for place, part in self._ready().items()
            if part.next_due is not None and part.next_due <= now_ms
        ]
        for _, place, part in sorted(waiting, key=lambda one: one[:2]):
            for key, packed in part.due(now_ms):
                gone.setdefault(place, []).append((key, None))
                messages += self._onward(place, key, packed)
                room, size = room - 1, size - len(packed)
                if room <= 0 or size <= 0:
                    return messages, gone
            if place not in gone:
                part.look()  # what was due has gone otherwise
        return messages, gone

    def _change(self, messages: list[dict[str, Any]], changed: dict[Place, list[Put]]) -> None:
        """Commit `messages`, then change the copies."""
        # Whoever owns one next is told under which ID something may be open.
        owner = self._transactional_id
        offsets = [TopicPartition(*place, self._parts[place].position, owner) for place in changed]
        try:
            self._transact(messages, offsets)
        except (KafkaException, BufferError):
            # Perhaps a queue has fewer partitions than it had.
            for topic, _ in changed:
                self._routes.forget(self._queue(topic))
            raise
        for place, puts in changed.items():
            self._apply(place, puts)
            if (left := self._parts.get(place)) is not None:
                left.look()

    def _onward(self, place: Place, key: bytes, packed: bytes) -> list[dict[str, Any]]:
        """The task on its way, and the end of its wait."""
        topic, p = place
        route = self._routes.get(self._queue(topic), Deadline(ROUTE_S, self._clock))
        headers, value = unpack(packed)
        kept = [one for one in headers if one[0] != PARTITION_HEADER]
        older = self._settings.oldest_worker is not None
        task = to_tasks(route, DelayedKey.unpack(key).id, value, kept, older=older)
        return [task, {"topic": topic, "partition": p, "key": key}]

    def _queue(self, topic: str) -> str:
        queue = queue_of(topic, Kind.DELAYED, self._settings.prefix)
        assert queue is not None, "only such topics are subscribed to"
        return queue
