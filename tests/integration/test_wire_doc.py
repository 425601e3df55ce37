"""The client of docs/wire.md, run as it stands: plain confluent-kafka and fastavro."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message

from taskmill.runtime.config import Settings
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topic_table import Topics
from taskmill.runtime.topics import ensure
from taskmill.schemas.avsc import text
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import JSON

DOC = Path(__file__).parents[2] / "docs" / "wire.md"


@pytest.mark.kafka
def test_what_the_example_enqueues_is_a_task_on_the_partition_of_its_key(
    settings: Settings, tmp_path: Path
) -> None:
    ensure(settings, "default")
    topic = Topics(settings.prefix, "default").tasks
    (example,) = re.findall(r"^```python\n(.*?)^```$", DOC.read_text(), re.MULTILINE | re.DOTALL)
    example = example.replace("localhost:9092", str(settings.bootstrap_servers))
    example = example.replace("taskmill.tasks.default", topic)
    # A few more, so that a partitioner left at its default would be found out.
    more = "".join(f'enqueue("n:{number}", "n")\n' for number in range(20))
    example = example.replace("producer.flush()", f"{more}producer.flush()")
    (tmp_path / "client.py").write_text(example)
    (tmp_path / "Task.avsc").write_text(text("Task.avsc"))

    subprocess.run([sys.executable, "client.py"], cwd=tmp_path, check=True, timeout=60)

    messages = _read(settings, topic, 21)
    for message in messages:
        task = CODEC.decode_task(message.value())
        key = message.key()
        assert key == task.id.encode()
        assert message.partition() == partition_for(key, settings.partitions)
    receipt = next(m for m in messages if m.key() == b"receipt:1")
    task = CODEC.decode_task(receipt.value())
    assert (task.name, task.content_type) == ("send_receipt", JSON)
    assert task.payload == b'{"order_id": 1, "email": "a@b.c"}'


def _read(settings: Settings, topic: str, count: int) -> list[Message]:
    """The first `count` records of `topic`; fewer where 30 s bring no more."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": f"{settings.prefix}-doc",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    try:
        consumer.subscribe([topic])
        messages: list[Message] = []
        while len(messages) < count:
            batch = consumer.consume(count - len(messages), 30)
            if not batch:
                break
            messages += batch
        assert [m.error() for m in messages if m.error()] == []
        return messages
    finally:
        consumer.close()
