"""Does a full idempotency table slow a worker down?

No-op tasks through a worker whose table holds 5,000,000 entries, and through one whose table is
empty, in turn: with the IDs that taskmill makes, UUIDv7, which all fall on the last pages of the
local store; and with IDs of no order, each of which falls on another page, the worst case. The
table is restored once, from its changelog, and kept on disk between runs as a worker's restart
keeps it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from jobs import make
from load import PARTITIONS, crew, fill, fill_states, fresh, ordered, scattered, settings_of
from measure import Figure, apart, broker, median, report, sides, sized, title

KINDS = ("in order", "without order")


def build(bootstrap: str, prefix: str, folder: str, entries: int) -> dict[str, Any]:
    """Fill the changelog, restore it once; seconds that the worker took to be ready."""
    settings = settings_of(bootstrap, prefix, folder)
    fill_states(settings, scattered(0, entries))
    with crew(make(settings)) as running:
        return {"ready": running.until_ready(PARTITIONS)}


def run(
    bootstrap: str, prefix: str, folder: str, entries: int, first: int, count: int, kind: str
) -> dict[str, Any]:
    """What a worker with `entries` in its table takes for `count` new IDs of a kind, "in order" or
    "without order"; the latter are the ones from number `first` on."""
    settings = settings_of(bootstrap, prefix, folder)
    fill(settings, scattered(first, count) if kind == "without order" else ordered(count))
    with crew(make(settings), held=True) as running:
        ready = running.until_ready(PARTITIONS)
        running.release()
        taken = running.take(count)
        found = sum(t.store.count() for t in running.engine.core.tables.values())
        assert found == entries + count, f"{found} entries, not {entries} + {count}"
    disk = sum(f.stat().st_blocks * 512 for f in Path(folder).rglob("*") if f.is_file())
    return {**taken, "ready": ready, "disk": disk / 2**20}


def figures_of(
    kind: str, full: list[dict[str, float]], empty: list[dict[str, float]], count: int, entries: int
) -> list[Figure]:
    """The answer for one kind of IDs, from pairs of runs."""

    def of(key: str, runs: list[dict[str, float]]) -> float:
        return median([one[key] for one in runs])

    pairs = zip(full, empty, strict=True)
    ratio = median([bare["seconds"] / one["seconds"] for one, bare in pairs])
    rate, reference = (count / of("seconds", runs) for runs in (full, empty))
    rows = [
        Figure(f"{name}, IDs {kind}", of(key, full), unit, "lower", reference=of(key, empty))
        for name, key, unit in (
            ("own memory", "anonymous", "MiB"),
            ("mapped memory", "mapped", "MiB"),
            ("peak RSS", "peak", "MiB"),
            ("local store on disk", "disk", "MiB"),
            ("start to ready", "ready", "s"),
        )
    ]
    return [
        Figure(f"committed, {entries:,} entries, IDs {kind}", rate, "tasks/s", reference=reference),
        Figure(f"ratio to an empty table, IDs {kind}", ratio, "×", "higher", 0.85, None, 1.0),
        *rows,
    ]


def main() -> int:
    options = sized(
        __doc__, "8 minutes", entries=(5_000_000, 20_000), count=(200_000, 2_000), pairs=(4, 1)
    )
    found: dict[tuple[str, str], list[dict[str, float]]] = {
        (kind, side): [] for kind in KINDS for side in ("full", "empty")
    }
    with broker() as bootstrap, tempfile.TemporaryDirectory(prefix="taskmill-perf-") as kept:
        prefix, entries = fresh("f"), options.entries
        built = apart(build, bootstrap=bootstrap, prefix=prefix, folder=kept, entries=entries)
        print(f"restored {entries:,} entries in {built['ready']:.1f} s", file=sys.stderr)
        for number in range(len(KINDS) * (options.pairs + 1)):
            pair, kind = number // len(KINDS), KINDS[number % len(KINDS)]
            for side in sides(pair, "full", "empty"):
                what = {"bootstrap": bootstrap, "first": entries, "count": options.count}
                what["kind"] = kind
                if side == "full":
                    answer = apart(run, prefix=prefix, folder=kept, entries=entries, **what)
                    entries += options.count
                else:
                    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
                        answer = apart(run, prefix=fresh("e"), folder=folder, entries=0, **what)
                if pair:  # the first pair warms the broker up
                    found[kind, side].append(answer)
                    rate = options.count / answer["seconds"]
                    told = f"pair {pair} {kind:13} {side:5} {rate:9,.0f} tasks/s"
                    print(told, file=sys.stderr)
    settings = {
        "entries": options.entries, "tasks": options.count, "partitions": PARTITIONS,
        "pairs": options.pairs, "handler": "async, no-op",
    }  # fmt: skip
    figures = [
        figure
        for kind in KINDS
        for figure in figures_of(
            kind, found[kind, "full"], found[kind, "empty"], options.count, options.entries
        )
    ]
    keep = not options.quick
    return 0 if report("table", title(__doc__), figures, settings, keep=keep) else 1


if __name__ == "__main__":
    sys.exit(main())
