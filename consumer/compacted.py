"""Small compacted topics: what each key's last record is now, and how one is put there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message

from taskmill.consumer.admin import Admin
from taskmill.consumer.bounded import Reader
from taskmill.producer.client import ProducerClient
from taskmill.producer.delivery import Delivery
from taskmill.producer.refusal import Refusals
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.kafka import bootstrap_servers
from taskmill.runtime.topic_table import Kind, people_spec
from taskmill.runtime.topics import ensure_people


class Latest(NamedTuple):
    """The last record of a key that has one, and how many partitions its topic has."""

    partition: int
    partitions: int
    key: bytes
    value: bytes


def latest(admin: Admin, reader: Reader, topic: str) -> Iterator[Latest]:
    """The last record of each key, partition by partition, as of now; none: there is no topic."""
    count = admin.partitions(topic)
    if count is None:
        return
    starts, ends = admin.starts(topic, count), admin.ends(topic, count)
    for p, (start, end) in enumerate(zip(starts, ends, strict=True)):
        values: dict[bytes, bytes] = {}
        for messages, _ in reader.read(topic, p, start, end):
            for message in messages:
                key, value = message.key() or b"", message.value()
                if value is None:
                    values.pop(key, None)
                else:
                    values[key] = value
        for key, value in values.items():
            yield Latest(p, count, key, value)


def read_people(settings: Settings, kind: Kind, clock: Clock = SYSTEM_CLOCK) -> dict[bytes, bytes]:
    """All that a topic of OF_PEOPLE says now, by key. Raises Unreachable, and TaskmillError for
    what Kafka refuses."""
    topic = people_spec(settings, kind).name
    reader = Reader(settings, f"{topic}.look", f"look at {topic}", clock)
    try:
        found = latest(Admin(settings, clock=clock), reader, topic)
        return {one.key: one.value for one in found}
    finally:
        reader.close()


def write_people(
    settings: Settings, kind: Kind, key: bytes, value: bytes, clock: Clock = SYSTEM_CLOCK
) -> int:
    """Put one record on a topic of OF_PEOPLE, acknowledged; the topic is made where it is missing.
    Returns its offset. Raises Unreachable, and TaskmillError for what Kafka refuses."""
    timeout_s = settings.enqueue_timeout_s
    ensure_people(settings, kind, clock=clock)
    topic, name = people_spec(settings, kind).name, key.decode()
    refusals = Refusals(
        bootstrap_servers(settings), timeout_s, of=f"a record of {kind}", again="do it again"
    )
    client = ProducerClient(settings, str(kind), refusals, clock)
    try:
        placed = _Placed()
        if not client.send(topic, key, value, 0, [], placed):
            raise refusals.unacknowledged(name)
        # The client gives it up after the time-out, and then says so.
        if not placed.wait(timeout_s + 5):
            raise refusals.unacknowledged(name)
    except KafkaException as error:
        raise refusals.of(error.args[0], name, topic, len(value)) from None
    finally:
        client.close()
    if placed.error is not None:
        raise refusals.of(placed.error, name, topic, len(value))
    return placed.offset


class _Placed(Delivery):
    """A delivery that also tells where the record lies."""

    __slots__ = ("offset",)

    def __init__(self) -> None:
        super().__init__()
        self.offset = -1

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.offset = message.offset() or 0
        super().__call__(error, message)
