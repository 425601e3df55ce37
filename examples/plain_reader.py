"""Reads taskmill's topics with confluent-kafka and fastavro alone, as any other program could."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import fingerprint, to_parsing_canonical_form

ENDS = frozenset({"succeeded", "dead", "cancelled", "expired"})

Config = Mapping[str, Any]


class Record(NamedTuple):
    """A record on a topic, its headers as text."""

    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: dict[str, str]

    @property
    def id(self) -> str:
        """The task that it is about."""
        return self.key.decode()

    @classmethod
    def of(cls, message: Message) -> Record:
        partition, offset = message.partition(), message.offset()
        assert partition is not None, "a record that was read lies somewhere"
        assert offset is not None, "a record that was read lies somewhere"
        headers = {
            name: value.decode() if isinstance(value, bytes) else str(value)
            for name, value in dict(message.headers() or ()).items()
        }
        return cls(partition, offset, message.key() or b"", message.value() or b"", headers)


class Schema:
    """Decodes the values of one .avsc file in Avro's single-object encoding."""

    def __init__(self, avsc: Path) -> None:
        self._schema = parse_schema(json.loads(avsc.read_text(encoding="utf-8")))
        canonical = to_parsing_canonical_form(self._schema)
        self._start = bytes.fromhex("c301" + fingerprint(canonical, "CRC-64-AVRO"))

    def decode(self, value: bytes) -> dict[str, Any]:
        """The record in `value`. Raises ValueError for a value of another schema."""
        if value[:10] != self._start:
            raise ValueError(f"a value that starts with {value[:10].hex()}")
        record = schemaless_reader(BytesIO(value[10:]), self._schema, None)
        assert isinstance(record, dict)
        return record


def read_committed(config: Config, topic: str) -> Consumer:
    """A consumer of the whole topic from its beginning, in no group: committed records only."""
    consumer = Consumer(
        {
            **config,
            "group.id": "plain-reader",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
        }
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    return consumer


def read_all(config: Config, topic: str) -> Iterator[Record]:
    """Every committed record of `topic`, up to the end of each partition."""
    consumer = read_committed(config, topic)
    try:
        unread = {partition.partition for partition in consumer.assignment()}
        while unread:
            for message in consumer.consume(500, timeout=0.1):
                error = message.error()
                if error is None:
                    yield Record.of(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                elif not error.retriable():
                    raise KafkaException(error)
    finally:
        consumer.close()


class Watch:
    """Follows a state topic in a thread: which tasks have a committed end, and how soon."""

    def __init__(self, config: Config, topic: str, schema: Schema) -> None:
        self._consumer = read_committed(config, topic)
        self._schema = schema
        self._stop = threading.Event()
        #: Milliseconds from enqueue to a committed end that others can read, by task ID.
        self.ended: dict[str, int] = {}
        #: When each of them became visible, and the newest one, by time.monotonic().
        self.times: list[float] = []
        self.newest = time.monotonic()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            while not self._stop.is_set():
                for message in (*self._consumer.consume(1, 0.1), *self._consumer.consume(500, 0)):
                    value = message.value()
                    if message.error() is None and value is not None:
                        self._take(self._schema.decode(value))
        except Exception as error:
            self._failure = error
        finally:
            self._consumer.close()

    def _take(self, state: dict[str, Any]) -> None:
        if state["status"] not in ENDS or state["id"] in self.ended:
            return
        enqueued_ms = round(state["enqueued_at"].timestamp() * 1000)
        self.ended[state["id"]] = time.time_ns() // 1_000_000 - enqueued_ms
        self.newest = time.monotonic()
        self.times.append(self.newest)

    def check(self) -> None:
        """Raises what the thread ended with, if it has."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        self._thread.join()
