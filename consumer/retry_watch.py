"""Retries that nobody passes on are told of: without a scheduler they would wait in silence."""

from __future__ import annotations

import logging

from confluent_kafka import Consumer, TopicPartition

from taskmill.consumer.retention import CALL_S, offsets_of
from taskmill.consumer.tiers import Tier, tiers_of
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.kafka import client_config
from taskmill.runtime.topic_table import retry_group
from taskmill.runtime.topics import Topics

logger = logging.getLogger("taskmill.worker")

EVERY_S = 60.0
#: A scheduler that was killed is replaced by then, and one that has too much to do gets there.
OVERDUE_MS = 60_000


class RetryWatch:
    """Looks at the retry tiers of one queue. For one thread."""

    def __init__(self, settings: Settings, topics: Topics, clock: Clock) -> None:
        self._settings = settings
        self._topics = topics
        self._clock = clock

    def step(self) -> None:
        """Log how many retries have been due for longer than a minute, and wait.

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
            )
        )
        try:
            there = consumer.list_topics(timeout=CALL_S).topics
            overdue = 0
            for tier in tiers_of(self._settings):
                topic = self._topics.retry(tier.name)
                if topic in there:
                    overdue += self._overdue(consumer, topic, len(there[topic].partitions), tier)
        finally:
            consumer.close()
        if overdue:
            logger.warning(
                "%d retries of queue %s have been due for more than a minute: does a "
                "`taskmill scheduler` run, with prefix %s?",
                overdue,
                self._topics.queue,
                self._settings.prefix,
            )

    def _overdue(self, consumer: Consumer, topic: str, count: int, tier: Tier) -> int:
        before = self._clock.now_ms() - tier.ms - OVERDUE_MS
        places = [TopicPartition(topic, p, before) for p in range(count)]
        # Without a record so young, a partition is not in the answer: all of it is old.
        young = offsets_of(consumer.offsets_for_times(places, CALL_S))
        done = offsets_of(consumer.committed(places, CALL_S))
        overdue = 0
        for p in range(count):
            start, end = consumer.get_watermark_offsets(TopicPartition(topic, p), CALL_S)
            overdue += max(0, young.get(p, end) - max(done.get(p, 0), start))
        return overdue
