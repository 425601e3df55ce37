"""The delayed consumer of retry tiers: passes tasks on to their queue once their wait is over.

One thread. What is due goes, in one Kafka transaction with the offsets, to the partition of `tasks`
that its key belongs to. It may go twice where that cannot be told from not at all: (generation,
seq) tells workers.

A partition's waits end in the order of its offsets, since a tier has one delay and the broker's
clock stamps what is appended: nothing waits behind anything that is due later.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
)

from taskmill.consumer.decode import headers_of
from taskmill.consumer.dlq import NOT_BEFORE, header_bytes
from taskmill.producer.routes import PARTITION_HEADER
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.duration import parse_duration
from taskmill.runtime.kafka import resume_at
from taskmill.runtime.topic_table import retry_group, retry_topic_of
from taskmill.scheduler.member import ROUTE_S, Member, Place, gather_s, place_of, to_tasks
from taskmill.scheduler.waiting import Held, Waiting

#: Passed on in one transaction, at the most.
PER_TRANSACTION = 4_000
#: To learn from where a partition is to be read.
CALL_TIMEOUT_S = 4.0


class Taken(NamedTuple):
    """What of a record is passed on."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]

    @classmethod
    def of(cls, message: Message) -> Taken:
        headers = headers_of(message) or []  # without those that no client of ours wrote
        kept = [one for one in headers if one[0] not in (PARTITION_HEADER, NOT_BEFORE)]
        return cls(message.key(), message.value(), kept)

    @property
    def size(self) -> int:
        return len(self.value or b"") + len(self.key or b"") + header_bytes(self.headers)


class Retries(Member):
    """The retry topics."""

    def __init__(self, settings: Settings, transactional_id: str, clock: Clock) -> None:
        group = retry_group(settings.prefix)
        super().__init__(settings, "retries", group, transactional_id, clock)
        self._waiting: dict[Place, Waiting[Taken]] = {}
        self._done: dict[Place, int] = {}
        #: Passed on so far, by topic.
        self.passed: Counter[str] = Counter()

    @property
    def done(self) -> dict[Place, int]:
        """The offset below which all is passed on, of each partition that is held now."""
        return dict(self._done)

    # ---- taking in ----------------------------------------------------------------------------

    def _assigned(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> list[TopicPartition]:
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
        return starts

    def _forget(self, place: Place) -> None:
        self._waiting.pop(place, None)
        self._done.pop(place, None)

    def _forget_all(self) -> None:
        self._waiting.clear()
        self._done.clear()

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            waiting = self._waiting.get(place_of(message))
            if waiting is not None:
                taken = Taken.of(message)
                waiting.add(message.offset() or 0, message.timestamp()[1], taken.size, taken)

    def _due_in_s(self) -> float | None:
        times = [at for one in self._waiting.values() if (at := one.due_at) is not None]
        return (min(times) - self._time.now_ms()) / 1000 if times else None

    def _turn(self, consumer: Consumer) -> None:
        now = self._clock.now_ms()
        for (topic, p), waiting in self._waiting.items():
            pause = partial(consumer.pause, [TopicPartition(topic, p)])
            waiting.turn(now, pause, partial(resume_at, consumer, topic, p))

    # ---- passing on ---------------------------------------------------------------------------

    def _pass_on(self) -> float:
        now, room = self._time.now_ms(), PER_TRANSACTION
        batch: dict[Place, list[Held[Taken]]] = {}
        # The longest overdue first: one long queue of them starves no other partition.
        for place, waiting in sorted(self._waiting.items(), key=lambda item: item[1].due_at or 0):
            if due := waiting.due(now, room):
                batch[place] = due
                room -= len(due)
            if room <= 0:
                break
        if not batch:
            return 0.0
        messages = [one for place, due in batch.items() for one in self._onward(place[0], due)]
        offsets = [TopicPartition(*place, due[-1].offset + 1) for place, due in batch.items()]
        try:
            self._transact(messages, offsets)
        except (KafkaException, BufferError):
            # Perhaps a queue has fewer partitions than it had.
            for topic, _ in batch:
                self._routes.forget(_queue(topic, self._settings.prefix))
            raise
        for place, due in batch.items():
            self._waiting[place].passed_on(len(due))
            self._done[place] = due[-1].offset + 1
            self.passed[place[0]] += len(due)
        return gather_s(len(messages), PER_TRANSACTION)

    def _onward(self, topic: str, due: list[Held[Taken]]) -> list[dict[str, Any]]:
        """Where each of `due` goes next. Raises TaskmillError where that cannot be found now."""
        queue = _queue(topic, self._settings.prefix)
        route = self._routes.get(queue, Deadline(ROUTE_S, self._clock))
        # By the broker's clock it is due then: whoever passes it on too early gets it back.
        older = self._settings.oldest_worker is not None
        return [
            to_tasks(route, key, value, [*hs, (NOT_BEFORE, b"%d" % due_at)], older=older)
            for _, due_at, _, (key, value, hs) in due
        ]


def _queue(topic: str, prefix: str) -> str:
    place = retry_topic_of(topic, prefix)
    assert place is not None, "only such topics are subscribed to"
    return place[0]
