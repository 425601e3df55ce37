"""What do metrics cost a task?

The worker of `throughput.py` with metrics served and scraped every second, against the same worker
without: CPU of its process, on records of the same bytes, in turn, many pairs. The figure is the
median of the pairs' ratios; half of them lie between the two quartiles.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs import make
from load import PARTITIONS, SEED, crew, fill, fresh, repeating, settings_of
from measure import Figure, apart, broker, median, quantile, report, sides, sized, title

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
    figures = [
        Figure("CPU more with metrics", median(ratios), "%", "lower", 5),
        Figure("CPU more, first quartile", quantile(ratios, 0.25), "%", "lower"),
        Figure("CPU more, third quartile", quantile(ratios, 0.75), "%", "lower"),
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
