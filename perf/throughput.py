"""How many no-op tasks a second does one worker process commit, against a loop by hand?

200,000 tasks on 8 partitions, 10 % of them duplicates, an async handler that does nothing, one
process, the broker beside it. Both sides read records of the same bytes, each from topics of its
own, in turn, several pairs.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from measure import Figure, broker, child, median, report
from reference import loop

from taskmill import App
from taskmill.consumer.worker import Worker
from taskmill.producer.middleware import Middleware
from taskmill.runtime.clock import Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topics import Topics, ensure
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import JSON, Task

PARTITIONS = 8
SEED = 20_261_123


def fill(settings: Settings, count: int) -> None:
    """`count` records on the tasks topic, a tenth of which repeat an ID met before."""
    ensure(settings, "default")
    topic = Topics(settings.prefix, "default").tasks
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "linger.ms": 20,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    random_ = random.Random(SEED)
    now = int(time.time() * 1000)
    for i in range(count):
        n = random_.randrange(i // 10) * 10 + 1 if i >= 10 and i % 10 == 0 else i
        task_id = f"task-{n:012d}-{n * 2_654_435_761 % 2**32:08x}"
        p = partition_for(task_id.encode(), PARTITIONS)
        value = CODEC.encode_task(Task(task_id, "noop", b'{"n":1}', JSON, now))
        header = [("taskmill-partition", f"{p}/{PARTITIONS}")]
        producer.produce(topic, value, task_id, p, headers=header)
        producer.poll(0)
    left = producer.flush(60)
    assert not left, f"{left} records were not acknowledged"


class Counting(Middleware):
    """Counts committed outcomes, and when the first and the last came."""

    def __init__(self) -> None:
        self.done = 0

    def after_commit(self, outcomes: Sequence[Any]) -> None:
        self.done += len(outcomes)


def taskmill_side(settings: Settings, count: int) -> tuple[float, float]:
    """(seconds from the first record, CPU seconds of this process) for `count` records."""
    app = App("perf", settings=settings)

    @app.task
    async def noop(n: int) -> None:
        return None

    counting = Counting()
    app.use(counting)
    worker = Worker(app)
    worker.start()
    core = worker.engines["default"].core
    limit = Deadline(300)
    while not core.protocol.in_flight and not counting.done:
        time.sleep(0.0005)
    started, cpu = time.perf_counter(), time.process_time()
    while counting.done < count and not limit.over():
        time.sleep(0.002)
    seconds = time.perf_counter() - started, time.process_time() - cpu
    assert counting.done == count, f"{counting.done} of {count} records after {limit}"
    duplicates = core.protocol.counts.duplicates
    assert duplicates >= count // 10 - 1, f"{duplicates} duplicates were dropped"
    worker.stop()
    return seconds


def run_child(side: str, bootstrap: str, prefix: str, count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = Settings(
            bootstrap_servers=bootstrap,
            prefix=prefix,
            partitions=PARTITIONS,
            state_dir=Path(folder),
        )
        fill(settings, count)
        if side == "taskmill":
            seconds, cpu = taskmill_side(settings, count)
        else:
            topics = Topics(prefix, "default")
            seconds, cpu = loop(bootstrap, topics.tasks, topics.state, prefix, count)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "rss_mib": rss}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--child", nargs=3, metavar=("SIDE", "BOOTSTRAP", "PREFIX"))
    options = parser.parse_args()
    if options.child:
        run_child(*options.child, options.count)
        return 0
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    with broker() as bootstrap:
        for pair in range(options.pairs + 1):
            for side, answers in (("taskmill", ours), ("reference", theirs)):
                prefix = f"perf{time.time_ns() % 10**10}{side[0]}"
                count = ["--count", str(options.count)]
                answer = child("throughput.py", *count, "--child", side, bootstrap, prefix)
                if pair:  # the first pair warms the broker up
                    answers.append(answer)
                    rate = options.count / answer["seconds"]
                    print(f"pair {pair} {side:10} {rate:9,.0f} tasks/s", file=sys.stderr)
    count = options.count
    rates = [count / a["seconds"] for a in ours]
    reference = [count / a["seconds"] for a in theirs]
    ratios = [a / b for a, b in zip(rates, reference, strict=True)]
    cpu_us = [a["cpu"] / count * 1e6 for a in ours]
    figures = [
        Figure("committed", median(rates), "tasks/s", "higher", 25_000, None, median(reference)),
        Figure("ratio to the loop by hand", median(ratios), "×", "higher", 0.5, 0.7, 1.0),
        Figure(
            "CPU of the worker process", median(cpu_us), "µs/task", "lower", None, None,
            median([a["cpu"] / count * 1e6 for a in theirs]),
        ),
        Figure("peak RSS", median([a["rss_mib"] for a in ours]), "MiB", "lower", None, None,
               median([a["rss_mib"] for a in theirs])),
    ]  # fmt: skip
    settings = {
        "tasks": count, "duplicates": "10 %", "partitions": PARTITIONS, "pairs": options.pairs,
        "handler": "async, no-op", "processes": 1, "seed": SEED,
    }  # fmt: skip
    return 0 if report("throughput", __doc__.splitlines()[0], figures, settings) else 1


if __name__ == "__main__":
    sys.exit(main())
