"""Where does a whole worker's CPU go?

`cost.py` calls one step after the other; here the worker runs as it is, all threads at once, and a
sampler looks 200 times a second at what each thread is doing. A look is worth the CPU time that its
thread has used since the last one, by the thread's own clock: a thread that waits costs nothing.
What Python's threads do not account for is librdkafka's threads. Native frames do not show: their
time is with the Python function that calls them. The reference is all of the loop by hand.
"""

from __future__ import annotations

import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from flame import Tree, add, pruned
from jobs import make
from load import PARTITIONS, crew, fill, fresh, scattered, settings_of
from measure import Figure, apart, broker, report, sized, title
from throughput import reference_side

#: A look every so often: seldom enough to cost a percent.
LOOK_S = 0.005
#: (file, function or "" for any, stage): the innermost frame of a stack that is named here says
#: what it is part of.
STAGES = (
    ("store_lmdb.py", "get_many", "look up"), ("table.py", "lookup", "look up"),
    ("store_lmdb.py", "apply", "put marks"), ("table.py", "apply", "put marks"),
    ("core.py", "commit_marks", "put marks"), ("protocol.py", "committed", "put marks"),
    ("intake.py", "deliver", "decide"), ("core.py", "deliver", "decide"),
    ("protocol.py", "begin", "begin"), ("intake.py", "complete", "collect"),
    ("core.py", "collect", "collect"), ("decode.py", "", "decode"),
    ("state.py", "", "encode state"),
    ("attempt.py", "_prepare", "prepare"), ("attempt.py", "succeed", "result"),
    ("jobs.py", "", "run"), ("loop.py", "", "dispatch"), ("dispatch.py", "", "dispatch"),
    ("commit.py", "", "produce and commit"), ("hand.py", "", "produce and commit"),
    ("upkeep.py", "", "upkeep"), ("retention.py", "", "upkeep"), ("engine.py", "_told", "observe"),
    ("poll.py", "", "consume"),
)  # fmt: skip
_STAGE_OF = {(file, function): stage for file, function, stage in STAGES}
ORDER = tuple(dict.fromkeys(stage for _, _, stage in STAGES))
NATIVE = "librdkafka's threads"


class Sampler:
    """Looks at every Python thread but its own, until stopped; `tree` and `stages` in seconds."""

    def __init__(self) -> None:
        self.tree: Tree = {}
        self.stages: dict[str, float] = dict.fromkeys((*ORDER, "other"), 0.0)
        self.looks = 0
        self._clocks: dict[int, float] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.own = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        # What threads have used until now does not count.
        self._look(counted=False)
        while not self._ending.wait(LOOK_S):
            self._look(counted=True)
        self.own = time.thread_time()

    def _look(self, counted: bool) -> None:
        names = {t.ident: t.name for t in threading.enumerate()}
        frames = sys._current_frames()
        me = threading.get_ident()
        self.looks += 1
        for ident, frame in frames.items():
            if ident == me or ident not in names:
                continue
            now = time.clock_gettime(time.pthread_getcpuclockid(ident))
            spent = now - self._clocks.get(ident, now if not counted else 0.0)
            self._clocks[ident] = now
            if counted and spent > 0:
                stack = stack_of(frame)
                self.stages[stage_of(stack)] += spent
                add(self.tree, [short(names[ident]), *map(label, stack)], spent)


def short(name: str) -> str:
    """A thread's name without what tells it from its like."""
    return re.sub(r"^taskmill-|-default$|-perf.*", "", name)


def stack_of(frame: FrameType | None) -> list[tuple[str, str]]:
    """(file, function) from the outermost frame to the innermost, but for what starts threads."""
    found = []
    while frame is not None:
        file = Path(frame.f_code.co_filename).name
        if file != "threading.py":
            found.append((file, frame.f_code.co_name))
        frame = frame.f_back
    return found[::-1]


def stage_of(stack: list[tuple[str, str]]) -> str:
    """What a stack is part of: by its innermost frame that STAGES knows."""
    for file, function in reversed(stack):
        stage = _STAGE_OF.get((file, function)) or _STAGE_OF.get((file, ""))
        if stage is not None:
            return stage
    return "other"


def label(frame: tuple[str, str]) -> str:
    return f"{frame[0].removesuffix('.py')}.{frame[1]}"


def sample(bootstrap: str, prefix: str, count: int) -> dict[str, Any]:
    """Seconds of CPU by stage for `count` tasks, and the tree of stacks."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        fill(settings, scattered(0, count))
        sampler = Sampler()
        with crew(make(settings)) as running:
            sampler.start()
            cpu = time.process_time()
            running.until(lambda: running.counting.done >= count, "outcomes", 0.02)
            cpu = time.process_time() - cpu
            sampler.stop()
    whole = cpu - sampler.own
    native = max(0.0, whole - sum(sampler.stages.values()))
    add(sampler.tree, [NATIVE], native)
    return {
        "stages": {**sampler.stages, NATIVE: native},
        "tree": pruned(sampler.tree, whole / 500),
        "whole": whole,
        "looks": sampler.looks,
    }


def figures_of(found: dict[str, Any], reference: float, count: int) -> list[Figure]:
    """Microseconds a task by stage, the dearest first, then all together."""
    stages = sorted(found["stages"].items(), key=lambda item: -item[1])
    rows = [Figure(name, s / count * 1e6, "µs/task", "lower") for name, s in stages if s]
    whole = found["whole"] / count * 1e6
    return [*rows, Figure("the whole worker", whole, "µs/task", "lower", reference=reference)]


def main() -> int:
    options = sized(__doc__, "half a minute", count=(300_000, 10_000))
    count = options.count
    with broker() as bootstrap:
        hand = apart(reference_side, bootstrap=bootstrap, prefix=fresh("h"), count=count)
        found = apart(sample, bootstrap=bootstrap, prefix=fresh("s"), count=count)
    settings = {
        "tasks": count, "partitions": PARTITIONS, "handler": "async, no-op",
        "looks": found["looks"],
    }  # fmt: skip
    figures = figures_of(found, hand["cpu"] / count * 1e6, count)
    kept = not options.quick
    good = report("cpu", title(__doc__), figures, settings, flame=found["tree"], keep=kept)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
