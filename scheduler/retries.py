"""The delayed consumer of retry tiers: passes tasks on to their queue once their wait is over.

One thread. What is due goes, in one Kafka transaction with the offsets, to the partition of `tasks`
that its key belongs to, or to a tier again where some of its wait is left. It may go twice where
that cannot be told from not at all: (generation, seq) tells workers.

A partition's waits end in the order of its offsets, since a tier has one delay and the broker's
clock stamps what is appended: nothing waits behind anything that is due later.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from taskmill.consumer.decode import headers_of
from taskmill.consumer.dlq import LEFT, header_bytes
from taskmill.consumer.tiers import Tiers
from taskmill.consumer.transactions import Transactions
from taskmill.producer.routes import PARTITION_HEADER, Routes
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.duration import parse_duration
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.kafka import client_config, is_fatal, resume_at
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topic_table import retry_group, retry_topic_of
from taskmill.runtime.topics import Topics, partition_count
from taskmill.scheduler.waiting import Held, Waiting

logger = logging.getLogger("taskmill.scheduler")

#: Records taken at once, and passed on in one transaction, at the most.
BATCH = 1_000
PER_TRANSACTION = 4_000
#: How long a poll without records blocks; what becomes due meanwhile cuts it short.
IDLE_S = 0.1
#: A transaction follows the last one after this, unless that was large: each costs the broker
#: milliseconds of CPU, whatever is in it (see consumer/engine.py). What is due after a pause is
#: passed on at once.
GATHER_S = 0.05
#: Where many become due all the time, later: after a millisecond for each that was in the last one.
GATHER_PER_RECORD_S, GATHER_MAX_S = 0.001, 0.25
LARGE = PER_TRANSACTION // 2
#: To learn from where a partition is to be read.
CALL_TIMEOUT_S = 4.0
#: After what failed, doubling up to the maximum.
PAUSE_S, PAUSE_MAX_S = 0.05, 5.0
#: A consumer that has worked for this long begins with the first pause again.
WELL_S = 60.0
#: To find a queue's topics.
ROUTE_S = 3.0

Place = tuple[str, int]


class Taken(NamedTuple):
    """What of a record is passed on; `left_ms`: what is left of its wait after this tier."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    left_ms: int

    @classmethod
    def of(cls, message: Message) -> Taken:
        headers = headers_of(message) or []  # without those that no client of ours wrote
        kept = [one for one in headers if one[0] not in (LEFT, PARTITION_HEADER)]
        return cls(message.key(), message.value(), kept, _left(headers))

    @property
    def size(self) -> int:
        return len(self.value or b"") + len(self.key or b"") + header_bytes(self.headers)


