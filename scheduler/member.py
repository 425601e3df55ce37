"""A scheduler's place in a consumer group: one thread that takes records, waits, and passes on.

What it passes on goes in transactions with the offsets of what it owns, under the metadata that the
last rebalance told: what another has taken over is refused.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from taskmill.consumer.generation import generation_of
from taskmill.consumer.transactions import Transactions
from taskmill.producer.routes import Route, Routes
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.kafka import as_raised, client_config, is_fatal, taken
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topics import partition_count
from taskmill.scheduler.broker_time import BrokerTime
from taskmill.scheduler.older import for_older

logger = logging.getLogger("taskmill.scheduler")

#: Records taken at once.
BATCH = 1_000
#: How long a poll without records blocks; what becomes due meanwhile cuts it short.
IDLE_S = 0.1
#: After what failed, doubling up to the maximum.
PAUSE_S, PAUSE_MAX_S = 0.05, 5.0
#: A consumer that has worked for this long begins with the first pause again.
WELL_S = 60.0

#: A transaction follows the last one after this, unless that was large: each costs the broker
#: milliseconds of CPU, whatever is in it (see consumer/engine.py). What is due after a pause is
#: passed on at once.
GATHER_S = 0.05
#: Where many become due all the time, later: after a millisecond for each that was in the last one.
GATHER_PER_RECORD_S, GATHER_MAX_S = 0.001, 0.25
#: To find a queue's topics.
ROUTE_S = 3.0

Place = tuple[str, int]


class Member(ABC):
    """Serves the topics that it is given by `serve`. `run` is one thread's, until `stop`."""

    def __init__(
        self, settings: Settings, what: str, group: str, transactional_id: str, clock: Clock
    ) -> None:
        """`what` it passes on, for logs: "retries"."""
        self._settings = settings
        self._what = what
        #: The consumer group of all that pass on the same under this prefix.
        self.group = group
        self._clock = clock
        self._stopping = threading.Event()
        self._wanted: frozenset[str] = frozenset()
        self._subscribed: frozenset[str] = frozenset()
        self._metadata: object = None
        self._time = BrokerTime(clock)
        self._passing = Transactions(settings, transactional_id, clock)
        #: Where queues' tasks go.
        self._routes = Routes(
            settings, lambda topic, left: partition_count(settings, topic, timeout_s=left), clock
        )
        #: Called in each round.
        self.moved: Callable[[], object] = lambda: None
        self._has_joined = False
        #: When something may be passed on again (monotonic), and the pause after the next failure.
        self._again_at, self._pause_s = 0.0, PAUSE_S

    # ---- any thread ---------------------------------------------------------------------------

    def serve(self, topics: Iterable[str]) -> None:
        """Pass on what lies on these topics, from the next poll on."""
        self._wanted = frozenset(topics)

    def unready(self) -> str | None:
        """One line why it does not pass on, nor stand by; None: it does."""
        if self._wanted and not self._has_joined:
            return f"{self._what}: the consumer group has not been joined yet"
        return None

    def stop(self) -> None:
        """End `run`, once what it is about has been passed on."""
        self._stopping.set()

    # ---- its own thread -----------------------------------------------------------------------

    def run(self) -> None:
        """Until `stop`. A client that fails is made anew."""
        keep_on(self._serve, self._stopping, self._what, self._clock)
        self._passing.close()

    def _serve(self) -> None:
        self.moved()
        self._passing.open()
        consumer = Consumer(
            member_config(
                self._settings,
                self._what,
                self.group,
                self._clock,
                # A pause throws away what was fetched and not taken.
                queued_min_messages=1000,
                queued_max_messages_kbytes=16 * 1024,
                fetch_message_max_bytes=64 * 1024,
            )
        )
        self._subscribed = frozenset()
        try:
            while not self._stopping.is_set():
                self.moved()
                self._has_joined = self._has_joined or has_joined(consumer)
                self._subscribe(consumer)
                self._take(self._consume(consumer))
                self._try_to_pass_on()
                self._turn(consumer)
        finally:
            self._has_joined = False
            self._forget_all()
            consumer.close()

    def _subscribe(self, consumer: Consumer) -> None:
        if self._wanted == self._subscribed:
            return
        self._subscribed = self._wanted
        if self._subscribed:
            consumer.subscribe(
                sorted(self._subscribed),
                on_assign=as_raised(self._on_assign),
                on_revoke=as_raised(self._on_revoke),
                on_lost=as_raised(self._on_revoke),
            )
        else:
            consumer.unsubscribe()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metadata = consumer.consumer_group_metadata()
        # Whoever comes back may have been asleep.
        self._time.forget()
        starts = self._assigned(consumer, partitions)
        consumer.incremental_assign(starts)
        if starts:
            told = sorted(f"{tp.topic} [{tp.partition}]" for tp in starts)
            logger.info("passing on %s", told)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._forget((tp.topic, tp.partition))
        consumer.incremental_unassign(partitions)

    def _consume(self, consumer: Consumer) -> list[Message]:
        """What there is, or what comes until something is to be passed on."""
        good = []
        for message in taken(consumer, BATCH, self._idle_s()):
            error = message.error()
            if error is None:
                good.append(message)
            elif is_fatal(error):
                raise KafkaException(error)
            else:
                logger.warning("%s: %s", self._what, error.str())
        return good

    def _transact(self, messages: list[dict[str, Any]], offsets: Sequence[TopicPartition]) -> None:
        """Commit `messages`, of which the first tells the broker's time, and `offsets`.

        Raises KafkaException, BufferError, TaskmillError.
        """
        sent = self._clock.monotonic()

        def stamped(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self._time.stamped(sent, message.timestamp()[1])

        messages[0]["on_delivery"] = stamped
        self._passing.transact(messages, offsets, self._metadata)

    def _idle_s(self) -> float:
        """How long nothing is to be passed on, if nothing comes."""
        due_in_s = self._due_in_s()
        if due_in_s is None:
            return IDLE_S
        return min(IDLE_S, max(0.0, due_in_s, self._again_at - self._clock.monotonic()))

    def _try_to_pass_on(self) -> None:
        """Pass on what is due; where that fails, again after a pause, the consumer at work."""
        if self._clock.monotonic() < self._again_at:
            return
        try:
            gather_s = self._pass_on()
            if gather_s:
                self._again_at = self._clock.monotonic() + gather_s
            self._pause_s = PAUSE_S
        except (KafkaException, BufferError, TaskmillError) as error:
            logger.warning("%s: %s; again in %g s", self._what, text_of(error), self._pause_s)
            self._again_at = self._clock.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)

    # ---- what is passed on --------------------------------------------------------------------

    @abstractmethod
    def _assigned(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> list[TopicPartition]:
        """These came: from which offset each is read. Raises KafkaException."""

    @abstractmethod
    def _forget(self, place: Place) -> None:
        """It went, or is about to."""

    @abstractmethod
    def _forget_all(self) -> None:
        """The consumer is about to end."""

    @abstractmethod
    def _take(self, messages: list[Message]) -> None:
        """Records came, in order."""

    @abstractmethod
    def _due_in_s(self) -> float | None:
        """Seconds until something is to be passed on; 0 or less: now; None: nothing waits."""

    @abstractmethod
    def _pass_on(self) -> float:
        """Pass on what is due, in one transaction; seconds that the next one may wait.

        Raises KafkaException, BufferError or TaskmillError where that failed.
        """

    @abstractmethod
    def _turn(self, consumer: Consumer) -> None:
        """The end of a round: pause and resume partitions."""


def keep_on(serve: Callable[[], None], stopping: threading.Event, what: str, clock: Clock) -> None:
    """Call `serve` until `stopping`, after a pause where it fails."""
    pause = PAUSE_S
    while not stopping.is_set():
        began = clock.monotonic()
        try:
            serve()
        except (KafkaException, TaskmillError) as error:
            if clock.monotonic() - began > WELL_S:
                pause = PAUSE_S
            logger.warning("%s: %s; again in %g s", what, text_of(error), pause)
            stopping.wait(pause)
            pause = min(2 * pause, PAUSE_MAX_S)


def member_config(
    settings: Settings, what: str, group: str, clock: Clock, **more: Any
) -> dict[str, Any]:
    """The settings of a consumer that takes part in `group`, and commits by transactions alone."""
    return client_config(
        settings,
        what,
        clock=clock,
        group_id=group,
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
        **more,
    )


def has_joined(consumer: Consumer) -> bool:
    """Whether it is a member of its group, with partitions or without."""
    generation = generation_of(consumer.consumer_group_metadata())
    return generation is not None and generation[0] > 0


def place_of(message: Message) -> Place:
    """Where `message`, which was consumed, lies."""
    topic, p = message.topic(), message.partition()
    assert topic is not None, "what was consumed lies somewhere"
    assert p is not None, "likewise"
    return topic, p


def gather_s(count: int, most: int) -> float:
    """How long the next transaction may wait after one of `count` records, of `most` at most."""
    if count >= most // 2:
        return 0.0
    return min(max(GATHER_S, count * GATHER_PER_RECORD_S), GATHER_MAX_S)


def to_tasks(
    route: Route,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
    *,
    older: bool = False,
) -> dict[str, Any]:
    """The arguments of `produce` that put a record on `tasks`, where its key belongs; in a form
    that `older` workers understand too."""
    if older:
        value, headers = for_older(value, headers)
    p = partition_for(key or b"", route.partitions)
    return {
        "topic": route.topic,
        "partition": p,
        "key": key,
        "value": value,
        "headers": headers + route.headers[p],
    }


def text_of(error: Exception) -> str:
    """One line for `error`."""
    first = error.args[0] if error.args else error
    return first.str() if isinstance(first, KafkaError) else str(first)
