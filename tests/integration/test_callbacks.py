"""What Kafka's client raises in a rebalance callback comes out of it as an exception."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from taskmill.runtime.config import Settings
from taskmill.runtime.kafka import as_raised
from taskmill.runtime.topics import Topics, ensure

pytestmark = pytest.mark.kafka


def test_what_a_callback_raises_can_be_caught(settings: Settings) -> None:
    ensure(settings, "default")
    nobody = Producer({"bootstrap.servers": "127.0.0.1:1", "transactional.id": "x", "log_level": 0})
    consumer = Consumer(
        {"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.prefix}
    )

    def fail(_: Consumer, __: list[TopicPartition]) -> None:
        nobody.init_transactions(0.1)

    def follow() -> None:
        consumer.subscribe([Topics(settings.prefix, "default").tasks], on_assign=as_raised(fail))
        for _ in range(300):
            consumer.consume(1, 0.1)

    try:
        with pytest.raises(KafkaException, match="Timed out"):
            follow()
    finally:
        consumer.close()
