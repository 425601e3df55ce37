"""The cluster demo: three brokers, three workers, two schedulers, a console; kill, count again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import click
import stdlib_index
from clockwork import end_schedule, nominal_ms, start_schedule
from cluster import Back, Cluster, unsafe_topics
from crew import Crew, environment
from plain_reader import Schema, Watch
from postgres_server import PostgresServer, find_programs
from recount import Found, all_passed, differences, direct_count, read_topics
from recount_rows import read_rows, row_differences
from shown import (
    bar,
    counts,
    out,
    percentiles,
    say,
    say_files,
    show_dead,
    show_table,
    told_differences,
)
from stage import QUEUE, Stage, curtain, made_up, set_up, some_files

from taskmill.runtime.clock import SYSTEM_CLOCK, Deadline
from taskmill.runtime.errors import TaskmillError

HERE = Path(__file__).resolve().parent
WORKERS, SCHEDULERS = 3, 2
#: No new outcome for so long: something hangs.
STALL_S = 90.0
#: Shares of the files with an outcome at which a broker is killed, and later a worker.
BROKER_AT, WORKER_AT = 0.2, 0.65
#: So long the broker stays away: longer than the session by which the others miss it, 4 s.
AWAY_S = 6.0
#: What is enqueued comes in so many seconds' portions.
STEP_S = 0.25
MISSING = (
    "PostgreSQL is needed, and initdb was not found: apt-get install postgresql (macOS: brew "
    "install postgresql); as root on Debian: deploy/system.sh --cluster"
)


class Deaths(NamedTuple):
    """What was killed when, by monotonic time, and when the broker was back."""

    broker: float
    back: Back
    worker: float


class Figures(NamedTuple):
    """What was measured while it ran."""

    enqueued: int
    seconds: float
    latencies_ms: list[int]
    started: int
    gap_after_broker_s: float
    gap_after_worker_s: float
    in_sync_s: float


class Cast(NamedTuple):
    """Who is at work."""

    workers: Crew
    schedulers: Crew
    console: Crew

    def check(self) -> None:
        """Raises TaskmillError where one has ended by itself."""
        for crew in self:
            crew.check()


@click.command()
@click.option("--files", type=click.IntRange(min=20), help="So many of the files only.")
@click.option(
    "--seconds", type=click.FloatRange(min=5), default=60.0, help="Enqueue them within so long."
)
def demo(files: int | None, seconds: float) -> None:
    """Index the standard library on a cluster, kill a broker and a worker, and count again.

    It starts three Kafka nodes and a PostgreSQL of its own, and ends them.
    """
    curtain("cluster-demo", lambda home: play(home, files, seconds))


def play(home: Path, limit: int | None, seconds: float) -> int:
    """Everything, in order; the exit code."""
    programs = find_programs()
    if programs is None:
        raise TaskmillError(MISSING)
    paths = some_files(limit)
    say_files(paths)
    with ExitStack() as stack:
        server = PostgresServer(programs)
        stack.callback(server.remove)
        server.start()
        # Level 2: that a broker is away is told by us, not by each client's thread too.
        os.environ.update(TASKMILL_STORE_URL=server.url, TASKMILL_KAFKA__LOG_LEVEL="2")
        say("console", f"its PostgreSQL at {server.url}")
        cluster = Cluster(home)
        stage = stack.enter_context(set_up(home, made_up("cluster"), cluster.broker))
        cast = Cast(*(Crew(words, environment(HERE), home / "logs") for words in _commands()))
        for crew in cast:
            stack.callback(crew.abandon)
        schema = Schema(stage.schemas / "TaskState.avsc")
        watch = stack.enter_context(closing(Watch(stage.config, stage.topic("state"), schema)))
        figures = work(stage, cluster, cast, watch, paths, seconds)
        say("recount", "reading Kafka, PostgreSQL and every file again, without taskmill")
        found = read_topics(stage.config, stage.prefix, QUEUE, stage.schemas)
        rows = read_rows(server.url, len(found.ends))
        wrong = row_differences(rows, found.ends)
        fired, errors = take_fired(found)
        wrong += errors + differences(found, direct_count(paths))
        wrong += unsafe_topics(stage.config, stage.prefix)
        if found.passed != figures.enqueued + fired:
            wrong.append(f"{found.passed} records on tasks, of {figures.enqueued} and {fired}")
        report(found, figures, len(paths), fired, len(rows))
        for crew in (cast.console, cast.schedulers, cast.workers):
            crew.drain()
    if told_differences("cluster-demo", wrong):
        return 1
    out.print(
        "The recount agrees: every file has exactly one committed outcome, on Kafka and\n"
        "in the console's PostgreSQL, counts and hashes are right, the schedule ran every\n"
        "second, once: nothing is lost, nothing double. All that the demo started has ended.\n"
    )
    return 0


def _commands() -> tuple[tuple[str, ...], ...]:
    worker = ("worker", "-A", "stdlib_index:app", "--concurrency", "4")
    return worker, ("scheduler",), ("console", "--port", "0")


def work(
    stage: Stage, cluster: Cluster, cast: Cast, watch: Watch, paths: list[str], seconds: float
) -> Figures:
    """The cast at work, all tasks twice, the deaths, to the last outcome."""
    for crew, many in zip(cast, (WORKERS, SCHEDULERS, 1), strict=True):
        for _ in range(many):
            crew.start()
    cast.workers.wait_joined()
    say("at work", f"workers {_pids(cast.workers)}, schedulers {_pids(cast.schedulers)}, "
        f"a console {_pids(cast.console)}")  # fmt: skip
    start_schedule(environment(HERE))
    began = SYSTEM_CLOCK.monotonic()
    stop = threading.Event()
    with ThreadPoolExecutor(2) as aside:
        try:
            enqueuing = aside.submit(enqueue_steadily, stage, paths, seconds, stop)
            drama = Drama(stage, cluster, cast, watch, len(paths), stop)
            deaths = drama.follow(enqueuing, aside)
            enqueued = enqueuing.result()
        finally:
            stop.set()
    end_schedule(environment(HERE))
    deadline = Deadline(STALL_S)
    # The last duplicates pass without an outcome.
    while not all_passed(stage.config, stage.group, stage.topic("tasks")) and not deadline.over():
        SYSTEM_CLOCK.sleep(0.05)
    return Figures(
        enqueued,
        watch.newest - began,
        sorted(ms for id, ms in watch.ended.items() if nominal_ms(id) is None),
        len(stage.journal.read_text(encoding="utf-8").splitlines()),
        longest_gap(watch.times, deaths.broker, deaths.worker),
        longest_gap(watch.times, deaths.worker, watch.newest),
        deaths.back.in_sync - deaths.broker,
    )


def _pids(crew: Crew) -> str:
    return ", ".join(map(str, crew.pids))


def enqueue_steadily(
    stage: Stage, paths: Sequence[str], seconds: float, stop: threading.Event
) -> int:
    """Each file once by taskmill and once by a plain client at about the same time."""
    index = stdlib_index.index
    plain = subprocess.Popen(
        [
            *(sys.executable, HERE / "plain_producer.py", stage.home / "kafka.json"),
            *(stage.topic("tasks"), index.name, stage.schemas / "Task.avsc"),
        ],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    portion = max(1, round(len(paths) * STEP_S / seconds))
    pause = seconds * portion / len(paths)
    try:
        assert plain.stdin is not None
        with stdlib_index.app as app:
            for at in range(0, len(paths), portion):
                due = Deadline(pause)
                some = paths[at : at + portion]
                lines = [json.dumps({"id": path, "args": {"path": path}}) for path in some]
                plain.stdin.write("\n".join([*lines, ""]))
                plain.stdin.flush()
                app.enqueue_many([index.options(id=path).call(path) for path in some])
                if stop.wait(due.left()):
                    return 0
        plain.stdin.close()
        if plain.wait(STALL_S) != 0:
            raise TaskmillError(f"the plain client ended with {plain.returncode}")
    finally:
        plain.kill()
        plain.wait()
    return 2 * len(paths)


class Drama(NamedTuple):
    """What happens while the load runs."""

    stage: Stage
    cluster: Cluster
    cast: Cast
    watch: Watch
    files: int
    stop: threading.Event

    def follow(self, enqueuing: Future[int], aside: ThreadPoolExecutor) -> Deaths:
        """Show how far it is; kill a broker, bring it back, kill a worker: when that was."""
        with bar() as progress:
            line = progress.add_task("", total=self.files)

            def until(share: float) -> int:
                while (done := self._done()) < self.files * share:
                    self._look(enqueuing, done)
                    progress.update(line, completed=done)
                    SYSTEM_CLOCK.sleep(0.02)
                progress.update(line, completed=done)
                return done

            done = until(BROKER_AT)
            node, pid = self.cluster.kill_coordinator(self.stage.config, self.stage.group)
            broker = SYSTEM_CLOCK.monotonic()
            say("killed", f"broker {node} ({pid}), the workers' coordinator, by SIGKILL at "
                f"{done:,} outcomes")  # fmt: skip
            returning = aside.submit(self._bring_back)
            done = until(WORKER_AT)
            back = returning.result()
            say("back", "the broker; every replica in sync "
                f"{back.in_sync - broker:.1f} s after its death")  # fmt: skip
            killed, worker = self.cast.workers.kill(), SYSTEM_CLOCK.monotonic()
            say("killed", f"worker {killed} by SIGKILL at {done:,} outcomes; "
                f"{self.cast.workers.start()} takes its place")  # fmt: skip
            until(1)
        return Deaths(broker, back, worker)

    def _done(self) -> int:
        return sum(nominal_ms(id) is None for id in list(self.watch.ended))

    def _look(self, enqueuing: Future[int], done: int) -> None:
        """Raises what has gone wrong."""
        self.cast.check()
        self.watch.check()
        if enqueuing.done():
            enqueuing.result()
        # The schedule's runs go on, whatever hangs.
        if SYSTEM_CLOCK.monotonic() - self.watch.newest > STALL_S:
            raise TaskmillError(f"no outcome for {STALL_S:g} s, {done} so far")

    def _bring_back(self) -> Back:
        self.stop.wait(AWAY_S)
        return self.cluster.bring_back(self.stage.config, self.stage.prefix, self.stop)


def longest_gap(times: Sequence[float], start: float, end: float) -> float:
    """The longest time without an outcome between `start` and `end`, in seconds."""
    inside = [start, *(one for one in times if start < one < end), end]
    return max(later - earlier for earlier, later in pairwise(inside))


def take_fired(found: Found) -> tuple[int, list[str]]:
    """Take the schedule's runs out of `found`: how many, and what is wrong with them."""
    ends: dict[int, list[Mapping[str, Any]]] = {}
    for id in list(found.ends):
        if (nominal := nominal_ms(id)) is not None:
            ends[nominal] = list(found.ends.pop(id))
    wrong = [
        f"the schedule's run of {nominal}: {[one['status'] for one in outcomes]}"
        for nominal, outcomes in ends.items()
        if [one["status"] for one in outcomes] != ["succeeded"]
    ]
    wrong += [
        f"the schedule ran at {earlier}, then at {later} ms"
        for earlier, later in pairwise(sorted(ends))
        if later - earlier != 1_000
    ]
    return len(ends), wrong


def report(found: Found, figures: Figures, files: int, fired: int, rows: int) -> None:
    """The table, and some of the dead letters."""
    again = figures.started - found.outcomes - fired
    show_table(
        {
            "files": files,
            **counts(figures.enqueued, found, fired),
            "runs of a schedule of every second": fired,
            "rows in the console's PostgreSQL": rows,
            "handlers started again, after the deaths": again,
            "tasks/s, as they were enqueued": round(found.outcomes / figures.seconds),
            **percentiles(figures.latencies_ms),
            "longest gap after the broker's death": f"{figures.gap_after_broker_s:.1f} s",
            "all replicas in sync again after": f"{figures.in_sync_s:.1f} s",
            "longest gap after the worker's death": f"{figures.gap_after_worker_s:.1f} s",
        }
    )
    show_dead(found)


if __name__ == "__main__":
    demo()
