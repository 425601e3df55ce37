"""What the questions share: a broker, the form of an answer, and how it is printed and kept."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from taskmill.runtime.local_broker import LocalBroker

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Figure:
    """One figure of an answer; `must` and `goal` as the project asks, None where it does not.

    `reference` is what it is compared with, measured in the same run.
    """

    name: str
    value: float
    unit: str
    better: str = "higher"
    must: float | None = None
    goal: float | None = None
    reference: float | None = None

    @property
    def verdict(self) -> str:
        if self.must is None:
            return ""
        better = (lambda a, b: a >= b) if self.better == "higher" else (lambda a, b: a <= b)
        if self.goal is not None and better(self.value, self.goal):
            return "goal"
        return "met" if better(self.value, self.must) else "MISSED"


@contextmanager
def broker() -> Iterator[str]:
    """The bootstrap address: what TASKMILL_BOOTSTRAP_SERVERS says, else a broker of our own."""
    given = os.environ.get("TASKMILL_BOOTSTRAP_SERVERS")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        local = LocalBroker(Path(folder))
        address = local.start().bootstrap
        assert address is not None, "a started broker has an address"
        try:
            yield address
        finally:
            local.stop()


def child(script: str, *arguments: str) -> dict[str, Any]:
    """Run `script` of this folder in a process of its own; the JSON object it prints last."""
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=600,
    )
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def sides(pair: int, ours: str, theirs: str) -> tuple[str, str]:
    """Who runs first in this pair: each in turn, so that a drift favours neither."""
    return (ours, theirs) if pair % 2 else (theirs, ours)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def quantile(values: Sequence[float], q: float) -> float:
    """The value below which the share `q` of `values` lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def shown(value: float) -> str:
    """`value` with three digits that count, and no more than it can be trusted for."""
    size = abs(value)
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{places}f}"


def bound(value: float | None) -> str:
    """A must or a goal, as it was asked."""
    return "" if value is None else f"{value:,.10g}"


def report(question: str, title: str, figures: Sequence[Figure], settings: dict[str, Any]) -> bool:
    """Print the table, write results/QUESTION.json; False where a must is missed."""
    table = Table("figure", "value", "unit", "must", "goal", "reference", "", title=title)
    for f in figures:
        reference = "" if f.reference is None else shown(f.reference)
        row = (f.name, shown(f.value), f.unit, bound(f.must), bound(f.goal), reference, f.verdict)
        table.add_row(*row)
    Console().print(table)
    document = {
        "question": question,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": {
            "cores": os.cpu_count(),
            "cpu": _cpu(),
            "os": platform.system(),
            "python": platform.python_version(),
        },
        "versions": {
            name: version(name) for name in ("taskmill", "confluent-kafka", "fastavro", "lmdb")
        },
        "settings": settings,
        "figures": [asdict(f) for f in figures],
    }
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / f"{question}.json").write_text(json.dumps(document, indent=2) + "\n")
    return all(f.verdict != "MISSED" for f in figures)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "?")
