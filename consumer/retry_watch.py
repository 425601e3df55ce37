"""What waits and nobody passes on is told of: without a scheduler it would wait in silence."""

from __future__ import annotations

import logging

from confluent_kafka import OFFSET_BEGINNING, Consumer, ConsumerGroupState, TopicPartition
from confluent_kafka.admin import AdminClient

from taskmill.consumer.retention import CALL_S, offsets_of
from taskmill.consumer.tiers import Tier, tiers_of
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.kafka import client_config
from taskmill.runtime.topic_table import delayed_group, retry_group
from taskmill.runtime.topics import Topics
from taskmill.schemas.json_form import iso

logger = logging.getLogger("taskmill.worker")

EVERY_S = 60.0
#: A scheduler that was killed is replaced by then, and one that has too much to do gets there.
OVERDUE_MS = 60_000
_LOOK_S = 0.1


class RetryWatch:
    """Looks at the retry tiers of one queue. For one thread."""

    def __init__(self, settings: Settings, topics: Topics, clock: Clock) -> None:
        self._settings = settings
        self._topics = topics
        self._clock = clock

    def step(self) -> None:
        """Log since when a retry that is overdue has been due, if there is one; and that something
        may wait for its time, and no scheduler takes part.

        Raises KafkaException.
        """
        # Of the schedulers' group, which it does not join; made anew each time, as retention's.
        consumer = Consumer(
            client_config(
                self._settings,
                "retry-watch",
                clock=self._clock,
                group_id=retry_group(self._settings.prefix),
                enable_auto_commit=False,
                isolation_level="read_committed",
                enable_partition_eof=True,
            )
        )
        try:
            there = consumer.list_topics(timeout=CALL_S).topics
            due = [
                at
                for tier in tiers_of(self._settings)
                if (topic := self._topics.retry(tier.name)) in there
                for at in self._due(consumer, topic, len(there[topic].partitions), tier)
            ]
            is_unserved = self._topics.delayed in there and self._is_unserved()
        finally:
            consumer.close()
        if is_unserved:
            logger.warning(
                "delayed tasks of queue %s are not passed on: does a `taskmill scheduler` run, "
                "with prefix %s?",
                self._topics.queue,
                self._settings.prefix,
            )
        if due and min(due) <= self._clock.now_ms() - OVERDUE_MS:
            logger.warning(
                "retries of queue %s have been due since %s and are not passed on: does a "
                "`taskmill scheduler` run, with prefix %s?",
                self._topics.queue,
                iso(min(due)),
                self._settings.prefix,
            )

    def _is_unserved(self) -> bool:
        """Whether nobody is in the group that passes on delayed tasks; a scheduler that has just
        been killed still is, for some seconds."""
        admin = AdminClient(client_config(self._settings, "retry-watch-admin", clock=self._clock))
        answer = admin.list_consumer_groups(request_timeout=CALL_S).result(2 * CALL_S)
        group = delayed_group(self._settings.prefix)
        mine = (one for one in answer.valid if one.group_id == group)
        return not answer.errors and all(one.state == ConsumerGroupState.EMPTY for one in mine)

    def _due(self, consumer: Consumer, topic: str, count: int, tier: Tier) -> list[int]:
        """When the next one of each partition is due, where there is one (UTC ms)."""
        places = [TopicPartition(topic, p) for p in range(count)]
        done = offsets_of(consumer.committed(places, CALL_S))
        starts = [TopicPartition(topic, p, done.get(p, OFFSET_BEGINNING)) for p in range(count)]
        # Read: the markers of transactions have offsets too, and nothing may lie behind them.
        consumer.assign(starts)
        seen: dict[int | None, int | None] = {}
        give_up = Deadline(CALL_S, self._clock)
        while len(seen) < count and not give_up.over():
            for message in consumer.consume(1, _LOOK_S):
                at = None if message.error() else message.timestamp()[1] + tier.ms
                seen.setdefault(message.partition(), at)
        consumer.unassign()
        return [at for at in seen.values() if at is not None]
