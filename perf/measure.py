"""What the questions share: a broker, the form of an answer, and how it is printed and kept."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from taskmill.runtime.local_broker import LocalBroker

HERE = Path(__file__).resolve().parent

#: A line of a plot: [x, y] pairs in the order of x.
Series = list[tuple[float, float]]


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


def sized(doc: str, takes: str, **sizes: tuple[float, float]) -> argparse.Namespace:
    """The command line of a question: a size each, given as (what counts, what --quick takes).

    Says what the question is and `takes`, how long that is with a machine of its own.
    """
    parser = argparse.ArgumentParser(description=doc)
    add_quick(parser)
    for name, (full, quick) in sizes.items():
        what = f"default {full:g}, with --quick {quick:g}"
        parser.add_argument(f"--{name}", type=type(full), help=what)
    options = parser.parse_args()
    for name, (full, quick) in sizes.items():
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else full)
    print(f"{title(doc)} Takes {'moments' if options.quick else takes}.", file=sys.stderr)
    return options


def title(doc: str) -> str:
    """The question that a module asks: its docstring's first line."""
    return doc.splitlines()[0]


def add_quick(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny sizes: does the question work at all? Its answer is shown and not kept",
    )


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


def apart(
    function: Callable[..., dict[str, Any]], *, timeout_s: float = 600, **arguments: Any
) -> dict[str, Any]:
    """`function(**arguments)` in a fresh process of its own; arguments and answer are pickled."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, **arguments).result(timeout_s)


def memory_mib() -> dict[str, float]:
    """This process's memory in MiB: its own (`anonymous`), pages of files that it has mapped, the
    local stores among them (`mapped`), and the most of both together so far (`peak`)."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"anonymous": "RssAnon", "mapped": "RssFile", "peak": "VmHWM"}
    return {name: int(fields[field].split()[0]) / 1024 for name, field in names.items()}


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


def report(
    question: str,
    title: str,
    figures: Sequence[Figure],
    settings: dict[str, Any],
    series: Mapping[str, Series] | None = None,
    flame: Mapping[str, Any] | None = None,
    *,
    keep: bool = True,
) -> bool:
    """Print the table, write results/QUESTION.json, with what plots are drawn from (`series` by
    the name of their line, a `flame` graph's tree); False where a must is missed.

    Where it is not to `keep` it writes nothing and judges nothing: tiny sizes say nothing.
    """
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
    if series:
        document["series"] = series
    if flame:
        document["flame"] = flame
    if not keep:
        return True
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