class Retries:
    """Serves the retry topics that it is given by `serve`. `run` is one thread's, until `stop`."""

    def __init__(self, settings: Settings, transactional_id: str, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._stopping = threading.Event()
        self._wanted: frozenset[str] = frozenset()
        self._subscribed: frozenset[str] = frozenset()
        self._waiting: dict[Place, Waiting[Taken]] = {}
        self._metadata: object = None
        self._done: dict[Place, int] = {}
        self._passing = Transactions(settings, transactional_id, clock)
        self._routes = Routes(
            settings, lambda topic, left: partition_count(settings, topic, timeout_s=left), clock
        )
        self._tiers: dict[str, Tiers] = {}
        self._again_at, self._pause_s = 0.0, PAUSE_S
        #: Passed on so far, by topic.
        self.passed: Counter[str] = Counter()

    @property
    def done(self) -> dict[Place, int]:
        """The offset below which all is passed on, of each partition that is held now."""
        return dict(self._done)

    @property
    def group(self) -> str:
        """The consumer group of all that pass on retries under this prefix."""
        return retry_group(self._settings.prefix)

    def serve(self, topics: Iterable[str]) -> None:
        """Pass on what lies on these topics, from the next poll on. Any thread."""
        self._wanted = frozenset(topics)

    def stop(self) -> None:
        """End `run`, once what it is about has been passed on. Any thread."""
        self._stopping.set()

    def run(self) -> None:
        """Until `stop`. A client that fails is made anew."""
        pause = PAUSE_S
        while not self._stopping.is_set():
            began = self._clock.monotonic()
            try:
                self._serve()
            except KafkaException as error:
                if self._clock.monotonic() - began > WELL_S:
                    pause = PAUSE_S
                logger.warning("retries: %s; again in %g s", _text(error), pause)
                self._stopping.wait(pause)
                pause = min(2 * pause, PAUSE_MAX_S)
        self._passing.close()

    def _serve(self) -> None:
        self._passing.open()
        consumer = Consumer(self._consumer_config())
        self._subscribed = frozenset()
        try:
            while not self._stopping.is_set():
                self._subscribe(consumer)
                self._poll(consumer)
                self._try_to_pass_on()
                self._turn(consumer)
        finally:
            self._waiting.clear()
            self._done.clear()
            consumer.close()

    def _consumer_config(self) -> dict[str, Any]:
        return client_config(
            self._settings,
            "retries",
            clock=self._clock,
            group_id=self.group,
            # The classic protocol lets the client say how soon it is missed.
            group_protocol="classic",
            partition_assignment_strategy="cooperative-sticky",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_000,
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            # A pause throws away what was fetched and not taken.
            queued_min_messages=1000,
            fetch_queue_backoff_ms=5,
            queued_max_messages_kbytes=16 * 1024,
            fetch_message_max_bytes=64 * 1024,
            fetch_wait_max_ms=50,
            fetch_error_backoff_ms=100,
        )

    # ---- taking in ----------------------------------------------------------------------------

    def _subscribe(self, consumer: Consumer) -> None:
        if self._wanted == self._subscribed:
            return
        self._subscribed = self._wanted
        if self._subscribed:
            consumer.subscribe(
                sorted(self._subscribed),
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_revoke,
            )
        else:
            consumer.unsubscribe()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metadata = consumer.consumer_group_metadata()
        # An offset for each: where librdkafka has to ask for it and hears "not coordinator", it
        # never fetches (librdkafka #5586).
        starts = consumer.committed(partitions, CALL_TIMEOUT_S) if partitions else []
        for tp in starts:
            if tp.error is not None:
                raise KafkaException(tp.error)
            _, tier = retry_topic_of(tp.topic, self._settings.prefix) or ("", "1s")
            waiting: Waiting[Taken] = Waiting(round(parse_duration(tier) * 1000))
            self._waiting[tp.topic, tp.partition] = waiting
            if tp.offset < 0:
                tp.offset = OFFSET_BEGINNING
            else:
                waiting.next_offset = self._done[tp.topic, tp.partition] = tp.offset
        consumer.incremental_assign(starts)
        if starts:
            logger.info("passing on %s", sorted(f"{tp.topic} [{tp.partition}]" for tp in starts))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._waiting.pop((tp.topic, tp.partition), None)
            self._done.pop((tp.topic, tp.partition), None)
        consumer.incremental_unassign(partitions)

    def _poll(self, consumer: Consumer) -> None:
        # consume(n) waits for all n; one first, then what else is there, has no such wait.
        messages = consumer.consume(1, self._idle_s())
        if messages:
            messages += consumer.consume(BATCH - 1, 0)
        for message in messages:
            error = message.error()
            if error is not None:
                if is_fatal(error):
                    raise KafkaException(error)
                logger.warning("retries: %s", error.str())
                continue
            waiting = self._waiting.get((message.topic() or "", _partition(message)))
            if waiting is not None:
                taken = Taken.of(message)
                waiting.add(message.offset() or 0, message.timestamp()[1], taken.size, taken)

    def _idle_s(self) -> float:
        """How long nothing is to be passed on, if nothing comes."""
        times = [at for one in self._waiting.values() if (at := one.due_at) is not None]
        if not times:
            return IDLE_S
        due_s = (min(times) - self._clock.now_ms()) / 1000
        return min(IDLE_S, max(0.0, due_s, self._again_at - self._clock.monotonic()))

    def _turn(self, consumer: Consumer) -> None:
        now = self._clock.now_ms()
        for (topic, p), waiting in self._waiting.items():
            pause = partial(consumer.pause, [TopicPartition(topic, p)])
            waiting.turn(now, pause, partial(resume_at, consumer, topic, p))

    # ---- passing on ---------------------------------------------------------------------------

    def _try_to_pass_on(self) -> None:
        """Pass on what is due; where that fails, again after a pause, the consumer at work."""
        if self._clock.monotonic() < self._again_at:
            return
        try:
            count = self._pass_on()
            if 0 < count < LARGE:
                gather_s = min(max(GATHER_S, count * GATHER_PER_RECORD_S), GATHER_MAX_S)
                self._again_at = self._clock.monotonic() + gather_s
            self._pause_s = PAUSE_S
        except (KafkaException, BufferError, TaskmillError) as error:
            logger.warning("retries: %s; again in %g s", _text(error), self._pause_s)
            self._again_at = self._clock.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    def _pass_on(self) -> int:
        """How many were due, and are passed on."""
        now, room = self._clock.now_ms(), PER_TRANSACTION
        batch: dict[Place, list[Held[Taken]]] = {}
        # The longest overdue first: one long queue of them starves no other partition.
        for place, waiting in sorted(self._waiting.items(), key=lambda item: item[1].due_at or 0):
            if due := waiting.due(now, room):
                batch[place] = due
                room -= len(due)
            if room <= 0:
                break
        if not batch:
            return 0
        messages = [one for place, due in batch.items() for one in self._onward(place[0], due)]
        offsets = [TopicPartition(*place, due[-1].offset + 1) for place, due in batch.items()]
        try:
            self._passing.transact(messages, offsets, self._metadata)
        except (KafkaException, BufferError):
            # Perhaps a queue has fewer partitions than it had, or a tier is gone.
            for topic, _ in batch:
                self._routes.forget(_queue(topic, self._settings.prefix))
            self._tiers.clear()
            raise
        for place, due in batch.items():
            self._waiting[place].passed_on(len(due))
            self._done[place] = due[-1].offset + 1
            self.passed[place[0]] += len(due)
        return len(messages)

    def _onward(self, topic: str, due: list[Held[Taken]]) -> list[dict[str, Any]]:
        """Where each of `due` goes next. Raises TaskmillError where that cannot be found now."""
        queue = _queue(topic, self._settings.prefix)
        route = self._routes.get(queue, Deadline(ROUTE_S, self._clock))
        onward = []
        for one in due:
            key, value, headers, left_ms = one.record
            record = {"key": key, "value": value}
            if left_ms:
                place = self._tiers_of(queue, left_ms).place(left_ms)
                p = partition_for(key or b"", place.partitions)
                more = [(LEFT, str(place.left_ms).encode())] if place.left_ms else []
                topic = place.topic
            else:
                p = partition_for(key or b"", route.partitions)
                more, topic = route.headers[p], route.topic
            onward.append(record | {"topic": topic, "partition": p, "headers": headers + more})
        return onward

    def _tiers_of(self, queue: str, wait_ms: int) -> Tiers:
        tiers = self._tiers.get(queue)
        if tiers is None:
            topics = Topics(self._settings.prefix, queue)
            tiers = self._tiers[queue] = Tiers(self._settings, topics, self._clock)
        tiers.reach(wait_ms, Deadline(ROUTE_S, self._clock))
        return tiers


def _queue(topic: str, prefix: str) -> str:
    place = retry_topic_of(topic, prefix)
    assert place is not None, "only such topics are subscribed to"
    return place[0]


def _partition(message: Message) -> int:
    p = message.partition()
    assert p is not None, "what was consumed lies somewhere"
    return p


def _left(headers: Iterable[tuple[str, bytes | None]]) -> int:
    """Milliseconds that are left of a record's wait, after this tier."""
    for name, content in headers:
        if name == LEFT and content is not None and content.isdigit() and len(content) <= 12:
            return int(content)
    return 0


def _text(error: Exception) -> str:
    first = error.args[0] if error.args else error
    return first.str() if isinstance(first, KafkaError) else str(first)
