"""Does a worker's memory grow with the tasks that it has run?

Twenty minutes of no-op tasks at half the rate that the worker is capable of here (measured first).
The slope is that of a line of least squares through its own memory, over the tasks run, the first
quarter left out: caches fill then. Pages of the local store that the kernel keeps mapped are told
apart: the table grows by an entry a task, for as long as its window is, and the kernel takes such
pages back whenever it needs them.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from jobs import make
from load import PARTITIONS, Sender, crew, fill, fresh, settings_of, tasks
from measure import Figure, Series, apart, broker, memory_mib, report, sized, title
from throughput import taskmill_side
from uuid_utils import uuid7

from taskmill.runtime.topics import Topics

#: So many looks at the memory make the line.
SAMPLES = 240
#: Tasks are handed over this often.
STEP_S = 0.05


def ids() -> Iterator[str]:
    """IDs as taskmill makes them."""
    while True:
        yield str(uuid7())


@contextmanager
def feeding(bootstrap: str, prefix: str, folder: str, rate: float) -> Iterator[None]:
    """`rate` tasks a second arrive, meanwhile."""
    settings, ending = settings_of(bootstrap, prefix, folder), threading.Event()
    fill(settings, ())

    def feed() -> None:
        sender, source = Sender(settings, Topics(prefix, "default").tasks), ids()
        began, sent = time.monotonic(), 0
        while not ending.wait(STEP_S):
            due = int((time.monotonic() - began) * rate) - sent
            sender.send(tasks(islice(source, due), settings.partitions))
            sent += due
        sender.flush()

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def watch(bootstrap: str, prefix: str, seconds: float) -> dict[str, Any]:
    """A worker for `seconds`; [tasks run, own memory, mapped memory] now and then."""
    with (
        tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder,
        crew(make(settings_of(bootstrap, prefix, folder))) as running,
    ):
        running.until_ready(PARTITIONS)
        rows, began, cpu = [], time.monotonic(), time.process_time()
        for n in range(1, SAMPLES + 1):
            time.sleep(max(0.0, began + seconds * n / SAMPLES - time.monotonic()))
            memory = memory_mib()
            rows.append((running.counting.done, memory["anonymous"], memory["mapped"]))
        assert running.engine.failure is None, running.engine.failure
        return {"rows": rows, "cpu": time.process_time() - cpu}


def slope(points: Series) -> float:
    """Of the line of least squares through `points`."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def figures_of(rows: list[tuple[int, float, float]], seconds: float, cpu: float) -> list[Figure]:
    """Slopes over a million tasks, and what the run was like."""
    late = rows[len(rows) // 4 :]
    own = [(done / 1e6, anonymous) for done, anonymous, _ in late]
    mapped = [(done / 1e6, mib) for done, _, mib in late]
    done = rows[-1][0]
    return [
        Figure("slope of its own memory", slope(own), "MiB/million", "lower", 1.0),
        Figure("slope of mapped memory", slope(mapped), "MiB/million", "lower"),
        Figure("own memory at the end", rows[-1][1], "MiB", "lower"),
        Figure("mapped memory at the end", rows[-1][2], "MiB", "lower"),
        Figure("tasks run", done / 1e6, "million"),
        Figure("committed", done / seconds, "tasks/s"),
        Figure("CPU", cpu / max(1, done) * 1e6, "µs/task", "lower"),
    ]


def main() -> int:
    options = sized(
        __doc__, "20 minutes (--minutes)", minutes=(20.0, 0.1), calibration=(200_000, 5_000)
    )
    seconds, count = options.minutes * 60, options.calibration
    with broker() as bootstrap, tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        # The first run warms the broker up.
        runs = [
            apart(taskmill_side, bootstrap=bootstrap, prefix=fresh("c"), count=count)
            for _ in range(2)
        ]
        rate, prefix = count / runs[-1]["seconds"] / 2, fresh("m")
        print(f"{rate:,.0f} tasks/s for {options.minutes:g} minutes", file=sys.stderr)
        with feeding(bootstrap, prefix, folder, rate):
            found = apart(
                watch, bootstrap=bootstrap, prefix=prefix, seconds=seconds, timeout_s=seconds + 120
            )
    rows = found["rows"]
    figures = figures_of(rows, seconds, found["cpu"])
    series = {
        "its own": [(done / 1e6, own) for done, own, _ in rows],
        "mapped pages of the local store": [(done / 1e6, mapped) for done, _, mapped in rows],
    }
    settings = {
        "minutes": options.minutes, "rate offered": round(rate), "partitions": PARTITIONS,
        "handler": "async, no-op", "IDs": "UUIDv7", "left out": "the first quarter",
    }  # fmt: skip
    kept = not options.quick
    return 0 if report("slope", title(__doc__), figures, settings, series, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
