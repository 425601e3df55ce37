"""Kafka's topics in memory: one partition each, stamped by the virtual clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message, TopicPartition

from taskmill.runtime.clock import Clock

Headers = Sequence[tuple[str, bytes | None]]


class MemoryBroker:
    """Takes records, and keeps them all. Topics come into being with their first record."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logs: dict[str, list[Message]] = {}
        self._by_key: defaultdict[tuple[str, bytes], list[Message]] = defaultdict(list)
        #: Told of each record that was appended.
        self.listeners: list[Callable[[Message], None]] = []

    def topics(self) -> list[str]:
        """The names of those there are."""
        return list(self._logs)

    def log(self, topic: str) -> Sequence[Message]:
        """All records of `topic`: an offset is an index."""
        return self._logs.get(topic, ())

    def of_key(self, topic: str, key: bytes) -> Sequence[Message]:
        """The records of one key, in order."""
        return self._by_key.get((topic, key), ())

    def append(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Message:
        """Put one record on `topic`; as a consumer would read it."""
        log = self._logs.setdefault(topic, [])
        message = Message(
            topic=topic,
            partition=0,
            offset=len(log),
            key=key,
            value=value,
            headers=list(headers),
            error=None,
            timestamp=(TIMESTAMP_LOG_APPEND_TIME, self._clock.now_ms()),
        )
        log.append(message)
        self._by_key[topic, key or b""].append(message)
        for listener in self.listeners:
            listener(message)
        return message

    def write(self, messages: Iterable[dict[str, Any]]) -> None:
        """Put records there, as the arguments of `produce` name them, and report."""
        for one in messages:
            made = self.append(
                one["topic"], one.get("key"), one.get("value"), one.get("headers", ())
            )
            for report in ("callback", "on_delivery"):
                if report in one:
                    one[report](None, made)


class MemoryProducer:
    """What a Committer asks of a transactional producer: all of a transaction, or nothing."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._open: list[dict[str, Any]] = []

    def begin_transaction(self) -> None:
        self._open = []

    def produce(self, **message: Any) -> None:
        self._open.append(message)

    def produce_batch(self, topic: str, messages: list[dict[str, Any]], partition: int) -> int:
        self._open += [{"topic": topic, **message} for message in messages]
        return len(messages)

    def send_offsets_to_transaction(
        self, offsets: list[TopicPartition], metadata: object, timeout: float
    ) -> None:
        """Nobody else reads on from there."""

    def commit_transaction(self, timeout: float) -> None:
        done, self._open = self._open, []
        self._broker.write(done)

    def abort_transaction(self, timeout: float) -> None:
        self._open = []
