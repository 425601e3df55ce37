"""How many no-op tasks a second does one worker process commit, against a loop by hand?

200,000 tasks on 8 partitions, 10 % of them duplicates, an async handler that does nothing, one
process, the broker beside it. Both sides read records of the same bytes, each from topics of its
own, in turn, several pairs.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from jobs import make
from load import PARTITIONS, SEED, crew, fill, fresh, repeating, settings_of
from measure import Figure, apart, broker, median, memory_mib, report, sized, title
from reference import loop

from taskmill.runtime.topics import Topics


def taskmill_side(bootstrap: str, prefix: str, count: int) -> dict[str, Any]:
    """What a worker of this process takes for `count` records: see Crew.take."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        fill(settings, repeating(count))
        with crew(make(settings)) as running:
            taken = running.take(count)
        assert taken["duplicates"] >= count // 10 - 1, f"{taken['duplicates']} duplicates"
        return taken


def reference_side(bootstrap: str, prefix: str, count: int) -> dict[str, Any]:
    """The same of the loop by hand."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        fill(settings_of(bootstrap, prefix, folder), repeating(count))
        topics = Topics(prefix, "default")
        seconds, cpu = loop(bootstrap, topics.tasks, topics.state, prefix, count)
        return {"seconds": seconds, "cpu": cpu, **memory_mib()}


def main() -> int:
    options = sized(__doc__, "2 minutes", count=(200_000, 5_000), pairs=(5, 1))
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    runs = (("taskmill", taskmill_side, ours), ("reference", reference_side, theirs))
    with broker() as bootstrap:
        for pair in range(options.pairs + 1):
            for name, side, answers in runs:
                answer = apart(
                    side, bootstrap=bootstrap, prefix=fresh(name[0]), count=options.count
                )
                if pair:  # the first pair warms the broker up
                    answers.append(answer)
                    rate = options.count / answer["seconds"]
                    print(f"pair {pair} {name:10} {rate:9,.0f} tasks/s", file=sys.stderr)
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
        Figure("peak RSS", median([a["peak"] for a in ours]), "MiB", "lower", None, None,
               median([a["peak"] for a in theirs])),
    ]  # fmt: skip
    settings = {
        "tasks": count, "duplicates": "10 %", "partitions": PARTITIONS, "pairs": options.pairs,
        "handler": "async, no-op", "processes": 1, "seed": SEED,
    }  # fmt: skip
    return (
        0 if report("throughput", title(__doc__), figures, settings, keep=not options.quick) else 1
    )


if __name__ == "__main__":
    sys.exit(main())
