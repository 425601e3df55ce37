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
from collections import Counter
from queue import Empty, SimpleQueue
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from taskmill.consumer.transactions import Transactions
from taskmill.producer.reader import StateReader
from taskmill.producer.routes import Routes
from taskmill.runtime.changelog import Change, Changelog, Stopped
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.kafka import client_config, is_fatal
from taskmill.runtime.store import MemoryStore, Put
from taskmill.runtime.topic_table import schedule_state_topic, schedules_topic
from taskmill.runtime.topics import ensure_schedules, partition_count
from taskmill.scheduler.firing import Fired, Firing
from taskmill.scheduler.last_runs import LastRuns
from taskmill.scheduler.owned import Entry, Owned
from taskmill.schemas.codec import CODEC, Codec

logger = logging.getLogger("taskmill.scheduler")

#: Schedules looked at, and records written, in one transaction at the most.
PER_PASS, PER_TRANSACTION = 2_000, 4_000
#: How long a poll without records blocks; what is due meanwhile cuts it short. While answers are
#: awaited they are looked for more often.
IDLE_S, ASKING_S = 0.1, 0.005
#: Definitions taken at once.
BATCH = 1_000
#: After what failed, doubling up to the maximum.
PAUSE_S, PAUSE_MAX_S = 0.05, 5.0
#: A consumer that has worked for this long begins with the first pause again.
WELL_S = 60.0
#: A schedule whose queue cannot be found now, or what a registry would not tell, is tried again.
AGAIN_MS = 1_000


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

    def __init__(self, settings: Settings, who: str, clock: Clock) -> None:
        """`who` is named in the states that this one writes."""
        self._settings = settings
        self._clock = clock
        self._stopping = threading.Event()
        self._codec = Codec(url) if (url := settings.schema_registry_url) else CODEC
        self._topic = schedules_topic(settings.prefix)
        self._state_topic = schedule_state_topic(settings.prefix)
        routes = Routes(
            settings, lambda topic, left: partition_count(settings, topic, timeout_s=left), clock
        )
        self._firing = Firing(settings.prefix, who, self._codec, routes, clock)
        self._reader = StateReader(settings, self._codec, clock)
        #: Schedules of whose last run something has become known.
        self._told: SimpleQueue[str] = SimpleQueue()
        self._last_runs = LastRuns(self._reader, settings.dedup_window_ms, clock, self._told.put)
        self._parts: dict[int, _Part] = {}
        self._count = 0
        self._metadata: object = None
        self._changelog: Changelog | None = None
        self._asking: set[str] = set()
        self._complained: dict[str, str] = {}
        #: Runs fired so far, by schedule.
        self.fired: Counter[str] = Counter()

    @property
    def owned(self) -> list[int]:
        """The partitions that are held now."""
        return sorted(self._parts)

    def stop(self) -> None:
        """End `run`. Any thread."""
        self._stopping.set()

    def run(self) -> None:
        """Until `stop`. A client that fails is made anew."""
        pause = PAUSE_S
        while not self._stopping.is_set():
            began = self._clock.monotonic()
            try:
                self._serve()
            except Stopped:
                break
            except (KafkaException, TaskmillError) as error:
                if self._clock.monotonic() - began > WELL_S:
                    pause = PAUSE_S
                logger.warning("schedules: %s; again in %g s", _text(error), pause)
                self._stopping.wait(pause)
                pause = min(2 * pause, PAUSE_MAX_S)
        self._last_runs.close()
        self._reader.close()
        if self._codec is not CODEC:
            self._codec.close()

    def _serve(self) -> None:
        ensure_schedules(self._settings, clock=self._clock)
        self._count = partition_count(self._settings, self._topic, clock=self._clock) or 0
        self._changelog = Changelog(self._settings, self._clock)
        consumer = Consumer(self._consumer_config())
        try:
            consumer.subscribe(
                [self._topic],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_revoke,
            )
            while not self._stopping.is_set():
                self._poll(consumer)
                self._step()
        finally:
            for p in list(self._parts):
                self._let_go(p)
            consumer.close()
            self._changelog.close()

    def _consumer_config(self) -> dict[str, Any]:
        return client_config(
            self._settings,
            "schedules",
            clock=self._clock,
            group_id=self._topic,
            # The classic protocol lets the client say how soon it is missed.
            group_protocol="classic",
            partition_assignment_strategy="cooperative-sticky",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_000,
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_wait_max_ms=50,
            fetch_error_backoff_ms=100,
            fetch_queue_backoff_ms=5,
        )

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
            self._forget(id)

    def _forget(self, id: str) -> None:
        self._last_runs.forget(id)
        self._asking.discard(id)
        self._complained.pop(id, None)

    # ---- the loop -------------------------------------------------------------------------------

    def _poll(self, consumer: Consumer) -> None:
        messages = consumer.consume(1, self._idle_s())
        if messages:
            messages += consumer.consume(BATCH - 1, 0)
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
            self._forget(gone)

    def _idle_s(self) -> float:
        """How long nothing is due, if nothing comes."""
        if not self._told.empty():
            return 0.0
        now_s, now_ms = self._clock.monotonic(), self._clock.now_ms()
        idle = ASKING_S if self._asking else IDLE_S
        for part in self._parts.values():
            if (at := part.owned.next_at) is not None:
                idle = min(idle, max(0.0, (at - now_ms) / 1000, part.again_at - now_s))
        return idle

    def _step(self) -> None:
        self._hear()
        for part in list(self._parts.values()):
            if self._clock.monotonic() < part.again_at:
                continue
            try:
                if part.is_unsure:
                    self._find_out(part)
                self._pass(part)
                part.pause_s = PAUSE_S
            except Stopped:
                raise
            except (KafkaException, BufferError, TaskmillError) as error:
                logger.warning("schedules: %s; again in %g s", _text(error), part.pause_s)
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

    # ---- what is due ----------------------------------------------------------------------------

    def _pass(self, part: _Part) -> None:
        """Write all that is due on a partition, in one transaction."""
        now = self._clock.now_ms()
        owned = part.owned
        owned.read_again(now)
        fired: list[Fired] = []
        size = 0
        for entry in owned.due(now, PER_PASS):
            if size >= PER_TRANSACTION:
                owned.wake(entry, now)
                continue
            one = self._look(owned, entry, now)
            if one is not None:
                fired.append(one)
                size += len(one.messages)
        orphans = list(owned.orphans)[:PER_PASS]
        if not fired and not orphans:
            return
        messages = [message for one in fired for message in one.messages]
        messages += [self._firing.removal(key, owned.p) for key in orphans]
        where = [TopicPartition(self._topic, owned.p, part.position)]
        try:
            part.transactions.transact(messages, where, self._metadata)
        except (KafkaException, BufferError):
            for queue in {one.entry.schedule.queue for one in fired}:
                self._firing.forget(queue)
            raise
        for key in orphans:
            owned.removed(key)
        for one in fired:
            self._settle(owned, one)

    def _look(self, owned: Owned, entry: Entry, now: int) -> Fired | None:
        """What is due of one schedule; where nothing is, it is looked at when something is."""
        id = entry.schedule.id
        seen = entry.look(now, None)
        if seen.asks:
            is_over = self._last_runs.is_over(entry.state)
            entry.asks = is_over is None
            if is_over is not None:
                seen = entry.look(now, is_over)
        else:
            entry.asks = False
        if entry.asks:
            self._asking.add(id)
            owned.wake(entry, now + AGAIN_MS)
            return None
        self._asking.discard(id)
        if seen.state is entry.state:
            owned.wake(entry, seen.next_at)
            return None
        try:
            one = self._firing.fire(entry, seen, owned.p, now)
        except TaskmillError as error:
            if self._complained.get(id) != str(error):
                self._complained[id] = str(error)
                logger.error("schedule %r cannot be fired: %s; tried on", id, error)
            owned.wake(entry, now + AGAIN_MS)
            return None
        return one

    def _settle(self, owned: Owned, one: Fired) -> None:
        """It is written."""
        entry, seen, state, _ = one
        missed = state.missed - entry.state.missed
        if missed:
            logger.warning("schedule %r: %d times were missed", state.id, missed)
        entry.state = state
        owned.wake(entry, seen.next_at)
        self.fired[state.id] += len(seen.fire)
        if state.last_task_id is not None and entry.schedule.overlap != "allow":
            self._last_runs.follow(state)


def _puts(changes: Any) -> list[Put]:
    found: list[Change] = list(changes)
    return [(key, value) for key, value, _ in found]


def _text(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return first.str() if hasattr(first, "str") else str(first)
