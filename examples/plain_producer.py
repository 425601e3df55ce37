"""Enqueues tasks with confluent-kafka and fastavro alone; all it knows of taskmill is Task.avsc.

    plain_producer.py SETTINGS.json TOPIC TASK_NAME Task.avsc < LINES

SETTINGS.json holds librdkafka's settings, {"bootstrap.servers": …}; each line on stdin is a task,
{"id": …, "args": {…}}.
"""

from __future__ import annotations

import json
import sys
import time
from io import BytesIO
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from fastavro import parse_schema, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form


def main(settings: str, topic: str, name: str, avsc: str) -> None:
    """Enqueue every line of stdin and wait for the broker's acknowledgements."""
    schema = parse_schema(json.loads(Path(avsc).read_text(encoding="utf-8")))
    # Avro's single-object encoding: a marker, the schema's fingerprint, the record.
    start = bytes.fromhex("c301" + fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
    producer = Producer(
        {
            # The key decides the partition, by the Java client's rule; librdkafka's is CRC32.
            "partitioner": "murmur2_random",
            **json.loads(Path(settings).read_text(encoding="utf-8")),
            "enable.idempotence": True,  # and with it acks=all
        }
    )
    for line in sys.stdin:
        call = json.loads(line)
        payload = json.dumps(call["args"]).encode()
        now_ms = time.time_ns() // 1_000_000
        task = {"id": call["id"], "name": name, "payload": payload, "enqueued_at": now_ms}
        value = BytesIO()
        value.write(start)
        schemaless_writer(value, schema, task)
        producer.produce(topic, value.getvalue(), call["id"].encode(), on_delivery=acknowledged)
        producer.poll(0)
    producer.flush()


def acknowledged(error: KafkaError | None, message: Message) -> None:
    """Called for each record; an error ends the program."""
    if error is not None:
        raise KafkaException(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
