"""The tables of docs/scaling-guide.md: what was measured, and what follows by arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from answers import figures_of, load
from measure import shown

#: Tasks a second that the guide plans for.
RATES = (1_000, 10_000, 100_000, 1_000_000)
#: Of what a process can do, so much is planned for: the rest is for take-overs and bursts.
SHARE = 0.6
REPLICAS = 3
WINDOW_S, RETENTION_S = (8 * 24 + 6) * 3600, 7 * 24 * 3600
#: A transaction follows the last one after so many seconds, where more is under way than done.
GATHER_S = 0.05
#: Partitions for each process, and at the least.
SPREAD, LEAST = 3, 12


class Known(NamedTuple):
    """A measured figure: what it says, and which question gave it."""

    says: str
    question: str
    figure: str


KNOWN = {
    "process": Known("a worker process, no-op tasks from a backlog", "throughput", "committed"),
    "worker_us": Known("its CPU", "throughput", "CPU of the worker process"),
    "memory": Known("its memory at the most", "throughput", "peak RSS"),
    "two": Known("two processes to one, no-op tasks", "scaling", "no-op, two to one"),
    "restore": Known("entries that a process restores", "restore", "restored"),
    "store": Known(
        "local store of 5,000,000 entries", "table", "local store on disk, IDs in order"
    ),
    "ready_96": Known("start with 96 partitions", "partitions", "start to ready, 96 partitions"),
    "fetched": Known(
        "bytes fetched for each byte of a record",
        "traffic",
        "bytes fetched, no-op tasks, never full",
    ),
    "task_b": Known("a task on `tasks`, of many in a batch", "brokers", "a task on tasks"),
    "state_b": Known("its state, of many in a transaction", "brokers", "a task on state"),
    "kafka_b": Known("offsets and transaction log", "brokers", "a task on Kafka's own topics"),
    "task_1": Known("a task on `tasks`, alone in its batch", "brokers", "a task on tasks, alone"),
    "state_1": Known("its state, alone", "brokers", "a task on state, alone"),
    "kafka_1": Known(
        "offsets and transaction log, alone", "brokers", "a task on Kafka's own topics, alone"
    ),
    "broker_us": Known("CPU of the broker, one replica", "brokers", "CPU of the broker"),
    "together": Known("tasks in a transaction", "brokers", "tasks in a transaction"),
    "enqueue": Known("a process that enqueues many", "enqueue", "acknowledged"),
    "single": Known("a console, single requests", "console", "single enqueues"),
    "batches": Known("a console, batches of a thousand", "console", "by batches"),
    "project": Known(
        "a console's projection into PostgreSQL, tasks and states",
        "projection",
        "tasks and states into PostgreSQL",
    ),
    "retries": Known(
        "a scheduler, retries that are due", "retries", "passed on, many due together"
    ),
    "delayed": Known(
        "a scheduler, delayed tasks that are due", "delayed", "passed on, many due together"
    ),
    "killed": Known(
        "a partition's pause when its worker is killed",
        "times",
        "pause, a worker is killed (KIP-848)",
    ),
}


class Value(NamedTuple):
    """A measured figure's value."""

    value: float
    unit: str


def values(results: Path) -> dict[str, Value]:
    """What `results` says to each of KNOWN. Raises KeyError for a figure that is not there."""
    found = {}
    for name, known in KNOWN.items():
        answer = load(known.question, results)
        if answer is None:
            raise KeyError(f"{known.question} was not asked yet: perf/run.py {known.question}")
        of_question = {figure.name: figure for figure in figures_of(answer)}
        figure = of_question[known.figure]
        found[name] = Value(figure.value, figure.unit)
    return found


def measured(v: dict[str, Value]) -> str:
    """The table of what was measured."""
    rows = ["| *measured* | | by |", "|---|--:|---|"]
    for name, known in KNOWN.items():
        one = v[name]
        link = f"[{known.question}](../perf/{known.question}.py)"
        rows.append(f"| {known.says} | {shown(one.value)} {one.unit} | {link} |")
    return "\n".join(rows)


class Row(NamedTuple):
    """A derived quantity: its arithmetic in words, and for a rate."""

    what: str
    how: str
    of: Callable[[float], str]


def derived(v: dict[str, Value]) -> str:
    """The table of what each rate takes."""
    rows = _rows(v)
    head = "| *derived* | " + " | ".join(f"{rate:,}/s" for rate in RATES) + " | arithmetic |"
    lines = [head, "|---" + "|--:" * len(RATES) + "|---|"]
    for row in rows:
        cells = " | ".join(row.of(rate) for rate in RATES)
        lines.append(f"| {row.what} | {cells} | {row.how} |")
    return "\n".join(lines)


