"""A read_committed reader that follows topics while workers run, and keeps what it saw in order."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from support.wire import read_state
from taskmill.runtime.kafka import is_fatal

TERMINAL = frozenset({"succeeded", "dead", "cancelled", "expired"})


class Seen(NamedTuple):
    """A record as a plain consumer got it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]


class Witness:
    """A read_committed reader of whole topics, which keeps what it saw.

    `until` reads in the caller's thread until something is true; `watching` reads in a thread of
    its own. Not both at once.
    """

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        self.seen: dict[str, list[Seen]] = {topic: [] for topic in topics}
        #: The states of each key in the order seen, and the keys that have a terminal one.
        self.states: dict[bytes, list[dict[str, Any]]] = defaultdict(list)
        self.ended: set[bytes] = set()
        self._reached: dict[tuple[str, int], int] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "witness",  # demanded; nothing is subscribed to or committed
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 10,
                "reconnect.backoff.max.ms": 500,
            }
        )
        places = [
            TopicPartition(topic, p, OFFSET_BEGINNING)
            for topic in topics
            for p in self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ]
        assert places, f"no such topics: {topics}"
        self._consumer.assign(places)

    def step(self, wait_s: float = 0.1) -> None:
        """Take in what has come; waits for the first of it."""
        messages = self._consumer.consume(1, wait_s)
        for message in messages + self._consumer.consume(1000, 0) if messages else ():
            error = message.error()
            place = (message.topic(), message.partition())
            if error is None:
                self._keep(message)
                self._reached[place] = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                # Its offset is behind markers and aborted records too.
                self._reached[place] = max(self._reached.get(place, 0), message.offset())
            elif is_fatal(error) or not (error.retriable() or error.code() in _AWAY):
                raise KafkaException(error)

    def _keep(self, message: Any) -> None:
        record = Seen(
            message.topic(),
            message.partition(),
            message.offset(),
            message.timestamp()[1],
            message.key(),
            message.value(),
            dict(message.headers() or ()),
        )
        self.seen[record.topic].append(record)
        if ".state." in record.topic and record.value is not None:
            state = read_state(record.value)
            assert record.key is not None
            self.states[record.key].append(state)
            if state["status"] in TERMINAL:
                self.ended.add(record.key)

    def has_reached(self, topic: str, ends: Mapping[int, int]) -> bool:
        return all(self._reached.get((topic, p), 0) >= end for p, end in ends.items())

    def until(
        self,
        holds: Callable[[], bool],
        what: str | Callable[[], str],
        timeout_s: float = 30.0,
    ) -> None:
        """Read until `holds()`; fails with `what` was waited for after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() >= deadline:
                text = what if isinstance(what, str) else what()
                raise AssertionError(f"not within {timeout_s:g} s: {text}")
            self.step()

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_AWAY = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT})
