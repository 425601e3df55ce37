"""What does the number of partitions cost one worker?

No-op tasks, spread evenly over 1 to 96 partitions that one worker process owns: how many it commits
a second, and how long it takes from its start until all partitions are restored (their tables are
empty) and run. The loop by hand reads the same.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from jobs import make
from load import crew, fill, fresh, scattered, settings_of
from measure import Figure, apart, broker, median, report, sides, sized, title
from reference import loop

from taskmill.runtime.topics import Topics

COUNTS = (1, 4, 12, 24, 48, 96)


def run(side: str, bootstrap: str, prefix: str, partitions: int, count: int) -> dict[str, Any]:
    """Seconds for `count` tasks, from the first one taken."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder, partitions=partitions)
        fill(settings, scattered(0, count))
        if side == "taskmill":
            with crew(make(settings), held=True) as running:
                # Its start is no part of the question.
                running.until_ready(settings.partitions)
                running.release()
                return running.take(count)
        topics = Topics(prefix, "default")
        seconds, cpu = loop(bootstrap, topics.tasks, topics.state, prefix, count)
        return {"seconds": seconds, "cpu": cpu}


def ready_of(bootstrap: str, prefix: str, partitions: int) -> dict[str, Any]:
    """Seconds from a worker's start until it owns `partitions` empty ones, restored."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder, partitions=partitions)
        fill(settings, ())
        with crew(make(settings)) as running:
            return {"ready": running.until_ready(partitions)}


def figures_of(found: dict[int, dict[str, float]]) -> list[Figure]:
    """Rate and time to be ready, by number of partitions."""
    rates = [
        Figure(f"committed, {p} partitions", each["taskmill"], "tasks/s", reference=each["hand"])
        for p, each in found.items()
    ]
    times = [
        Figure(f"start to ready, {p} partitions", each["ready"], "s", "lower")
        for p, each in found.items()
    ]
    return rates + times


def main() -> int:
    options = sized(__doc__, "3 minutes", count=(60_000, 2_000), pairs=(3, 1))
    found: dict[int, dict[str, float]] = {}
    with broker() as bootstrap:
        for partitions in COUNTS[:2] if options.quick else COUNTS:
            taken: dict[str, list[float]] = {"taskmill": [], "hand": []}
            for pair in range(options.pairs):
                for side in sides(pair, "taskmill", "hand"):
                    answer = apart(
                        run, side=side, bootstrap=bootstrap, prefix=fresh(side[0]),
                        partitions=partitions, count=options.count,
                    )  # fmt: skip
                    taken[side].append(options.count / answer["seconds"])
            idle = apart(ready_of, bootstrap=bootstrap, prefix=fresh("r"), partitions=partitions)
            found[partitions] = {side: median(each) for side, each in taken.items()} | idle
            print(f"{partitions:3} {found[partitions]['taskmill']:9,.0f} tasks/s", file=sys.stderr)
    settings = {
        "tasks": options.count, "pairs": options.pairs, "handler": "async, no-op", "processes": 1,
    }  # fmt: skip
    series = {
        "taskmill": [(p, each["taskmill"]) for p, each in found.items()],
        "loop by hand": [(p, each["hand"]) for p, each in found.items()],
    }
    kept = not options.quick
    figures = figures_of(found)
    return 0 if report("partitions", title(__doc__), figures, settings, series, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
