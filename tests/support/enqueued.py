"""What lies on a queue's tasks topic, read by a plain consumer."""

from __future__ import annotations

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import Task


def records(settings: Settings, queue: str = "default") -> list[Message]:
    """All that lies on the queue's tasks topic, by partition."""
    topic = Topics(settings.prefix, queue).tasks
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": "unused",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    found: list[Message] = []
    try:
        open_partitions = set(consumer.list_topics(topic, 10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in open_partitions])
        while open_partitions:
            for message in consumer.consume(10_000, 0.1):
                error = message.error()
                if error is None:
                    found.append(message)
                else:
                    assert error.code() == KafkaError._PARTITION_EOF
                    open_partitions.discard(message.partition() or 0)
    finally:
        consumer.close()
    return found


def tasks(settings: Settings, queue: str = "default") -> dict[str, Task]:
    decoded = [CODEC.decode_task(message.value()) for message in records(settings, queue)]
    return {task.id: task for task in decoded}
