"""Fires schedules when they are due: one thread, of the group of all that do.

The group shares the partitions of the schedules' topic. Whoever gets partition p first ends what
its last owner left open on Kafka (the transactional ID is p's, not the machine's: a dead owner's
transaction would else be waited for), then reads how far each schedule has come, then what is
scheduled. What is due goes, with how far it has come, in one transaction of p, under the group's
metadata as the last rebalance told it: one that lost p without knowing is refused twice over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from taskmill.consumer.transactions import Transactions
from taskmill.producer.reader import StateReader
from taskmill.producer.routes import Routes
from taskmill.runtime.changelog import Change, Changelog, Stopped
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError, Unreachable
from taskmill.runtime.kafka import as_raised, is_fatal, taken
from taskmill.runtime.meter import Meter
from taskmill.runtime.store import MemoryStore, Put
from taskmill.runtime.topic_table import schedule_state_topic, schedules_topic
from taskmill.runtime.topics import ensure_schedules, partition_count
from taskmill.scheduler.due import Batch, Due
from taskmill.scheduler.firing import Firing
from taskmill.scheduler.last_runs import LastRuns
from taskmill.scheduler.member import (
    PAUSE_MAX_S,
    PAUSE_S,
    has_joined,
    keep_on,
    member_config,
    text_of,
)
from taskmill.scheduler.owned import Owned
from taskmill.schemas.codec import CODEC, Codec

logger = logging.getLogger("taskmill.scheduler")

#: Transactions on their way at once: as many as there are partitions.
WRITERS = 3
#: How long a poll without records blocks; what is due meanwhile cuts it short. While answers are
#: awaited they are looked for more often.
IDLE_S, ASKING_S = 0.1, 0.005
#: Definitions taken at once.
BATCH = 1_000


class _Part:
    """A partition that is ours."""

    def __init__(self, owned: Owned, states: MemoryStore, transactions: Transactions) -> None:
        self.owned = owned
        self.states = states
        self.transactions = transactions
        #: Offset behind the last definition that was read.
        self.position = 0
        #: Monotonic seconds before which nothing is written, after what failed; and whether it is
        #: unknown what was.
        self.again_at, self.pause_s = 0.0, PAUSE_S
        self.is_unsure = False


class Schedules:
    """Serves the schedules under a prefix, beside others. `run` is one thread's, until `stop`."""

    def __init__(self, settings: Settings, who: str, clock: Clock, meter: Meter) -> None:
        """`who` is named in the states that this one writes; `meter` counts its runs."""
        #: Called in each round.
        self.moved: Callable[[], object] = lambda: None
        self._has_joined = False
        self._settings = settings
        self._clock = clock
        self._stopping = threading.Event()
        self._codec = Codec(url) if (url := settings.schema_registry_url) else CODEC
        #: The consumer group of all that serve them, and the topic that they lie on.
        self.group = self._topic = schedules_topic(settings.prefix)
        self._state_topic = schedule_state_topic(settings.prefix)
        routes = Routes(
            settings, lambda topic, left: partition_count(settings, topic, timeout_s=left), clock
        )
        firing = Firing(settings.prefix, who, self._codec, routes, clock)
        self._reader = StateReader(settings, self._codec, clock)
        #: Schedules of whose last run something has become known.
        self._told: SimpleQueue[str] = SimpleQueue()
        self._last_runs = LastRuns(self._reader, settings.dedup_window_ms, clock, self._told.put)
        self._due = Due(firing, self._last_runs, clock, meter)
        self._parts: dict[int, _Part] = {}
        self._count = 0
        self._metadata: object = None
        #: There are runs to be made ahead.
        self._has_more = False
        self._changelog: Changelog | None = None
        #: A transaction is waited for beside the others'; they take turns at the broker alone.
        self._writers = ThreadPoolExecutor(WRITERS, "taskmill-schedules-writer")

    @property
    def owned(self) -> list[int]:
        """The partitions that are held now."""
        return sorted(self._parts)

    @property
    def fired(self) -> Mapping[str, int]:
        """Runs fired so far, by schedule."""
        return self._due.fired

    @property
    def count(self) -> int:
        """How many schedules are served now."""
        return sum(len(part.owned.entries) for part in list(self._parts.values()))

    def unready(self) -> str | None:
        """One line why it does not serve, nor stand by; None: it does."""
        return None if self._has_joined else "schedules: their group has not been joined yet"

    def stop(self) -> None:
        """End `run`. Any thread."""
        self._stopping.set()

    def run(self) -> None:
        """Until `stop`. A client that fails is made anew."""
        with suppress(Stopped):
            keep_on(self._serve, self._stopping, "schedules", self._clock)
        self._writers.shutdown()
        self._last_runs.close()
        self._reader.close()
        if self._codec is not CODEC:
            self._codec.close()

    def _serve(self) -> None:
        self.moved()
        ensure_schedules(self._settings, clock=self._clock)
        count = partition_count(self._settings, self._topic, clock=self._clock)
        if not count:
            # Where there are several brokers, another one may not know of it yet.
            raise Unreachable(f"topic {self._topic} was made and is not there yet")
        self._count = count
        self._changelog = Changelog(self._settings, self._clock)
        consumer = Consumer(member_config(self._settings, "schedules", self._topic, self._clock))
        try:
            consumer.subscribe(
                [self._topic],
                on_assign=as_raised(self._on_assign),
                on_revoke=as_raised(self._on_revoke),
                on_lost=as_raised(self._on_revoke),
            )
            while not self._stopping.is_set():
                self.moved()
                self._has_joined = self._has_joined or has_joined(consumer)
                self._poll(consumer)
                self._step()
        finally:
            self._has_joined = False
            for p in list(self._parts):
                self._let_go(p)
            consumer.close()
            self._changelog.close()

    # ---- what is ours ---------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metadata = consumer.consumer_group_metadata()
        for tp in partitions:
            part = self._parts[tp.partition] = self._take(tp.partition)
            tp.offset = part.position
        consumer.incremental_assign(partitions)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._let_go(tp.partition)
        consumer.incremental_unassign(partitions)

    def _take(self, p: int) -> _Part:
        """Become the owner of partition `p`: end what was left open, then read, in this order."""
        began = self._clock.monotonic()
        transactions = Transactions(self._settings, f"{self._topic}.{p}", self._clock)
        transactions.open()
        part = _Part(Owned(p, self._count, self._codec), MemoryStore(), transactions)
        self._restore(self._state_topic, p, part.states)
        definitions = MemoryStore()
        self._restore(self._topic, p, definitions)
        part.position = definitions.checkpoint()
        part.owned.load(part.states.items(), definitions.items(), self._clock.now_ms())
        seconds = self._clock.monotonic() - began
        count = len(part.owned.entries)
        logger.info("serving %s [%d]: %d schedules, %.1f s", self._topic, p, count, seconds)
        return part

    def _restore(self, topic: str, p: int, store: MemoryStore) -> None:
        assert self._changelog is not None, "made before anything is assigned"
        self._changelog.restore(topic, p, store, _puts, stop=self._stopping.is_set)

    def _let_go(self, p: int) -> None:
        part = self._parts.pop(p, None)
        if part is None:
            return
        part.transactions.close()
        for id in part.owned.entries:
            self._due.forget(id)

    # ---- the loop -------------------------------------------------------------------------------

    def _poll(self, consumer: Consumer) -> None:
        messages = taken(consumer, BATCH, self._idle_s())
        now = self._clock.now_ms()
        for message in messages:
            error = message.error()
            if error is not None:
                if is_fatal(error):
                    raise KafkaException(error)
                logger.warning("schedules: %s", error.str())
                continue
            self._define(message, now)

    def _define(self, message: Message, now_ms: int) -> None:
        part = self._parts.get(message.partition() or 0)
        if part is None:
            return
        part.position = (message.offset() or 0) + 1
        gone = part.owned.define(message.key() or b"", message.value(), now_ms)
        if gone is not None:
            self._due.forget(gone)

    def _idle_s(self) -> float:
        """How long nothing is due, if nothing comes."""
        if self._has_more or not self._told.empty():
            return 0.0
        now_s, now_ms = self._clock.monotonic(), self._clock.now_ms()
        idle = ASKING_S if self._due.asking else IDLE_S
        for part in self._parts.values():
            if (at := part.owned.next_at) is not None:
                idle = min(idle, max(0.0, (at - now_ms) / 1000, part.again_at - now_s))
        return idle

    def _step(self) -> None:
        """Write all that is due: while one partition's is on its way, the next one's is made."""
        self._hear()
        under_way: list[tuple[_Part, Batch, Future[None]]] = []
        for part in list(self._parts.values()):
            if self._clock.monotonic() < part.again_at:
                continue
            try:
                if part.is_unsure:
                    self._find_out(part)
                if (batch := self._due.batch(part.owned)) is not None:
                    under_way.append((part, batch, self._begin(part, batch)))
            except Stopped:
                raise
            except (KafkaException, TaskmillError) as error:
                self._failed(part, error)
        for part, batch, answer in under_way:
            try:
                answer.result()
            except (KafkaException, BufferError, TaskmillError) as error:
                self._due.failed(batch)
                self._failed(part, error)
            else:
                part.pause_s = PAUSE_S
                self._due.settle(part.owned, batch)
        self._has_more = any(self._due.make_ahead(part.owned) for part in self._parts.values())

    def _begin(self, part: _Part, batch: Batch) -> Future[None]:
        """Have it written. The offset that goes with it has the group's metadata looked at."""
        where = [TopicPartition(self._topic, part.owned.p, part.position)]
        return self._writers.submit(
            part.transactions.transact, batch.messages, where, self._metadata
        )

    def _failed(self, part: _Part, error: Exception) -> None:
        logger.warning("schedules: %s; again in %g s", text_of(error), part.pause_s)
        part.is_unsure = True
        part.again_at = self._clock.monotonic() + part.pause_s
        part.pause_s = min(2 * part.pause_s, PAUSE_MAX_S)

    def _hear(self) -> None:
        """Have those looked at that wait for what has become known."""
        now = self._clock.now_ms()
        try:
            while True:
                id = self._told.get_nowait()
                for part in self._parts.values():
                    entry = part.owned.entries.get(id)
                    if entry is not None and (entry.asks or entry.state.held):
                        part.owned.wake(entry, now)
        except Empty:
            return

    def _find_out(self, part: _Part) -> None:
        """What of the last transaction was written, if anything."""
        part.transactions.open()
        self._restore(self._state_topic, part.owned.p, part.states)
        part.owned.reload(part.states.items(), self._clock.now_ms())
        part.is_unsure = False


def _puts(changes: Any) -> list[Put]:
    found: list[Change] = list(changes)
    return [(key, value) for key, value, _ in found]
