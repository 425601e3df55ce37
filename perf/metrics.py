"""What do metrics cost a task?

The worker of `throughput.py` with metrics served and scraped every second, against the same worker
without: CPU of its process, on records of the same bytes, in turn, many pairs. The figure is the
median of the pairs' ratios; half of them lie between the two quartiles. On a noisy machine that is
wider than what is asked for; so the counting is measured alone, too: one thread, batches as the
worker's, nothing else.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs import make
from load import PARTITIONS, SEED, crew, fill, fresh, repeating, settings_of
from measure import Figure, apart, broker, median, quantile, report, sides, sized, title

from taskmill.consumer.observe import TaskMetrics
from taskmill.consumer.record import Lease, Outcome, Record, Source
from taskmill.runtime.meter import Meter
from taskmill.schemas.models import JSON, Task
from taskmill.schemas.states import Status

#: Far more often than anybody scrapes.
SCRAPE_S = 1.0


def worker_side(bootstrap: str, prefix: str, count: int, *, served: bool) -> dict[str, Any]:
    """What a worker of this process takes for `count` records: see Crew.take."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder, metrics_port=0 if served else None)
        fill(settings, repeating(count))
        with crew(make(settings)) as running, scraped(running.worker):
            return running.take(count)


@contextmanager
def scraped(worker: Any) -> Iterator[None]:
    """Its page is fetched again and again, where it has one."""
    ending = threading.Event()
    server = worker._watched and worker._watched._server

    def fetch() -> None:
        while not ending.wait(SCRAPE_S):
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
                assert b"taskmill_tasks_in_flight" in answer.read()

    thread = threading.Thread(target=fetch, daemon=True)
    if server:
        thread.start()
    yield
    ending.set()
    if server:
        thread.join()


def counting_us(batch: int = 500, rounds: int = 400) -> float:
    """CPU microseconds that counting an outcome takes."""
    lease = Lease(0, 1, "default")
    source = Source("tasks", 0, 0, 0, b"k", b"v", ())
    outcomes = []
    for n in range(batch):
        task = Task(f"task-{n}", "noop", b"{}", JSON, 1_000)
        record = Record(lease, n, b"k", 0, 0, task, source)
        took = {"started_at": 1_000 + n % 700, "duration": (n % 97) / 1e4}
        outcomes.append(Outcome(record, Status.SUCCEEDED, **took))
    metrics = TaskMetrics(Meter(), {"noop"})
    metrics.after_commit(outcomes)
    began = time.thread_time()
    for _ in range(rounds):
        metrics.after_commit(outcomes)
    return (time.thread_time() - began) / (batch * rounds) * 1e6


def main() -> int:
    options = sized(__doc__, "3 minutes", count=(80_000, 5_000), pairs=(10, 1))
    count = options.count
    spent: dict[str, list[float]] = {"on": [], "off": []}
    with broker() as bootstrap:
        for pair in range(options.pairs + 1):
            for side in sides(pair, "on", "off"):
                took = apart(
                    worker_side,
                    bootstrap=bootstrap,
                    prefix=fresh("m"),
                    count=count,
                    served=side == "on",
                )
                if pair:  # the first pair warms the broker up
                    spent[side].append(took["cpu"] / count * 1e6)
                    print(f"pair {pair} {side:3} {spent[side][-1]:6.2f} µs/task", file=sys.stderr)
    ratios = [100 * (on / off - 1) for on, off in zip(spent["on"], spent["off"], strict=True)]
    on, off = median(spent["on"]), median(spent["off"])
    alone = median([counting_us() for _ in range(5)])
    figures = [
        Figure("CPU more with metrics", median(ratios), "%", "lower", 5),
        Figure("CPU more, first quartile", quantile(ratios, 0.25), "%", "lower"),
        Figure("CPU more, third quartile", quantile(ratios, 0.75), "%", "lower"),
        Figure("counting alone", alone, "µs/task", "lower"),
        Figure("counting alone, share", 100 * alone / off, "%", "lower", 5),
        Figure("CPU of the worker process", on, "µs/task", "lower", reference=off),
    ]
    settings = {
        "tasks": count, "duplicates": "10 %", "partitions": PARTITIONS, "pairs": options.pairs,
        "handler": "async, no-op", "scraped every": f"{SCRAPE_S:g} s", "seed": SEED,
    }  # fmt: skip
    good = report("metrics", title(__doc__), figures, settings, keep=not options.quick)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
