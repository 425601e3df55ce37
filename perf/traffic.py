"""How many bytes does a worker fetch for those that it consumes?

A worker that is full pauses its partitions, and a pause throws away what was fetched ahead. Bytes
received from the brokers by its consumer, by librdkafka's own statistics (all of it: answers to
idle fetches and heartbeats too), against the bytes of the records' keys, values and headers. Slow
handlers keep the worker full; with large records it is their bytes that fill it. The reference is
what a bare consumer receives to read the same records once.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from jobs import make
from load import PARTITIONS, crew, fill, fresh, scattered, settings_of, text_of
from measure import Figure, apart, broker, report, sized, title

from taskmill.consumer import poll
from taskmill.runtime.topics import Topics


class Told(Consumer):
    """A consumer that knows what it received, and how often it was paused."""

    received = 0
    pauses = 0

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__({**config, "statistics.interval.ms": 100, "stats_cb": self._note})

    def _note(self, text: str) -> None:
        Told.received = json.loads(text)["rx_bytes"]

    def pause(self, partitions: list[TopicPartition]) -> None:
        # A restoring partition is paused as well, once and with nothing fetched ahead.
        Told.pauses += 1
        super().pause(partitions)


def prepare(bootstrap: str, prefix: str, name: str, payload: bytes, count: int) -> dict[str, Any]:
    """Tasks on a queue of their own: their bytes (`sent`), and those that a bare consumer receives
    to read them (`read`)."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        # Not compressed: bytes on the wire are then bytes of records.
        sent = fill(settings, scattered(0, count), name, payload, compression="none")
    config = {"bootstrap.servers": bootstrap, "group.id": "perf-bare", "enable.auto.commit": False}
    consumer, done = Told(config), 0
    topic = Topics(prefix, "default").tasks
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    while done < count:
        done += len(consumer.consume(1000, 0.05))
    settle(consumer.poll)
    consumer.close()
    return {"read": Told.received, "sent": sent}


def settle(serve: Any) -> None:
    """Until the next statistics have come."""
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        serve(0.05)


def run(bootstrap: str, prefix: str, count: int, concurrency: int) -> dict[str, Any]:
    """What a worker's consumer receives (`received`) for those tasks, and its pauses."""
    poll.Consumer = Told  # type: ignore[misc]
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        with crew(make(settings), concurrency=concurrency) as running:
            running.until_ready(PARTITIONS)
            first = Told.pauses
            taken = running.take(count)
            settle(time.sleep)
            return {**taken, "received": Told.received, "pauses": Told.pauses - first}


def main() -> int:
    options = sized(__doc__, "1 minute", scale=(1.0, 0.02))
    scenes = {
        # name: task, its payload, how many, how many at once
        "no-op tasks, never full": ("noop", b'{"n":1}', 200_000, 100),
        "tasks of 10 ms, full": ("nap", b'{"ms":10}', 60_000, 30),
        "tasks of 1 kB and 10 ms, full": ("swallow", text_of(1_000, 10), 60_000, 30),
        "tasks of 100 kB and 10 ms, full": ("swallow", text_of(100_000, 10), 4_000, 4),
    }
    figures = []
    with broker() as bootstrap:
        for scene, (name, payload, full, concurrency) in scenes.items():
            prefix, count = fresh("b"), max(10, int(full * options.scale))
            made = apart(
                prepare, bootstrap=bootstrap, prefix=prefix, name=name, payload=payload, count=count
            )
            taken = apart(
                run, bootstrap=bootstrap, prefix=prefix, count=count, concurrency=concurrency
            )
            ratio, pauses = taken["received"] / made["sent"], taken["pauses"]
            bare = made["read"] / made["sent"]
            figures += [
                Figure(f"bytes fetched, {scene}", ratio, "×", "lower", 2.0, None, bare),
                Figure(f"pauses, {scene}", pauses, "", "lower"),
            ]
            print(f"{scene}: {ratio:.2f} ×, {pauses} pauses", file=sys.stderr)
    settings = {"partitions": PARTITIONS, "compression": "none"}
    kept = not options.quick
    return 0 if report("traffic", title(__doc__), figures, settings, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
