"""What does a task's size cost?

No-op tasks with an argument of 100 bytes to 900 kB (the largest task is 1 MB), that does not
compress: as many of each as make up some 100 MB, 50,000 at the most. The loop by hand reads records
of the same bytes, in turn with us; it neither parses nor validates the argument.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from jobs import make
from load import PARTITIONS, crew, fill, fresh, scattered, settings_of, text_of
from measure import Figure, apart, broker, median, memory_mib, report, sides, sized, title
from reference import loop

from taskmill.runtime.topics import Topics

SIZES = (100, 1_000, 10_000, 100_000, 900_000)
#: What the broker takes of one size; at least MIN tasks of each, or it is only the start.
TOTAL_BYTES, MIN, MAX = 100_000_000, 200, 50_000


def run(side: str, bootstrap: str, prefix: str, size: int, count: int) -> dict[str, Any]:
    """Seconds for `count` tasks with an argument of `size` bytes."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        fill(settings, scattered(0, count), "swallow", text_of(size))
        if side == "taskmill":
            with crew(make(settings), held=True) as running:
                # Its start is no part of the question.
                running.until_ready(settings.partitions)
                running.release()
                return running.take(count)
        topics = Topics(prefix, "default")
        seconds, cpu = loop(bootstrap, topics.tasks, topics.state, prefix, count)
        return {"seconds": seconds, "cpu": cpu, **memory_mib()}


def name_of(size: int) -> str:
    return f"{size:,} B"


def figures_of(rates: dict[int, dict[str, float]], peak: float) -> list[Figure]:
    """A rate a size, in tasks and in MB, then the most memory that any took."""
    figures = []
    for size, rate in rates.items():
        ours, theirs = rate["taskmill"], rate["hand"]
        figures += [
            Figure(f"tasks of {name_of(size)}", ours, "tasks/s", reference=theirs),
            Figure(
                f"bytes in tasks of {name_of(size)}",
                ours * size / 1e6, "MB/s", reference=theirs * size / 1e6,
            ),
        ]  # fmt: skip
    return [*figures, Figure("peak RSS", peak, "MiB", "lower")]


def main() -> int:
    options = sized(__doc__, "2 minutes", megabytes=(TOTAL_BYTES // 10**6, 1), pairs=(3, 1))
    rates: dict[int, dict[str, float]] = {}
    peak = 0.0
    with broker() as bootstrap:
        for size in SIZES:
            least = 3 if options.quick else MIN
            count = max(least, min(MAX, options.megabytes * 10**6 // size))
            taken: dict[str, list[float]] = {"taskmill": [], "hand": []}
            for pair in range(options.pairs):
                for side in sides(pair, "taskmill", "hand"):
                    answer = apart(
                        run, side=side, bootstrap=bootstrap, prefix=fresh(side[0]),
                        size=size, count=count,
                    )  # fmt: skip
                    taken[side].append(count / answer["seconds"])
                    if side == "taskmill":
                        peak = max(peak, answer["peak"])
            rates[size] = {side: median(each) for side, each in taken.items()}
            print(f"{name_of(size):>10} {rates[size]['taskmill']:9,.0f} tasks/s", file=sys.stderr)
    figures = figures_of(rates, peak)
    series = {
        "taskmill": [(size, rate["taskmill"]) for size, rate in rates.items()],
        "loop by hand": [(size, rate["hand"]) for size, rate in rates.items()],
    }
    settings = {
        "megabytes of each size": options.megabytes, "tasks of a size at most": MAX,
        "partitions": PARTITIONS, "pairs": options.pairs, "handler": "async, takes a string",
    }  # fmt: skip
    kept = not options.quick
    return 0 if report("payload", title(__doc__), figures, settings, series, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
