"""How much of a bare producer's speed does `enqueue_many` keep?

The bare side is a loop that a careful person would write by hand: fastavro's `schemaless_writer`,
`produce`, one `flush`, with the same guarantees (acknowledged by all in-sync replicas, idempotent)
and the same compression. Both send tasks of the same shape and size, each side in a process of its
own, in turn, several pairs. A call has its ID and payload already, as has the bare side's task;
what making them costs (validation, JSON, a UUIDv7 each) is a figure of its own.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from typing import Any

import fastavro
from confluent_kafka import Producer
from load import PARTITIONS, fresh, settings_of
from measure import Figure, apart, broker, median, report, sides, sized, title
from reference import schema
from uuid_utils import uuid7

from taskmill import App
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Topics, ensure

#: Both sides send these first: connections, metadata and the producer ID are then in place.
WARM_UP = 2_000
#: The bare loop serves delivery reports this often; each time costs it as much as a produce.
POLL_EVERY = 1_000


def taskmill_side(settings: Settings, count: int) -> dict[str, float]:
    """Seconds to make `count` calls, and to enqueue them."""
    app = App("perf", settings=settings)

    @app.task
    async def noop(n: int) -> None:
        return None

    app.enqueue_many([noop.call(n=i) for i in range(WARM_UP)])
    started = time.perf_counter()
    calls = [noop.call(n=i) for i in range(count)]
    made, cpu = time.perf_counter(), time.process_time()
    handles = app.enqueue_many(calls)
    sent, cpu = time.perf_counter(), time.process_time() - cpu
    assert [h.id for h in handles] == [c.id for c in calls], "one handle a call, in order"
    app.close()
    return {"make": made - started, "send": sent - made, "cpu": cpu}


def bare_side(settings: Settings, count: int) -> dict[str, float]:
    """Seconds to make `count` tasks, and to encode, produce and flush them."""
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    topic = Topics(settings.prefix, "default").tasks
    send_bare(producer, topic, [bare_task(i) for i in range(WARM_UP)])
    started = time.perf_counter()
    tasks = [bare_task(i) for i in range(count)]
    made, cpu = time.perf_counter(), time.process_time()
    send_bare(producer, topic, tasks)
    sent, cpu = time.perf_counter(), time.process_time() - cpu
    return {"make": made - started, "send": sent - made, "cpu": cpu}


def bare_task(n: int) -> dict[str, Any]:
    """A Task's required fields; the schema has defaults for the others."""
    return {
        "id": str(uuid7()),
        "name": "noop",
        "payload": json.dumps({"n": n}, separators=(",", ":")).encode(),
        "content_type": "application/json",
        "enqueued_at": time.time_ns() // 1_000_000,
    }


def send_bare(producer: Producer, topic: str, tasks: list[dict[str, Any]]) -> None:
    writer, prefix = schema("Task")
    for number, task in enumerate(tasks):
        out = io.BytesIO(prefix)
        out.seek(len(prefix))
        fastavro.schemaless_writer(out, writer, task)
        producer.produce(topic, out.getvalue(), task["id"])
        if number % POLL_EVERY == 0:
            producer.poll(0)
    left = producer.flush(60)
    assert not left, f"{left} records were not acknowledged"


def run(side: str, bootstrap: str, prefix: str, count: int) -> dict[str, float]:
    """One side's seconds, on topics of its own."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        ensure(settings, "default")
        send = taskmill_side if side == "taskmill" else bare_side
        return send(settings, count)


def figures_of(
    ours: list[dict[str, float]], bare: list[dict[str, float]], count: int
) -> list[Figure]:
    """The answer, from pairs of runs."""

    def rates(runs: list[dict[str, float]], *parts: str) -> list[float]:
        return [count / sum(run[part] for part in parts) for run in runs]

    def ratio(*parts: str) -> float:
        pairs = zip(rates(ours, *parts), rates(bare, *parts), strict=True)
        return median([a / b for a, b in pairs])

    def us(runs: list[dict[str, float]], part: str) -> float:
        return median([run[part] / count * 1e6 for run in runs])

    sent = median(rates(ours, "send"))
    return [
        Figure("acknowledged", sent, "tasks/s", reference=median(rates(bare, "send"))),
        Figure("ratio to the bare producer", ratio("send"), "×", "higher", 0.7, None, 1.0),
        Figure("ratio, tasks made in the loop too", ratio("make", "send"), "×", reference=1.0),
        Figure("CPU to send", us(ours, "cpu"), "µs/task", "lower", reference=us(bare, "cpu")),
        Figure("time to make", us(ours, "make"), "µs/task", "lower", reference=us(bare, "make")),
    ]


def main() -> int:
    options = sized(__doc__, "1 minute", count=(100_000, 2_000), pairs=(7, 1))
    answers: dict[str, list[dict[str, float]]] = {"taskmill": [], "bare": []}
    with broker() as bootstrap:
        for pair in range(options.pairs + 1):
            for side in sides(pair, "taskmill", "bare"):
                answer = apart(
                    run, side=side, bootstrap=bootstrap, prefix=fresh(side[0]), count=options.count
                )
                if pair:  # the first pair warms the broker up
                    answers[side].append(answer)
                    rate = options.count / answer["send"]
                    print(f"pair {pair} {side:10} {rate:9,.0f} tasks/s", file=sys.stderr)
    figures = figures_of(answers["taskmill"], answers["bare"], options.count)
    settings = {"tasks": options.count, "partitions": PARTITIONS, "pairs": options.pairs}
    return 0 if report("enqueue", title(__doc__), figures, settings, keep=not options.quick) else 1


if __name__ == "__main__":
    sys.exit(main())
