"""Does a large backlog slow a worker down?

A worker starts on 1,000 to 1,000,000 waiting no-op tasks: how many it commits a second, from the
first one taken to the last outcome committed, and the most memory that it takes.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from jobs import make
from load import PARTITIONS, crew, fill, fresh, scattered, settings_of
from measure import Figure, apart, broker, median, report, sized, title

BACKLOGS = (1_000, 10_000, 100_000, 1_000_000)


def run(bootstrap: str, prefix: str, count: int) -> dict[str, Any]:
    """What a worker takes for a backlog of `count`: see Crew.take."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        fill(settings, scattered(0, count))
        with crew(make(settings)) as running:
            return running.take(count)


def figures_of(found: dict[int, dict[str, float]]) -> list[Figure]:
    """Rate, memory, and the time that the whole took, by backlog."""
    rows = (("committed", "rate", "tasks/s", "higher"), ("drained after", "seconds", "s", "lower"),
            ("own memory", "anonymous", "MiB", "lower"))  # fmt: skip
    return [
        Figure(f"{name}, backlog {count:,}", each[key], unit, better)
        for name, key, unit, better in rows
        for count, each in found.items()
    ]


def main() -> int:
    options = sized(__doc__, "1 minute", largest=(1_000_000, 10_000), runs=(3, 1))
    found: dict[int, dict[str, float]] = {}
    with broker() as bootstrap:
        for count in (b for b in BACKLOGS if b <= options.largest):
            # The largest takes half a minute: longer than a neighbour's noise.
            runs = 1 if count >= 1_000_000 else options.runs
            taken = [
                apart(run, bootstrap=bootstrap, prefix=fresh("b"), count=count) for _ in range(runs)
            ]
            found[count] = {
                key: median([one[key] for one in taken]) for key in ("seconds", "anonymous")
            }
            found[count]["rate"] = count / found[count]["seconds"]
            print(f"{count:9,} {found[count]['rate']:9,.0f} tasks/s", file=sys.stderr)
    settings = {"partitions": PARTITIONS, "runs": options.runs, "handler": "async, no-op"}
    series = {"taskmill": [(count, each["rate"]) for count, each in found.items()]}
    figures, kept = figures_of(found), not options.quick
    return 0 if report("backlog", title(__doc__), figures, settings, series, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
