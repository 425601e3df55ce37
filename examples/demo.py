"""The demo: index Python's standard library, kill a worker half way, count again, mend one."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import click
import stdlib_index
from clockwork import keep_time
from crew import Crew, environment
from mend import repair, replay, replay_differences, show_letters
from plain_reader import Schema, Watch
from recount import Found, all_passed, differences, direct_count, read_topics
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
#: No new outcome for so long: something hangs. A killed worker's partitions rest for 6 to 45 s.
STALL_S = 90.0


class Figures(NamedTuple):
    """What was measured while it ran."""

    enqueued: int
    seconds: float
    latencies_ms: list[int]
    started: int
    killed_at: int


@click.command()
@click.option("--files", type=click.IntRange(min=2), help="So many of the files only.")
@click.option("--prefix", help="What the names of its topics start with; made up if left out.")
def demo(files: int | None, prefix: str | None) -> None:
    """Index the standard library through Kafka, kill a worker half way, and count again.

    TASKMILL_BOOTSTRAP_SERVERS says which Kafka to use; without it a local one is started.
    """
    curtain("demo", lambda home: play(home, prefix or made_up("demo"), files))


def play(home: Path, prefix: str, limit: int | None) -> int:
    """Everything, in order; the exit code."""
    paths = some_files(limit)
    say_files(paths)
    with ExitStack() as stack:
        stage = stack.enter_context(set_up(home, prefix))
        crew = Crew(("worker", "-A", "stdlib_index:app"), environment(HERE), home / "logs")
        stack.callback(crew.abandon)
        scheduler = Crew(("scheduler",), environment(HERE), home / "logs")
        stack.callback(scheduler.abandon)
        scheduler.start()
        schema = Schema(stage.schemas / "TaskState.avsc")
        watch = stack.enter_context(closing(Watch(stage.config, stage.topic("state"), schema)))
        figures = work(stage, crew, watch, paths)
        say("recount", "reading Kafka and every file again, without taskmill")
        found = read_topics(stage.config, prefix, QUEUE, stage.schemas)
        wrong = differences(found, direct_count(paths))
        report(len(paths), found, figures)
        wrong += mend(stage, found)
        env, state = environment(HERE), stage.topic("state")
        say("on time", keep_time(stage.config, state, stage.schemas, env, scheduler))
        scheduler.drain()
        crew.drain()
    if told_differences("demo", wrong):
        return 1
    out.print(
        "The recount agrees: every file has exactly one committed outcome, the counts\n"
        "and hashes are right, each dead file has one dead letter, byte for byte, and the\n"
        "repaired one was replayed once.\n"
    )
    taskmill = Path(sys.executable).with_name("taskmill")
    out.print("All that the demo started has ended. A system that keeps running, from here:\n")
    out.print(f"    cd {HERE} && {taskmill} dev -A stdlib_index:app\n", soft_wrap=True)
    return 0


def work(stage: Stage, crew: Crew, watch: Watch, paths: list[str]) -> Figures:
    """Two workers, all tasks twice, the kill half way, to the last outcome."""
    crew.start()
    crew.start()
    crew.wait_joined()
    say("workers", f"two processes share the partitions: {crew.pids[0]} and {crew.pids[1]}")
    began = SYSTEM_CLOCK.monotonic()
    with ThreadPoolExecutor(1) as aside:
        enqueuing = aside.submit(enqueue_twice, stage, paths)
        killed_at = follow(watch, crew, enqueuing, len(paths))
        enqueued = enqueuing.result()
    deadline = Deadline(STALL_S)
    # The last duplicates pass without an outcome.
    while not all_passed(stage.config, stage.group, stage.topic("tasks")) and not deadline.over():
        SYSTEM_CLOCK.sleep(0.05)
    started = len(stage.journal.read_text(encoding="utf-8").splitlines())
    latencies = sorted(watch.ended.values())
    return Figures(enqueued, watch.newest - began, latencies, started, killed_at)


def follow(watch: Watch, crew: Crew, enqueuing: Future[int], files: int) -> int:
    """Show how far it is, and kill a worker half way; at how many outcomes that was."""
    killed_at = 0
    with bar() as progress:
        line = progress.add_task("", total=files)
        while not killed_at or len(watch.ended) < files:
            crew.check()
            watch.check()
            if enqueuing.done():
                enqueuing.result()
            if not killed_at and len(watch.ended) >= files // 2:
                killed, killed_at = crew.kill(), len(watch.ended)
                say("killed", f"worker {killed} by SIGKILL at {killed_at:,} outcomes; "
                    f"{crew.start()} takes its place")  # fmt: skip
            if SYSTEM_CLOCK.monotonic() - watch.newest > STALL_S:
                raise TaskmillError(f"no outcome for {STALL_S:g} s, {len(watch.ended)} so far")
            progress.update(line, completed=len(watch.ended))
            SYSTEM_CLOCK.sleep(0.02)
        progress.update(line, completed=files)
    return killed_at


def enqueue_twice(stage: Stage, paths: list[str]) -> int:
    """Each file once by taskmill and once by a plain client, which is first for every second."""
    began = SYSTEM_CLOCK.monotonic()
    index = stdlib_index.index
    calls = [index.options(id=path).call(path) for path in paths]
    plain: list[str | Path] = [
        *(sys.executable, HERE / "plain_producer.py", stage.home / "kafka.json"),
        *(stage.topic("tasks"), index.name, stage.schemas / "Task.avsc"),
    ]
    lines = [json.dumps({"id": path, "args": {"path": path}}) for path in paths]
    with stdlib_index.app as app:
        app.enqueue_many(calls[::2])
        subprocess.run(plain, input="\n".join(lines), text=True, check=True)
        app.enqueue_many(calls[1::2])
    took = SYSTEM_CLOCK.monotonic() - began
    say("enqueued", f"{2 * len(paths):,} tasks in {took:.1f} s: each file once by taskmill, "
        "once by a plain Kafka client")  # fmt: skip
    return 2 * len(paths)


def report(files: int, found: Found, figures: Figures) -> None:
    """The table, and some of the dead letters."""
    again = figures.started - found.outcomes
    show_table(
        {
            "files": files,
            **counts(figures.enqueued, found),
            f"handlers started again, after the kill at {figures.killed_at:,}": again,
            "tasks/s, the kill included": round(found.outcomes / figures.seconds),
            **percentiles(figures.latencies_ms),
        }
    )
    show_dead(found)


def mend(stage: Stage, found: Found) -> list[str]:
    """Show the dead letters, repair one, replay it; what of that is not as it should be."""
    env = environment(HERE)
    show_letters(env)
    mended = repair(found.letters, stage.home)
    if mended is None:
        say("replay", "none of the dead files can be repaired, if there are any")
        return []
    say("repaired", f"a copy of {mended.id}; now its dead letter is replayed, with the copy's path")
    replay(mended, stage.home, env)
    again = read_topics(stage.config, stage.prefix, QUEUE, stage.schemas)
    return replay_differences(mended, again)


if __name__ == "__main__":
    demo()
