"""Follows a small compacted topic of one partition: each key's last record, as it is written.

The topic may come into being later, be deleted, or be made anew. How long ago it is that all of it
was known is told too: `age_s`, by a question to the broker once a second.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.kafka import (
    OncePerMinute,
    bootstrap_servers,
    client_config,
    is_fatal,
    taken,
)

logger = logging.getLogger("taskmill.follow")

#: How often the broker is asked how far the topic reaches, or whether there is one by now.
LOOK_S = 1.0
#: One question to Kafka.
_CALL_S = 2.0
#: How long a poll blocks where nothing comes; a record ends it at once.
_IDLE_S = 0.2
_BATCH = 1_000
#: Before the next client, where one failed.
_AGAIN_S = 0.5
#: A topic that was there is gone once it was not found so many times in a row: a broker that has
#: just started may not know of it yet.
_MISSED = 3

_GONE = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.INCONSISTENT_TOPIC_ID,
    }
)
_REFUSED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})

T = TypeVar("T")


class Follower(Generic[T]):
    """What `topic` says, by key, each value as `parse` reads it. One whose value `parse` refuses
    (raises, TaskmillError by rights) is told of in the log, and counts as removed."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        parse: Callable[[bytes, bytes], T],
        clock: Clock = SYSTEM_CLOCK,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called by the thread once `values` is another one."""
        self._settings = settings
        self._topic = topic
        self._parse = parse
        self._clock = clock
        self._changed = changed
        self._say = OncePerMinute(f"following {topic}", clock, bootstrap_servers(settings))
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._main, name=f"taskmill-follow-{topic}", daemon=True
        )
        self._moved = threading.Condition()
        #: What is known, replaced as a whole: to be read by any thread. Empty before it is ready.
        self.values: Mapping[bytes, T] = {}
        #: The same while all of the topic has yet to be read.
        self._next: dict[bytes, T] = {}
        self._reached = 0
        self._is_whole = False
        #: Monotonic seconds at which all of the topic was known; None: never yet.
        self._whole_at: float | None = None
        self._is_refused = False
        self._missed = 0
        #: An end that the broker told, and when it was asked.
        self._target: tuple[int, float] | None = None

    # ---- any thread ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def age_s(self) -> float | None:
        """Seconds since all of the topic was known last; None: it never was. Some tenths to LOOK_S
        where Kafka answers."""
        at = self._whole_at
        return None if at is None else self._clock.monotonic() - at

    def wait_ready(self, seconds: float) -> bool:
        """Whether it is known what the topic says, or that it may not be read, within so long."""
        with self._moved:
            return self._moved.wait_for(
                lambda: self._whole_at is not None or self._is_refused, seconds
            )

    def wait_for(self, offset: int, seconds: float) -> bool:
        """Whether the record at `offset` counts within so long."""
        with self._moved:
            return self._moved.wait_for(lambda: self._is_whole and self._reached > offset, seconds)

    # ---- its thread ---------------------------------------------------------------------------

    def _main(self) -> None:
        while not self._stopping.is_set():
            consumer = self._consumer()
            try:
                self._follow(consumer)
            except KafkaException as error:
                self._say(error.args[0])
                self._stopping.wait(_AGAIN_S)
            finally:
                consumer.close()

    def _consumer(self) -> Consumer:
        return Consumer(
            client_config(
                self._settings,
                f"follow-{self._topic}",
                clock=self._clock,
                # Demanded by the client; nothing is committed, and no group joined.
                group_id=f"{self._topic}.look",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                # Nobody writes here in transactions.
                isolation_level="read_uncommitted",
                enable_partition_eof=True,
                fetch_wait_max_ms=500,
                queued_min_messages=_BATCH,
                queued_max_messages_kbytes=1024,
            )
        )

    def _follow(self, consumer: Consumer) -> None:
        look, assigned = Deadline(0, self._clock), False
        self._target = None
        while not self._stopping.is_set():
            if not assigned:
                assigned = self._find(consumer)
                if not assigned:
                    self._stopping.wait(LOOK_S)
                    continue
                look = Deadline(0, self._clock)
            if look.over():
                assigned = self._look(consumer)
                look = Deadline(LOOK_S, self._clock)
            if assigned:
                assigned = self._take(consumer)
            if not assigned:
                self._stopping.wait(_AGAIN_S)

    def _find(self, consumer: Consumer) -> bool:
        """Assign the topic, where it is there."""
        asked_at = self._clock.monotonic()
        found = consumer.list_topics(self._topic, timeout=_CALL_S).topics.get(self._topic)
        error = None if found is None else found.error
        if error is not None and error.code() not in _GONE:
            self._refuse(error)
            return False
        if found is not None and error is None and found.partitions:
            self._missed = 0
            at = self._reached or OFFSET_BEGINNING
            consumer.assign([TopicPartition(self._topic, 0, at)])
            return True
        self._missed += 1
        if not self.values or self._missed >= _MISSED:
            self._begin_anew()
            self._whole(asked_at)
        return False

    def _look(self, consumer: Consumer) -> bool:
        """Ask how far the topic reaches; False where it is to be found anew."""
        asked_at = self._clock.monotonic()
        where = TopicPartition(self._topic, 0)
        try:
            _, end = consumer.get_watermark_offsets(where, _CALL_S)
        except KafkaException as error:
            if error.args[0].code() not in _GONE:
                raise
            consumer.unassign()
            return False
        if end < self._reached:
            # Another topic of that name.
            self._begin_anew()
            consumer.unassign()
            return False
        self._target = end, asked_at
        self._settle()
        return True

    def _take(self, consumer: Consumer) -> bool:
        messages = taken(consumer, _BATCH, _IDLE_S)
        changes: dict[bytes, bytes | None] = {}
        reached, is_there = self._reached, True
        for message in messages:
            error = message.error()
            if error is None:
                changes[message.key() or b""] = message.value()
                reached = (message.offset() or 0) + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                reached = max(reached, message.offset() or 0)
            elif is_fatal(error) or error.code() in _REFUSED:
                self._refuse(error)
                raise KafkaException(error)
            elif error.code() in _GONE:
                is_there = False
            else:
                logger.info("following %s: %s", self._topic, error.str())
        if changes or reached != self._reached:
            self._apply(changes, reached)
        if not is_there:
            # Deleted, or made anew: what it says now is read from its beginning, and what is known
            # holds until then.
            self._begin_anew()
            consumer.unassign()
        return is_there

    def _apply(self, changes: Mapping[bytes, bytes | None], reached: int) -> None:
        values = dict(self.values) if self._is_whole else self._next
        for key, value in changes.items():
            try:
                if value is None:
                    values.pop(key, None)
                else:
                    values[key] = self._parse(key, value)
            except Exception as error:
                # Whatever it is: it must not end the thread, which all other keys need.
                logger.warning("%s, key %.80r: %s", self._topic, key, error or repr(error))
                values.pop(key, None)
        if self._is_whole and changes:
            self.values = values
            self._changed()
        with self._moved:
            self._reached = reached
            self._moved.notify_all()
        self._settle()

    def _begin_anew(self) -> None:
        self._next, self._reached, self._is_whole, self._target = {}, 0, False, None

    def _settle(self) -> None:
        """All is known as of the last look, once it has been read up to the end told then."""
        if self._target is not None and self._reached >= self._target[0]:
            self._whole(self._target[1])

    def _whole(self, asked_at: float) -> None:
        is_news = not self._is_whole and self.values != self._next
        if not self._is_whole:
            self.values, self._next = self._next, {}
        with self._moved:
            self._is_whole, self._whole_at = True, asked_at
            self._is_refused = False
            self._moved.notify_all()
        if is_news:
            self._changed()

    def _refuse(self, error: KafkaError) -> None:
        self._say(error)
        if error.code() in _REFUSED:
            with self._moved:
                self._is_refused = True
                self._moved.notify_all()
