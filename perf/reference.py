"""What is compared with: transaction loops written by hand on confluent-kafka and fastavro alone.

They do the least that gives a transactional consumer: consume a batch, decode each Task, encode
and produce a state record for it, send the offsets, commit. No table, no handlers, no duplicates
dropped, no validation, no overlap of one batch with the next.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Consumer, Producer, TopicPartition

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


def schema(name: str) -> tuple[Any, bytes]:
    """The parsed schema of `name`, and the ten bytes that begin a single-object value."""
    text = json.loads((SCHEMAS / f"{name}.avsc").read_text())
    canonical = fastavro.schema.to_parsing_canonical_form(text)
    fingerprint = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    # Times stay integers: converting them to datetimes is no part of the question.
    plain = json.loads(json.dumps(text).replace('"logicalType": "timestamp-millis"', '"x": 0'))
    return fastavro.parse_schema(plain), b"\xc3\x01" + bytes.fromhex(fingerprint)


def loop(
    bootstrap: str,
    tasks: str,
    state: str,
    group: str,
    count: int,
    *,
    batch: int = 1000,
    note: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[float, float]:
    """Take `count` tasks through; returns (seconds from the first record, CPU seconds).

    At most `batch` records make a transaction; `note` is told of each task once it is decoded.
    """
    reader, _ = schema("Task")
    writer, prefix = schema("TaskState")
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": group,
            "linger.ms": 0,
            "compression.type": "lz4",
            # As taskmill's: with the default of 100 ms each commit would wait that long.
            "retry.backoff.ms": 2,
            "retry.backoff.max.ms": 10,
        }
    )
    producer.init_transactions()
    consumer.subscribe([tasks])
    done, started, cpu = 0, 0.0, 0.0
    while done < count:
        # One, then what else is there: consume(n, t) alone waits for all n of them, or for t.
        messages = consumer.consume(1, 0.1)
        if not messages:
            continue
        messages += consumer.consume(batch - 1, 0)
        if not started:
            started, cpu = time.perf_counter(), time.process_time()
        offsets: dict[int, int] = {}
        producer.begin_transaction()
        for message in messages:
            value = io.BytesIO(message.value())
            value.seek(10)
            task = fastavro.schemaless_reader(value, reader)
            if note is not None:
                note(task)
            now = int(time.time() * 1000)
            out = io.BytesIO(prefix)
            out.seek(10)
            fastavro.schemaless_writer(
                out,
                writer,
                {
                    "id": task["id"],
                    "name": task["name"],
                    "queue": "default",
                    "status": "succeeded",
                    "generation": task["generation"],
                    "seq": task["seq"],
                    "attempt": task["attempt"],
                    "worker": "reference",
                    "enqueued_at": task["enqueued_at"],
                    "started_at": now,
                    "finished_at": now,
                    "result": b"null",
                    "content_type": "application/json",
                    "source_partition": message.partition(),
                    "source_offset": message.offset(),
                },
            )
            producer.produce(
                state, key=message.key(), value=out.getvalue(), partition=message.partition()
            )
            offsets[message.partition()] = message.offset() + 1
        producer.send_offsets_to_transaction(
            [TopicPartition(tasks, p, offset) for p, offset in offsets.items()],
            consumer.consumer_group_metadata(),
        )
        producer.commit_transaction()
        done += len(messages)
    seconds = time.perf_counter() - started, time.process_time() - cpu
    consumer.close()
    return seconds
