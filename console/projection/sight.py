"""What there is to read: the topics of all queues, found by their names, and how far each goes.

Asked of Kafka once a second on a thread of its own, so that a broker that does not answer holds up
neither reading nor the store.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import IsolationLevel, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, by its own note
    AdminClient,
    OffsetSpec,
)

from taskmill.console.projection.decode import PROJECTED, TopicOf
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.kafka import client_config
from taskmill.runtime.topic_table import queue_of
from taskmill.runtime.topics import Kind

logger = logging.getLogger("taskmill.console")

#: Between two looks; a new queue is found, and lag known, within this and an answer.
LOOK_S = 1.0
_ANSWER_S = 10.0
#: How often the starts of the DLQs are asked: letters are gone from Kafka after weeks.
_STARTS_EVERY = 60

Partition = tuple[str, int]


class Sight(NamedTuple):
    """What was seen at `asked_at` (UTC ms): of each partition the offset behind its last record,
    records of open transactions included. `starts`: of DLQs alone, asked every minute. `is_whole`:
    all topics that are listed were told of; one that was just made or deleted may not be."""

    asked_at: int
    topics: Mapping[str, TopicOf]
    ends: Mapping[Partition, int]
    starts: Mapping[Partition, int]
    is_whole: bool


class Watch:
    """Looks once a second. `sight` is the last one, None before the first."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.sight: Sight | None = None
        #: Set by each look.
        self.looked = threading.Event()
        self._settings = settings
        self._clock = clock
        self._looks = 0
        self._starts: dict[Partition, int] = {}
        self._client: AdminClient | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="taskmill-sight", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; waits for a look under way."""
        self._stopping.set()
        self._thread.join(_ANSWER_S + 1)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.sight = self.look()
                self.looked.set()
            except (KafkaException, TaskmillError, TimeoutError) as error:
                # A client that failed may ask a controller that is gone for minutes.
                self._client = None
                logger.info("looking for topics: %s", error)
            except Exception:
                # It must not end the thread: nothing new would ever be known.
                self._client = None
                logger.exception("looking for topics")
            self._stopping.wait(LOOK_S)

    def look(self) -> Sight:
        """Ask now. Raises KafkaException or TimeoutError where Kafka does not answer."""
        if self._client is None:
            self._client = AdminClient(client_config(self._settings, "console", clock=self._clock))
        client = self._client
        asked_at = self._clock.now_ms()
        topics, is_whole = self._topics(client)
        partitions = [(t.name, p) for t in topics.values() for p in range(t.partitions)]
        ends = _offsets(client, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        if self._looks % _STARTS_EVERY == 0:
            letters = [p for p in partitions if topics[p[0]].kind is Kind.DLQ]
            self._starts = _offsets(client, letters, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        self._looks += 1
        return Sight(asked_at, topics, ends, self._starts, is_whole)

    def _topics(self, client: AdminClient) -> tuple[dict[str, TopicOf], bool]:
        prefix = self._settings.prefix
        kinds = {}
        for name in client.list_topics(timeout=_ANSWER_S).topics:
            for kind in PROJECTED:
                queue = queue_of(name, kind, prefix)
                if queue is not None:
                    kinds[name] = kind, queue
        if not kinds:
            return {}, True
        asked = client.describe_topics(TopicCollection([*kinds]), request_timeout=_ANSWER_S)
        found = {}
        for name, answer in asked.items():
            try:
                told = answer.result(_ANSWER_S + 1)
            except KafkaException as error:
                logger.debug("%s: %s", name, error)
                continue
            kind, queue = kinds[name]
            found[name] = TopicOf(name, kind, queue, str(told.topic_id), len(told.partitions))
        return found, len(found) == len(kinds)


def _offsets(
    client: AdminClient, partitions: Iterable[Partition], spec: Any
) -> dict[Partition, int]:
    """Those that are told; one without a leader is left out."""
    wanted = {TopicPartition(*one): spec for one in partitions}
    if not wanted:
        return {}
    asked = client.list_offsets(
        wanted, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=_ANSWER_S
    )
    found = {}
    for where, answer in asked.items():
        try:
            offset = answer.result(_ANSWER_S + 1).offset
        except KafkaException as error:
            logger.debug("%s [%s]: %s", where.topic, where.partition, error)
            continue
        if offset >= 0:
            found[where.topic, where.partition] = offset
    return found
