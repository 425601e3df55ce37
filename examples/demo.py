"""The demo: index Python's standard library, kill a worker half way, count again, mend one."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import stdlib_index
from clockwork import keep_time
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from crew import Crew, environment
from mend import repair, replay, replay_differences, show_letters
from plain_reader import Schema, Watch
from recount import Found, all_passed, differences, direct_count, read_topics
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from taskmill.runtime.clock import SYSTEM_CLOCK, Deadline
from taskmill.runtime.config import load_settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.local_broker import LocalBroker
from taskmill.runtime.topics import ensure

HERE = Path(__file__).resolve().parent
QUEUE = "default"
#: No new outcome for so long: something hangs. A killed worker's partitions rest for 6 to 45 s.
STALL_S = 90.0
#: So many dead letters are shown one by one.
SHOWN = 5

out, err = Console(), Console(stderr=True)


#: librdkafka's settings, by name.
ClientConfig = dict[str, str | int | float | bool]


class Figures(NamedTuple):
    """What was measured while it ran."""

    enqueued: int
    seconds: float
    latencies_ms: list[int]
    started: int
    killed_at: int


class Stage(NamedTuple):
    """What the demo runs on: a folder of its own, and how Kafka is reached."""

    home: Path
    prefix: str
    config: ClientConfig

    def topic(self, kind: str) -> str:
        return f"{self.prefix}.{kind}.{QUEUE}"

    @property
    def group(self) -> str:
        return f"{self.prefix}.worker.{QUEUE}"

    @property
    def journal(self) -> Path:
        return self.home / "started.txt"


@click.command()
@click.option("--files", type=click.IntRange(min=2), help="So many of the files only.")
@click.option("--prefix", help="What the names of its topics start with; made up if left out.")
def demo(files: int | None, prefix: str | None) -> None:
    """Index the standard library through Kafka, kill a worker half way, and count again.

    TASKMILL_BOOTSTRAP_SERVERS says which Kafka to use; without it a local one is started.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: leave nothing behind
    home = Path(tempfile.mkdtemp(prefix="taskmill-demo-"))
    code = 1
    try:
        code = play(home, prefix or f"demo-{uuid.uuid4().hex[:8]}", files)
    except (TaskmillError, KafkaException, subprocess.SubprocessError) as error:
        code = getattr(error, "exit_code", 1)
        err.print(f"demo: {error}", markup=False, highlight=False)
    except KeyboardInterrupt:
        code = 130
        err.print("demo: stopped; nothing is left running")
    finally:
        if code in (0, 130):
            shutil.rmtree(home, ignore_errors=True)
        else:
            err.print(f"demo: logs of the workers are in {home / 'logs'}")
    sys.exit(code)


