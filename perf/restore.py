"""How fast does a worker whose disk is empty restore the idempotency table?

States of finished tasks lie on the changelog; a worker with an empty local store is assigned all
partitions. Restored entries are counted a second of the restore thread, which takes one partition
after the other; the wall time is from the worker's start until all partitions run. The reference is
a bare consumer that reads the same records and does nothing with them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from jobs import make
from load import PARTITIONS, crew, fill_states, fresh, scattered, settings_of
from measure import Figure, apart, broker, median, memory_mib, report, sides, sized, title

from taskmill.runtime.topics import Topics


def prepare(bootstrap: str, prefix: str, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        fill_states(settings_of(bootstrap, prefix, folder), scattered(0, count))
    return {}


def taskmill_side(bootstrap: str, prefix: str, count: int) -> dict[str, Any]:
    """Seconds that the restore thread took (`seconds`), and those from the worker's start."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        cpu = time.process_time()
        with crew(make(settings)) as running:
            ready = running.until_ready(PARTITIONS)
            cpu = time.process_time() - cpu
            entries = sum(t.store.count() for t in running.engine.core.tables.values())
            assert entries == count, f"{entries} entries of {count} states"
            seconds = sum(running.engine.restorer.restores)
            return {"seconds": seconds, "ready": ready, "cpu": cpu, **memory_mib()}


def bare_side(bootstrap: str, prefix: str, count: int) -> dict[str, Any]:
    """Seconds to read as many records."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "perf-bare",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )
    topic = Topics(prefix, "default").state
    started, done, cpu = time.perf_counter(), 0, time.process_time()
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    while done < count:
        messages = consumer.consume(1, 1.0)
        done += len(messages) + len(consumer.consume(1999, 0))
    assert done == count, f"{done} records of {count}"
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    consumer.close()
    return {"seconds": seconds, "cpu": cpu, **memory_mib()}


def figures_of(
    ours: list[dict[str, float]], bare: list[dict[str, float]], count: int
) -> list[Figure]:
    """The answer, from pairs of runs."""

    def of(runs: list[dict[str, float]], key: str) -> float:
        return median([run[key] for run in runs])

    def us(runs: list[dict[str, float]]) -> float:
        return of(runs, "cpu") / count * 1e6

    return [
        Figure(
            "restored", count / of(ours, "seconds"), "entries/s", "higher", 100_000, None,
            count / of(bare, "seconds"),
        ),
        Figure("start to ready", of(ours, "ready"), "s", "lower"),
        Figure("CPU", us(ours), "µs/entry", "lower", reference=us(bare)),
        Figure("own memory", of(ours, "anonymous"), "MiB", "lower"),
        Figure("mapped memory", of(ours, "mapped"), "MiB", "lower"),
    ]  # fmt: skip


def main() -> int:
    options = sized(__doc__, "2 minutes", count=(2_000_000, 10_000), pairs=(3, 1))
    ours: list[dict[str, float]] = []
    bare: list[dict[str, float]] = []
    runs = {"taskmill": (taskmill_side, ours), "bare": (bare_side, bare)}
    with broker() as bootstrap:
        prefix = fresh("s")
        apart(prepare, bootstrap=bootstrap, prefix=prefix, count=options.count)
        for pair in range(options.pairs):
            for name in sides(pair, "taskmill", "bare"):
                side, answers = runs[name]
                answer = apart(side, bootstrap=bootstrap, prefix=prefix, count=options.count)
                answers.append(answer)
                rate = options.count / answer["seconds"]
                print(f"pair {pair + 1} {name:9} {rate:9,.0f} entries/s", file=sys.stderr)
    settings = {"entries": options.count, "partitions": PARTITIONS, "pairs": options.pairs}
    figures, kept = figures_of(ours, bare, options.count), not options.quick
    return 0 if report("restore", title(__doc__), figures, settings, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
