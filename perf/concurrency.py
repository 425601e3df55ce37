"""How near to the ideal are many async handlers that wait?

2,000 and 20,000 tasks of 50 ms each, 1,000 at once: ideally 20,000 tasks a second. Measured from
the first handler's start to the last one's end, and to the last committed outcome. The reference is
asyncio alone: a process that runs as many coroutines of 50 ms, 1,000 at once, and nothing else. A
worker spends its own time on each task as well, in the same interpreter.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from typing import Any

from load import PARTITIONS, crew, fill, fresh, scattered, settings_of
from measure import Figure, Series, apart, broker, median, report, sides, sized, title

from taskmill import App
from taskmill.runtime.config import Settings

NAP_MS = 50
ATONCE = 1_000
COUNTS = (2_000, 20_000)
WARM_UP = 100
#: Fewer than at once, to see where the line bends.
CURVE = (10, 100, 300, 1_000, 3_000)


class Clocked:
    """An App whose handlers note when they started and ended."""

    def __init__(self, settings: Settings) -> None:
        self.app = App("perf", settings=settings)
        self.started: list[float] = []
        self.ended: list[float] = []

        @self.app.task
        async def nap(ms: float) -> None:
            self.started.append(time.perf_counter())
            await asyncio.sleep(ms / 1000)
            self.ended.append(time.perf_counter())


def taskmill_side(bootstrap: str, prefix: str, count: int, atonce: int) -> dict[str, Any]:
    """Seconds from the first start to the last end, and to the last commit."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        clocked = Clocked(settings)
        fill(settings, (), "nap")
        with crew(clocked.app, concurrency=atonce) as running:
            # Its start, the first fetch and the first transaction are no part of the question.
            running.until_ready(PARTITIONS)
            fill(settings, scattered(10**9, WARM_UP), "nap", b'{"ms":1}')
            running.until(lambda: running.counting.done >= WARM_UP, "warm-up")
            running.hold()
            fill(settings, scattered(0, count), "nap", b'{"ms":%d}' % NAP_MS)
            clocked.started.clear()
            clocked.ended.clear()
            cpu = time.process_time()
            running.release()
            running.until(lambda: running.counting.done >= WARM_UP + count, "outcomes", 0.0005)
            end, cpu = time.perf_counter(), time.process_time() - cpu
        assert len(clocked.ended) == count, f"{len(clocked.ended)} handlers ran, not {count}"
        first = min(clocked.started)
        return {"seconds": max(clocked.ended) - first, "committed": end - first, "cpu": cpu}


def bare_side(count: int, atonce: int) -> dict[str, Any]:
    """The same of asyncio alone."""

    async def runner(left: list[None]) -> None:
        while left:
            left.pop()
            await asyncio.sleep(NAP_MS / 1000)

    async def every() -> dict[str, Any]:
        left = [None] * count
        started, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(runner(left) for _ in range(min(atonce, count))))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        return {"seconds": seconds, "committed": seconds, "cpu": cpu}

    return asyncio.run(every())


def ideal_s(count: int, atonce: int) -> float:
    """How long it would take if handlers waited, and nothing else took any time."""
    return -(-count // atonce) * NAP_MS / 1000


def figures_of(found: dict[int, dict[str, dict[str, float]]]) -> list[Figure]:
    """Share of the ideal rate, and CPU, by count of tasks."""
    figures = []
    for count, by_side in found.items():
        ours, bare, ideal = by_side["taskmill"], by_side["asyncio"], ideal_s(count, ATONCE)
        figures += [
            Figure(
                f"share of the ideal, {count:,} tasks", ideal / ours["seconds"], "×", "higher",
                0.8, None, ideal / bare["seconds"],
            ),
            Figure(f"rate, {count:,} tasks", count / ours["seconds"], "tasks/s",
                   reference=count / bare["seconds"]),
            Figure(f"until all is committed, {count:,} tasks", ours["committed"], "s", "lower",
                   reference=ideal),
            Figure(f"CPU, {count:,} tasks", ours["cpu"] / count * 1e6, "µs/task", "lower",
                   reference=bare["cpu"] / count * 1e6),
        ]  # fmt: skip
    return figures


def both(bootstrap: str, count: int, atonce: int, pairs: int) -> dict[str, dict[str, float]]:
    """Medians of each side's seconds."""
    taken: dict[str, list[dict[str, float]]] = {"taskmill": [], "asyncio": []}
    for pair in range(pairs):
        for side in sides(pair, "taskmill", "asyncio"):
            what = {"count": count, "atonce": atonce}
            taken[side].append(
                apart(taskmill_side, bootstrap=bootstrap, prefix=fresh("c"), **what)
                if side == "taskmill"
                else apart(bare_side, **what)
            )
    return {
        side: {key: median([one[key] for one in runs]) for key in runs[0]}
        for side, runs in taken.items()
    }


def main() -> int:
    options = sized(__doc__, "2 minutes", count=(COUNTS[-1], COUNTS[0]), pairs=(5, 1))
    series: dict[str, Series] = {"taskmill": [], "asyncio alone": [], "ideal": []}
    with broker() as bootstrap:
        found = {
            count: both(bootstrap, count, ATONCE, options.pairs)
            for count in COUNTS
            if count <= options.count
        }
        for atonce in CURVE[1:2] if options.quick else CURVE:
            # Two seconds' worth, as far as one interpreter gets.
            count = min(options.count, atonce * 1000 // NAP_MS * 2)
            here = both(bootstrap, count, atonce, 1)
            for name, seconds in (
                ("taskmill", here["taskmill"]["seconds"]),
                ("asyncio alone", here["asyncio"]["seconds"]),
                ("ideal", ideal_s(count, atonce)),
            ):
                series[name].append((atonce, count / seconds))
            print(f"{atonce:6,} at once {series['taskmill'][-1][1]:9,.0f} tasks/s", file=sys.stderr)
    settings = {
        "handler": f"async, waits {NAP_MS} ms", "at once": ATONCE, "partitions": PARTITIONS,
        "pairs": options.pairs,
    }  # fmt: skip
    figures, kept = figures_of(found), not options.quick
    return 0 if report("concurrency", title(__doc__), figures, settings, series, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
