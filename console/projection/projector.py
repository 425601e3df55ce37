"""Kafka into the store, on a thread: takes the lead among consoles, reads, folds, writes.

What is read is in the store together with the offset behind it, or not at all; so whoever goes on,
this console or another, begins where the last transaction ended. One console projects at a time,
the others stand by: the store's transactions are serialised anyway (change numbers become visible
in their order), one console keeps up with several workers, and a lease is simpler to get right
than a group of readers whose offsets lie in a database.
"""

from __future__ import annotations

import logging
import secrets
import threading
from typing import NamedTuple

from confluent_kafka import Message

from taskmill.console.projection.batch import Batch, Place
from taskmill.console.projection.decode import Reading, TopicOf
from taskmill.console.projection.knowledge import Knowledge
from taskmill.console.projection.sight import Partition, Sight, Watch
from taskmill.console.projection.source import Source
from taskmill.console.projection.writer import LeaseLost, Seen, Writer
from taskmill.console.store.store import Store
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError, Unreachable
from taskmill.runtime.topics import Kind
from taskmill.schemas.codec import Codec

logger = logging.getLogger("taskmill.console")

#: Records of one transaction at the most; their bytes are bounded by what the client holds.
BATCH = 5_000
#: A transaction a tenth of a second is as live as anybody sees, and costs little when much is done.
GATHER_S = 0.1
_WAIT_S = 0.1
#: A console that projects writes so often, if only that it lives; one that has not for LEASE_S, by
#: the clock of whoever waits, counts as dead.
BEAT_S = 1.0
LEASE_S = 6.0
#: After a failure: doubling, from the one to the other. What failed is said again once a minute.
_FIRST_PAUSE_S, _LAST_PAUSE_S, _SAID_EVERY_S = 0.1, 5.0, 60.0
#: Between looks for what is too old, when there is nothing; how much at a time.
_SWEEP_S, _SWEEP_ROWS, _SWEEP_MORE_S = 30.0, 1_000, 0.2
#: That a letter was replayed is kept on its topic for so long.
_REPLAYED_MS = 38 * 86_400_000


class ProjectorStatus(NamedTuple):
    """`leads`: this console projects, another does not. `trouble`: what it waits for, None: for
    nothing. Then counts since the start: records read, records that could not be read, partitions
    whose next record was gone, topics that were made anew."""

    leads: bool
    trouble: str | None
    records: int
    unreadable: int
    cut: int
    remade: int