def play(home: Path, prefix: str, limit: int | None) -> int:
    """Everything, in order; the exit code."""
    paths = stdlib_index.files()
    if limit is not None:
        # Among few there might be none that dies.
        broken = [path for path in paths if path.endswith("badsyntax_pep3120.py")]
        paths = sorted({*paths[:: max(1, len(paths) // limit)][: limit - 1], *broken})
    version = platform.python_version()
    say("demo", f"{len(paths):,} files of Python {version}'s library, each enqueued twice")
    with ExitStack() as stack:
        stage = stack.enter_context(set_up(home, prefix))
        crew = Crew(("worker", "-A", "stdlib_index:app"), environment(HERE), home / "logs")
        stack.callback(crew.abandon)
        scheduler = Crew(("scheduler",), environment(HERE), home / "logs")
        stack.callback(scheduler.abandon)
        scheduler.start()
        schema = Schema(home / "schemas" / "TaskState.avsc")
        watch = stack.enter_context(closing(Watch(stage.config, stage.topic("state"), schema)))
        figures = work(stage, crew, watch, paths)
        say("recount", "reading Kafka and every file again, without taskmill")
        found = read_topics(stage.config, prefix, QUEUE, home / "schemas")
        wrong = differences(found, direct_count(paths))
        report(len(paths), found, figures)
        wrong += mend(stage, found)
        env, state = environment(HERE), stage.topic("state")
        say("on time", keep_time(stage.config, state, home / "schemas", env, scheduler))
        scheduler.drain()
        crew.drain()
    if wrong:
        err.print(f"demo: the recount DIFFERS in {len(wrong)} places:")
        for line in wrong[:20]:
            err.print(f"  {line}", markup=False, highlight=False)
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


@contextmanager
def set_up(home: Path, prefix: str) -> Iterator[Stage]:
    """A broker, topics, schemas, and the environment of all processes; all undone afterwards."""
    (home / "logs").mkdir()
    given = load_settings()
    broker = LocalBroker(home, say=lambda text: say("broker", text))
    bootstrap, stage = given.bootstrap_servers, None
    try:
        if bootstrap is None:
            say("broker", "starting Apache Kafka")
            bootstrap = broker.start().bootstrap
        assert bootstrap is not None, "a broker that was started has an address"
        say("broker", f"Apache Kafka at {bootstrap}")
        # Level 2: the plain clients raise what goes wrong, and log nothing beside.
        config: ClientConfig = {**given.kafka, "bootstrap.servers": bootstrap, "log_level": 2}
        stage = Stage(home, prefix, config)
        os.environ.update(
            TASKMILL_BOOTSTRAP_SERVERS=bootstrap,
            TASKMILL_PREFIX=prefix,
            TASKMILL_STATE_DIR=str(home),
            STDLIB_INDEX_JOURNAL=str(stage.journal),
        )
        ensure(load_settings(), QUEUE)
        # A file, since the settings may hold a password: the folder is its owner's alone.
        (home / "kafka.json").write_text(json.dumps(stage.config), encoding="utf-8")
        export = [sys.executable, "-P", "-m", "taskmill", "schemas", "export", f"{home}/schemas"]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
        yield stage
    finally:
        # Its end is bounded; a second Ctrl-C must not leave half of it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if given.bootstrap_servers is None:
            broker.stop()
        elif stage is not None:
            _clear(stage)


def _clear(stage: Stage) -> None:
    """Delete what the demo made on a broker that is not its own."""
    admin = AdminClient(stage.config)
    names = admin.list_topics(timeout=10).topics
    topics = [name for name in names if name.startswith(f"{stage.prefix}.")]
    futures = admin.delete_topics(topics) if topics else {}
    theirs = [f"{stage.prefix}.{kind}" for kind in ("retry", "delayed", "schedules")]
    listed = {one.group_id for one in admin.list_consumer_groups().result(10).valid}
    futures |= admin.delete_consumer_groups([g for g in (stage.group, *theirs) if g in listed])
    for name, future in futures.items():
        if (error := future.exception()) is not None:
            err.print(f"demo: {name} could not be deleted: {error}", markup=False)


def work(stage: Stage, crew: Crew, watch: Watch, paths: list[str]) -> Figures:
    """Two workers, all tasks twice, the kill half way, to the last outcome."""
    crew.start()
    crew.start()
    crew.wait_joined(stage.config, stage.group)
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
    columns = (
        TextColumn("outcomes committed"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    killed_at = 0
    with Progress(*columns, console=err) as progress:
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
        *(stage.topic("tasks"), index.name, stage.home / "schemas" / "Task.avsc"),
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
    dead = [letter for letters in found.letters.values() for letter in letters]
    latencies = figures.latencies_ms
    again = figures.started - found.outcomes
    out.print()
    table = Table("", "", show_header=False, box=None, padding=(0, 2))
    rows: dict[str, int | str] = {
        "files": files,
        "tasks enqueued": figures.enqueued,
        "run to a committed outcome": found.outcomes,
        "duplicates dropped": found.passed - found.outcomes,
        "dead (they do not parse)": len(dead),
        f"handlers started again, after the kill at {figures.killed_at:,}": again,
        "tasks/s, the kill included": round(found.outcomes / figures.seconds),
        "enqueued → committed, p50": f"{latencies[len(latencies) // 2] / 1000:.2f} s",
        "enqueued → committed, p99": f"{latencies[len(latencies) * 99 // 100] / 1000:.2f} s",
    }
    for name, value in rows.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else value)
    out.print(table, "")
    if not dead:
        return
    for letter in dead[:SHOWN]:
        told = letter.headers
        error = f"{told['taskmill-error-type']}: {told['taskmill-error-message']}"
        out.print(Text(f"  dead: {letter.id}\n        {error}"), soft_wrap=True)
    out.print(f"  … and {len(dead) - SHOWN} more\n" if len(dead) > SHOWN else "")
    sys.stdout.flush()


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
    again = read_topics(stage.config, stage.prefix, QUEUE, stage.home / "schemas")
    return replay_differences(mended, again)


def say(what: str, text: str) -> None:
    """A line on how far it is."""
    err.print(Text.assemble((f"{what:<9} ", "bold"), text), soft_wrap=True)


if __name__ == "__main__":
    demo()
