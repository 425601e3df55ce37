"""What does a second worker process gain?

`taskmill worker --processes 2` against one process, on the same tasks: handlers that compute for
1 ms (pure Python, so that a process runs one at a time), and handlers that do nothing. The broker
is on the same cores. The reference is the machine's own: two bare processes that compute the same,
against one. The broker is given a round to warm up: its compiler takes half a core in its first
minute.
"""

from __future__ import annotations

import sys
import tempfile
import time
from multiprocessing import get_context
from typing import Any

from fleet import Fleet, Progress
from jobs import rounds_of, spin
from load import PARTITIONS, balanced, fill, fresh, settings_of
from measure import Figure, broker, median, report, sides, sized, title

from taskmill.runtime.config import Settings

WARM_UP = 800


def run(settings: Settings, processes: int, name: str, payload: bytes, count: int) -> float:
    """Tasks a second that `processes` commit, all of them at work from the first on."""
    ids = iter(balanced(WARM_UP + count, settings.partitions))
    with Fleet(settings, "--processes", str(processes)), Progress(settings) as progress:
        progress.wait_shared(processes)
        fill(settings, [next(ids) for _ in range(WARM_UP)], name, payload)
        progress.wait(WARM_UP)
        fill(settings, ids, name, payload)
        # The producer has just taken its share of the machine: the clock starts after it.
        began, before = time.perf_counter(), sum(progress.offsets())
        return (WARM_UP + count - before) / (progress.wait(WARM_UP + count) - began)


def alone(rounds: int, count: int, processes: int) -> float:
    """Computations a second of bare processes, each of which does `count`."""
    context = get_context("spawn")
    ready, go = context.Barrier(processes + 1), context.Event()
    crew = [
        context.Process(target=_compute, args=(ready, go, rounds, count)) for _ in range(processes)
    ]
    for one in crew:
        one.start()
    ready.wait()
    began = time.perf_counter()
    go.set()
    for one in crew:
        one.join()
    return processes * count / (time.perf_counter() - began)


def _compute(ready: Any, go: Any, rounds: int, count: int) -> None:
    ready.wait()
    go.wait()
    for _ in range(count):
        spin(rounds)


def main() -> int:
    options = sized(__doc__, "4 minutes", tasks=(8_000, 400), noops=(200_000, 2_000), pairs=(5, 1))
    rounds = rounds_of(1.0)
    scenes = {
        "1 ms": ("burn", b'{"rounds":%d}' % rounds, options.tasks),
        "no-op": ("noop", b'{"n":1}', options.noops),
    }
    figures = []
    with broker() as bootstrap, tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, fresh("s"), folder)
        run(settings, 2, *scenes["1 ms"])
        for scene, (name, payload, count) in scenes.items():
            rates: dict[str, list[float]] = {"1": [], "2": []}
            bare: dict[str, list[float]] = {"1": [], "2": []}
            for pair in range(options.pairs):
                for side in sides(pair, "2", "1"):
                    settings = settings_of(bootstrap, fresh(f"s{side}"), folder)
                    rates[side].append(run(settings, int(side), name, payload, count))
                    if scene == "1 ms":
                        bare[side].append(alone(rounds, count // 4, int(side)))
                    rate = rates[side][-1]
                    print(f"{scene} {side} process(es) {rate:9,.0f} tasks/s", file=sys.stderr)
            ratio = median([b / a for a, b in zip(rates["1"], rates["2"], strict=True)])
            machine = (
                median([b / a for a, b in zip(bare["1"], bare["2"], strict=True)])
                if bare["1"]
                else None
            )
            must = 1.7 if scene == "1 ms" else None
            figures += [
                Figure(f"{scene}, one process", median(rates["1"]), "tasks/s"),
                Figure(f"{scene}, two processes", median(rates["2"]), "tasks/s"),
                Figure(f"{scene}, two to one", ratio, "×", "higher", must, None, machine),
            ]
    settings_ = {
        "tasks of 1 ms": options.tasks, "no-op tasks": options.noops, "partitions": PARTITIONS,
        "pairs": options.pairs, "handler": "async",
    }  # fmt: skip
    kept = not options.quick
    return 0 if report("scaling", title(__doc__), figures, settings_, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