class Projector:
    """Keeps `store` up to date from `start` to `close`. The store outlives it.

    Kafka or the store away is waited for, and said; nothing is lost.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Clock = SYSTEM_CLOCK,
        lease_s: float = LEASE_S,
    ) -> None:
        """Raises ConfigError for a schema registry that cannot be used."""
        self._settings = settings
        self._store = store
        self._clock = clock
        self._lease_s = lease_s
        self._codec = Codec(settings.schema_registry_url)
        self._reading = Reading(self._codec, settings.max_task_bytes, clock)
        self._writer = Writer(store, secrets.token_hex(8))
        self._watch = Watch(settings, clock)
        self._stopping = threading.Event()
        self._leads = False
        self._trouble: str | None = None
        self._said: tuple[str, float] = ("", 0.0)
        self._records = self._cut = self._remade = 0
        self._thread = threading.Thread(target=self._run, name="taskmill-projection", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._watch.start()
        self._thread.start()

    def close(self) -> None:
        """Stop after the transaction under way, and let the store go to another console."""
        self._stopping.set()
        self._thread.join()
        self._watch.close()
        self._codec.close()

    @property
    def status(self) -> ProjectorStatus:
        """How it goes."""
        unreadable = self._reading.unreadable.total() + self._writer.refused
        return ProjectorStatus(
            self._leads, self._trouble, self._records, unreadable, self._cut, self._remade
        )

    # ---- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            before = self._records
            try:
                if self._lead():
                    self._project()
            except LeaseLost as lost:
                logger.warning("%s; this one stands by", lost)
            except TaskmillError as error:
                self._say(str(error))
            except Exception:
                logger.exception("the projection failed, and begins again where it was")
                self._trouble = "a bug: see the log"
            self._leads = False
            pause = _FIRST_PAUSE_S if self._records > before else min(2 * pause, _LAST_PAUSE_S)
            self._stopping.wait(pause)
        try:
            self._writer.leave()
        except TaskmillError as error:
            logger.debug("%s", error)

    def _say(self, trouble: str) -> None:
        self._trouble = trouble
        now = self._clock.monotonic()
        if trouble != self._said[0] or now - self._said[1] >= _SAID_EVERY_S:
            self._said = trouble, now
            logger.warning("the projection waits: %s", trouble)

    def _lead(self) -> bool:
        """Wait until this console projects; False: it is to stop."""
        seen = self._writer.look()
        since = self._clock.monotonic()
        while not self._stopping.is_set():
            # Nobody else can have a file that is ours; and a name is one process's.
            if not self._store.is_shared or seen.holder in {"", self._writer.name}:
                waited = True
            else:
                waited = self._clock.monotonic() - since >= self._lease_s
            if waited and self._writer.take(seen):
                if seen.holder not in {"", self._writer.name} and self._store.is_shared:
                    logger.warning("the console that projected is silent: this one takes over")
                return True
            self._trouble = None
            self._stopping.wait(min(BEAT_S, self._lease_s / 5))
            now_seen: Seen = self._writer.look()
            if now_seen != seen:
                seen, since = now_seen, self._clock.monotonic()
        return False

    def _project(self) -> None:
        """Until the lease is lost, it is to stop, or something is away."""
        source = Source(self._settings, self._clock)
        try:
            run = _Run(self._settings, self._store, self._writer, self._reading, self._clock)
            self._leads = True
            while not self._stopping.is_set():
                sight = self._watch.sight
                if sight is None:
                    self._trouble = "Kafka has not answered yet"
                    self._watch.looked.wait(BEAT_S)
                    self._writer.write(Batch(), None)
                    continue
                self._remade += run.heed(sight, source)
                self._records += run.step(sight, source)
                self._trouble = None
                run.sweep(sight)
        finally:
            self._cut += source.cut
            source.close()


class _Run:
    """One time of leading: what it reads, and where it has come to."""

    def __init__(
        self, settings: Settings, store: Store, writer: Writer, reading: Reading, clock: Clock
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._reading = reading
        self._clock = clock
        self._stored = {(row.topic, row.partition): row for row in store.offsets()}
        self._knowledge = Knowledge(store.freshness().as_of)
        self._topics: dict[str, TopicOf] = {}
        #: Topics that were read, and are no more.
        self._gone: set[str] = set()
        self._heeded: Sight | None = None
        self._beat_at = self._sweep_at = clock.monotonic()

    def heed(self, sight: Sight, source: Source) -> int:
        """Read what is new there, and what is gone no more. How many topics were made anew."""
        if sight is self._heeded:
            return 0
        remade = 0
        for name, old in [*self._topics.items()]:
            new = sight.topics.get(name)
            if new is not None and new.topic_id == old.topic_id:
                continue
            partitions = [(name, p) for p in range(old.partitions)]
            source.end(partitions)
            self._knowledge.end(partitions)
            del self._topics[name]
            self._gone.add(name)
        for name in self._gone & sight.topics.keys():
            # What the client knows of it, and we of its offsets, is of the old one.
            raise _Remade(f"topic {name} was deleted and made anew")
        for name, topic in sight.topics.items():
            known = self._topics.get(name)
            first = 0 if known is None else known.partitions
            if topic.partitions > first:
                remade += self._begin(topic, first, source)
        self._heeded = sight
        return remade

    def _begin(self, topic: TopicOf, first: int, source: Source) -> int:
        """Read partitions of `topic` from number `first` on."""
        self._reading.know(topic)
        self._topics[topic.name] = topic
        offsets: dict[Partition, int | None] = {}
        remade = 0
        for p in range(first, topic.partitions):
            stored = self._stored.get((topic.name, p))
            if stored is not None and stored.topic_id != topic.topic_id:
                remade = 1
                stored = None
            offsets[topic.name, p] = None if stored is None else stored.next_offset
        if remade:
            logger.warning("topic %s was deleted and made anew: read anew", topic.name)
        source.begin(offsets)
        self._knowledge.begin(offsets)
        return remade

    def step(self, sight: Sight, source: Source) -> int:
        """Read for a moment and write what came; how many records."""
        batch = Batch()
        until = self._clock.monotonic() + GATHER_S
        while batch.records < BATCH:
            left = until - self._clock.monotonic()
            if left <= 0:
                break
            self._read(batch, source, min(left, _WAIT_S))
        now = self._clock.monotonic()
        if batch.records or now - self._beat_at >= BEAT_S:
            self._writer.write(batch, self._knowledge.progress(sight, source.positions))
            self._beat_at = now
        return batch.records

    def _read(self, batch: Batch, source: Source, wait_s: float) -> None:
        last: dict[Partition, Message] = {}
        topics, add = self._topics, self._reading.add
        for message in source.take(BATCH - batch.records, wait_s):
            name: str = message.topic()  # type: ignore[assignment]
            topic = topics.get(name)
            if topic is None:  # gone meanwhile
                continue
            add(batch, topic, message)
            last[name, message.partition()] = message  # type: ignore[index]
            batch.records += 1
        now = self._clock.now_ms()
        for where, message in last.items():
            time = message.timestamp()[1]
            self._knowledge.read(where, time, now)
            offset: int = message.offset()  # type: ignore[assignment]
            batch.places[where] = Place(topics[where[0]].topic_id, offset + 1, time)

    def sweep(self, sight: Sight) -> None:
        """Forget a piece of what is too old, now and then."""
        if self._clock.monotonic() < self._sweep_at:
            return
        now = self._clock.now_ms()
        gone = self._writer.sweep(now - self._settings.dedup_window_ms, _SWEEP_ROWS)
        wait = _SWEEP_MORE_S if gone >= _SWEEP_ROWS else _SWEEP_S
        self._sweep_at = self._clock.monotonic() + wait
        for topic in sight.topics.values():
            if topic.kind is Kind.DLQ:
                starts = {p: at for (name, p), at in sight.starts.items() if name == topic.name}
                self._writer.sweep_letters(topic.queue, topic.topic_id, starts, now - _REPLAYED_MS)


class _Remade(Unreachable):
    """The client is to be made anew."""
