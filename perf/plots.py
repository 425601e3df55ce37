"""The plots of docs/performance.md, each drawn from one question's results."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import flame
import plot
from answers import load
from measure import HERE
from plot import Axis

DOCS = HERE.parent / "docs"
#: Questions that docs/performance.md answers in a sentence; perf/README.md has their tables.
TOLD = (
    "throughput", "cpu", "scaling", "concurrency", "payload", "partitions", "backlog", "table",
    "restore", "projection", "console", "traffic", "times", "slope",
)  # fmt: skip


class Plot(NamedTuple):
    """What a question's `series` show."""

    title: str
    x: Axis
    y: Axis


PLOTS = {
    "concurrency": Plot(
        "Handlers that wait for 50 ms", Axis("at once", log=True), Axis("tasks/s", log=True)
    ),
    "payload": Plot(
        "No-op tasks by size", Axis("bytes of the argument", log=True), Axis("tasks/s", log=True)
    ),
    "partitions": Plot(
        "No-op tasks by partitions of one worker", Axis("partitions", log=True), Axis("tasks/s")
    ),
    "backlog": Plot(
        "No-op tasks by backlog", Axis("tasks waiting at the start", log=True), Axis("tasks/s")
    ),
    "slope": Plot("Memory at half the rate", Axis("million tasks run"), Axis("MiB")),
}


def plots(results: Path) -> dict[str, str]:
    """File name -> SVG, for every question that was answered."""
    found = {}
    for question, what in PLOTS.items():
        answer = load(question, results)
        if answer is not None:
            found[f"{question}.svg"] = plot.drawn(what.title, what.x, what.y, answer["series"])
    answer = load("cpu", results)
    if answer is not None:
        title = "A worker's CPU: no-op tasks, all threads; hover over a box for its share"
        found["flame.svg"] = flame.drawn(answer["flame"], title)
    return found
