"""How fast do state records become rows of the console's store?

Finished states lie on `state`, and a console with an empty store reads, decodes, folds and writes
them: into SQLite, and into PostgreSQL on the same machine with its usual durability. Then again
with each task's own record on `tasks`, as all of a queue's life is read when a store is rebuilt.
Counted from its start until the last one is in the store. The reference is a bare consumer that
reads the same states and does nothing with them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from load import PARTITIONS, fill, fill_states, fresh, ordered, settings_of
from measure import Figure, apart, broker, median, memory_mib, report, sized, title
from restore import bare_side

from taskmill.console.projection.projector import Projector
from taskmill.console.store.open import open_store

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.postgres import Postgres

STORES = ("SQLite", "PostgreSQL")


def prepare(bootstrap: str, prefix: str, count: int, with_tasks: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings, ids = settings_of(bootstrap, prefix, folder), list(ordered(count))
        if with_tasks:
            fill(settings, ids)
        fill_states(settings, ids)
    return {}


def run(bootstrap: str, prefix: str, count: int, url: str, records: int) -> dict[str, Any]:
    """Records a second from the start of the projection, and its CPU for each."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        store = open_store(url or f"sqlite:///{folder}/console.db")
        projector = Projector(settings_of(bootstrap, prefix, folder), store)
        started, cpu = time.perf_counter(), time.process_time()
        projector.start()
        while projector.status.records < records:
            time.sleep(0.002)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        projector.close()
        rows = sum(row.number for row in store.counts())
        assert rows == count, f"{rows} rows of {count} tasks"
        store.close()
        return {"rate": records / seconds, "cpu": cpu / records * 1e6, **memory_mib()}


def figures_of(
    states: dict[str, list[dict[str, float]]],
    both: dict[str, list[dict[str, float]]],
    bare: list[dict[str, float]],
    count: int,
) -> list[Figure]:
    """The answer, from runs by store."""

    def of(runs: list[dict[str, float]], key: str) -> float:
        return median([one[key] for one in runs])

    reference = count / of(bare, "seconds")
    rows = []
    for name in STORES:
        rate = of(states[name], "rate")
        rows += [
            Figure(f"states into {name}", rate, "records/s", "higher", 15_000, None, reference),
            Figure(f"CPU of the console, {name}", of(states[name], "cpu"), "µs/record", "lower"),
            Figure(f"tasks and states into {name}", of(both[name], "rate"), "records/s"),
            Figure(f"own memory, {name}", of(states[name], "anonymous"), "MiB", "lower"),
        ]
    return rows


def main() -> int:
    options = sized(__doc__, "2 minutes", count=(120_000, 2_000), rounds=(2, 1))
    states: dict[str, list[dict[str, float]]] = {name: [] for name in STORES}
    both: dict[str, list[dict[str, float]]] = {name: [] for name in STORES}
    bare: list[dict[str, float]] = []
    count, server = options.count, Postgres(durable=True)
    try:
        with broker() as bootstrap:
            prefixes = fresh("p"), fresh("b")
            for prefix, with_tasks in zip(prefixes, (False, True), strict=True):
                where = {"bootstrap": bootstrap, "prefix": prefix, "count": count}
                apart(prepare, **where, with_tasks=with_tasks)
            for number in range(options.rounds):
                bare.append(apart(bare_side, bootstrap=bootstrap, prefix=prefixes[0], count=count))
                for name in STORES:
                    for found, prefix, records in (
                        (states, prefixes[0], count),
                        (both, prefixes[1], 2 * count),
                    ):
                        url = "" if name == "SQLite" else server.database(fresh("d"))
                        what = {"prefix": prefix, "count": count, "url": url, "records": records}
                        answer = apart(run, bootstrap=bootstrap, **what)
                        found[name].append(answer)
                        told = f"round {number + 1} {name:10} {records:7,} records"
                        print(f"{told} {answer['rate']:9,.0f} records/s", file=sys.stderr)
    finally:
        server.remove()
    settings = {"tasks": count, "partitions": PARTITIONS, "rounds": options.rounds}
    figures, keep = figures_of(states, both, bare, count), not options.quick
    return 0 if report("projection", title(__doc__), figures, settings, keep=keep) else 1


if __name__ == "__main__":
    sys.exit(main())