def _rows(v: dict[str, Value]) -> list[Row]:
    n = {name: one.value for name, one in v.items()}
    store_b = n["store"] * 2**20 / 5_000_000
    task_b, state_b, kafka_b = n["task_b"], n["state_b"], n["kafka_b"]
    alone_b = n["task_1"] + n["state_1"] + n["kafka_1"]
    both_b = task_b + state_b + kafka_b

    def processes(rate: float) -> int:
        return max(2, math.ceil(rate / (SHARE * n["process"])))

    def transactions(rate: float) -> float:
        return min(processes(rate) / GATHER_S, rate)

    return [
        Row("worker processes", f"rate ÷ ({SHARE:g} × {n['process']:,.0f}), at least 2",
            lambda r: f"{processes(r):,}"),
        Row("their cores", f"rate × {n['worker_us']:.1f} µs",
            lambda r: _n(r * n["worker_us"] / 1e6)),
        Row("partitions of the queue", f"{SPREAD} × processes, at least {LEAST}",
            lambda r: f"{max(LEAST, SPREAD * processes(r)):,}"),
        Row("transactions/s, at the most", f"processes ÷ {GATHER_S * 1000:.0f} ms, or the rate",
            lambda r: f"{transactions(r):,.0f}"),
        Row("cores of the brokers", f"rate × {shown(n['broker_us'])} µs × {REPLICAS} replicas",
            lambda r: _n(r * n["broker_us"] * REPLICAS / 1e6)),
        Row("written to the brokers' disks, in batches",
            f"rate × ({shown(task_b)} + {shown(state_b)} + {shown(kafka_b)}) B × {REPLICAS}",
            lambda r: _bytes(r * both_b * REPLICAS) + "/s"),
        Row("the same, each task alone", f"rate × {alone_b:,.0f} B × {REPLICAS}",
            lambda r: _bytes(r * alone_b * REPLICAS) + "/s"),
        Row("more for arguments of 1 kB", f"rate × 1,000 B × {REPLICAS}",
            lambda r: _bytes(r * 1000 * REPLICAS) + "/s"),
        Row("network to workers", f"rate × {shown(task_b)} B × {n['fetched']:.2f}",
            lambda r: _bytes(r * task_b * n["fetched"]) + "/s"),
        Row("tasks on disk, 7 d", f"rate × 604,800 s × {shown(task_b)} B × {REPLICAS}",
            lambda r: _bytes(r * RETENTION_S * task_b * REPLICAS)),
        Row("entries, window of 8 d 6 h", f"rate × {WINDOW_S:,} s", lambda r: _count(r * WINDOW_S)),
        Row("local stores for them", f"entries × {store_b:.0f} B",
            lambda r: _bytes(r * WINDOW_S * store_b)),
        Row("restore of all, empty disks", f"entries ÷ processes ÷ {n['restore']:,.0f}/s",
            lambda r: _time(r * WINDOW_S / processes(r) / n["restore"])),
        Row("the same, window of 1 h", f"rate × 3,600 s ÷ processes ÷ {n['restore']:,.0f}/s",
            lambda r: _time(r * 3600 / processes(r) / n["restore"])),
        Row("consoles that project", f"rate × 2 records ÷ {n['project']:,.0f}/s, a prefix each",
            lambda r: f"{math.ceil(r * 2 / n['project']):,}"),
        Row("schedulers, a tenth retried",
            f"rate ÷ 10 ÷ ({SHARE:g} × {n['retries']:,.0f}), at least 2",
            lambda r: f"{max(2, math.ceil(r / 10 / (SHARE * n['retries']))):,}"),
    ]  # fmt: skip


def _n(cores: float) -> str:
    return f"{cores:.2f}" if cores < 1 else f"{cores:,.1f}" if cores < 10 else f"{cores:,.0f}"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{shown(size)} {unit}"
        size /= 1000
    return f"{shown(size)} PB"


def _count(number: float) -> str:
    return f"{shown(number / 1e6)} million" if number < 1e9 else f"{shown(number / 1e9)} billion"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def insert(page: str, results: Path) -> str:
    """`page` with both tables as `results` has them. Raises ValueError where one has no place."""
    known = values(results)
    for name, table in (("measured", measured(known)), ("derived", derived(known))):
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page has no place for {name}: {begin.strip()} … {end[1:]}")
        page = f"{before}{begin}{table}{end}{after}"
    return page
