"""`topics migrate` on a real broker: nothing lost, nothing done twice, killed and gone on with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient

from support.oracle import Oracle, Put, check_outcomes
from support.wire import partition_of, task_value
from support.workers import Gate, WorkerProcess, environment, runs
from taskmill import App
from taskmill.cli.main import cli
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import check, ensure

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

GARBAGE = 4


class Scene:
    """A queue of which a worker has done a part: some IDs are finished, of them some above the
    watermark; some were begun and not ended; some nobody has seen."""

    def __init__(self, settings: Settings, folder: Path, old: int, many: int = 60) -> None:
        self.settings = settings.model_copy(update={"partitions": old})
        self.folder = folder
        self.oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
        ensure(self.settings, "default")
        self.held = [f"held-{n}" for n in range(6)]
        self.done = [f"done-{n}" for n in range(many)]
        self.failed = [f"failed-{n}" for n in range(many // 10)]
        self.large = [f"large-{n}" for n in range(many // 10)]
        self.waiting = [f"waiting-{n}" for n in range(many)]

    @property
    def ids(self) -> list[str]:
        return [*self.held, *self.done, *self.failed, *self.large, *self.waiting]

    def half_processed(self) -> None:
        """Some first and then held ones: so most of what is done lies above the watermark."""
        oracle, early = self.oracle, self.done[: len(self.done) // 3]
        ended = [*self.done, *self.failed, *self.large]
        with Gate() as gate, self.worker("--drain-timeout", "0s", env=gate.env) as worker:
            oracle.put_tasks(early, "noop")
            oracle.put_all(Put(f"garbage-{n}".encode(), b"none of ours") for n in range(2))
            oracle.wait_states(early)
            oracle.put_tasks(self.held, "gated")
            oracle.put_all(Put(f"garbage-{n}".encode(), b"none of ours") for n in (2, 3))
            oracle.put_tasks(self.done[len(early) :], "noop")
            oracle.put_tasks(self.failed, "fails", {"message": "no"})
            oracle.put_tasks(self.large, "large", {"size": 2000})
            gate.wait_begun(*self.held)
            oracle.wait_states(ended)
            worker.terminate()  # the held ones stay as they are
        self.wait_left()
        twins = self.done[::7]
        oracle.put_tasks([*self.waiting, *twins, *self.waiting[::5]], "noop")
        # On the wrong partition, and one without a key: they go where they belong.
        wrong = (partition_of(b"wrong", self.settings.partitions) + 1) % self.settings.partitions
        oracle.put(b"wrong", task_value("wrong", "noop"), wrong)
        oracle.put(None, b"no key")
        self.waiting.append("wrong")

    def worker(self, *options: str, env: dict[str, str] | None = None) -> WorkerProcess:
        return WorkerProcess(self.settings, self.folder, *options, env=env)

    def wait_left(self, timeout_s: float = 30.0) -> None:
        """Wait until no worker is in the group: one that had no time to leave is missed later."""
        client = AdminClient({"bootstrap.servers": self.oracle.bootstrap})
        group, deadline = self.oracle.group, time.monotonic() + timeout_s
        while client.describe_consumer_groups([group])[group].result(timeout=10).members:
            assert time.monotonic() < deadline, f"{group} has members"
            time.sleep(0.1)

    def goes_on(self, new: int) -> None:
        """Start a worker on what the migration left, and check every promise."""
        self.settings = self.settings.model_copy(update={"partitions": new})
        # A new one: what a client knows of the topics is of the old ones.
        oracle = self.oracle = Oracle(self.oracle.bootstrap, self.settings.prefix)
        topics = (oracle.tasks, oracle.state, oracle.results)
        assert [oracle.partitions(topic) for topic in topics] == [new] * 3
        assert check(self.settings, ["default"]) == []
        assert not [name for name in self.topics() if "migrating" in name]
        with Gate() as gate, self.worker(env=gate.env) as worker:
            gate.open()
            oracle.wait_states(self.ids)
            oracle.put_tasks(self.ids, "noop")
            oracle.wait_consumed()
            self._check(oracle, new)
            self._check_results()
            assert worker.terminate() == 0
            assert "has no offset" not in worker.log

    def topics(self) -> list[str]:
        client = AdminClient({"bootstrap.servers": self.oracle.bootstrap})
        return [
            n for n in client.list_topics(timeout=10).topics if n.startswith(self.oracle.group[:10])
        ]

    def _check(self, oracle: Oracle, new: int) -> None:
        states = oracle.states()
        check_outcomes(states)
        for id in self.ids:
            assert states[id.encode()][-1]["status"] == (
                "dead" if id in self.failed else "succeeded"
            )
        for record in [*oracle.read(oracle.state), *oracle.read(oracle.results)]:
            assert record.key is not None
            assert record.key[:1] == b"\xff" or record.partition == partition_of(record.key, new)
        # Each ran once, though twins lay before, in between and behind.
        ran = Counter(runs(self.folder))
        assert ran == Counter({*self.done, *self.waiting}), ran - Counter(
            {*self.done, *self.waiting}
        )
        # Letters of what was dead before are not written again; that without a key came later.
        letters = Counter(letter.key for letter in oracle.letters())
        wanted = [*(f"garbage-{n}".encode() for n in range(GARBAGE)), None]
        assert letters == Counter([*wanted, *(id.encode() for id in self.failed)])

    def _check_results(self) -> None:
        with closing(App("asks", settings=self.settings)) as app:
            assert app.handle(self.large[0]).result(timeout=20) == "x" * 2000
            assert app.handle(self.done[0]).result(timeout=20) is None
            assert isinstance(app.handle(self.held[0]).result(timeout=20), int)


@pytest.fixture
def half(settings: Settings, tmp_path: Path) -> Callable[..., Scene]:
    """`half(old)`: a queue of `old` partitions, half processed."""

    def make(old: int, many: int = 60) -> Scene:
        scene = Scene(settings, tmp_path, old, many)
        scene.half_processed()
        return scene

    return make


def migrate(settings: Settings, *arguments: str) -> Result:
    runner = CliRunner(env=environment(settings))
    return runner.invoke(cli, ["topics", "migrate", *arguments])


@pytest.mark.parametrize(("old", "new"), [(2, 3), (3, 2)])
def test_a_half_processed_queue_moves_and_each_task_still_has_one_outcome(
    half: Callable[..., Scene], old: int, new: int
) -> None:
    scene = half(old)
    survey = migrate(scene.settings, "--partitions", str(new), "--dry-run", "--json")
    assert survey.exit_code == 0, survey.output
    done = migrate(scene.settings, "--partitions", str(new), "--yes", "--json")
    assert done.exit_code == 0, done.output
    report, counted = json.loads(done.stdout), json.loads(survey.stdout)
    assert (report["from"], report["to"], report["resumed"]) == (old, new, None)
    rows = {row["topic"]: row["records"] for row in report["topics"]}
    assert rows == {row["topic"]: row["records"] for row in counted["topics"]}
    assert rows[scene.oracle.results] == len(scene.large)
    assert f"set TASKMILL_PARTITIONS={new} (it is {old})" in done.stderr
    again = migrate(scene.settings, "--partitions", str(new), "--yes")
    assert again.exit_code == 0
    assert again.stderr == f"nothing to do: queue 'default' has {new} partitions\n"
    scene.goes_on(new)


def test_it_is_refused_while_a_worker_runs_and_names_it(settings: Settings, tmp_path: Path) -> None:
    ensure(settings, "default")
    with WorkerProcess(settings, tmp_path).wait_ready(2):
        refused = migrate(settings, "--partitions", "3", "--yes")
    assert refused.exit_code == 2
    (line,) = refused.stderr.splitlines()
    assert re.fullmatch(
        r"taskmill: queue 'default' has 1 workers: t-\S+ \(127\.0\.0\.1\)\. Stop them .*", line
    ), line
    oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
    assert oracle.partitions(oracle.tasks) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["-q", "nobody", "--partitions", "3", "--yes"],
            "'nobody' has no topics; queues here: def",
        ),
        (["--partitions", "0", "--yes"], "1<=x<=1000"),
        (["--partitions", "1001", "--yes"], "1<=x<=1000"),
        (["--partitions", "3"], "add --yes"),
        ([], "give --partitions N, or --abort"),
        (["--partitions", "3", "--abort"], "give --partitions N, or --abort"),
        (["--abort", "--dry-run"], "--abort has no --dry-run"),
        (["-q", "a.b", "--partitions", "3", "--yes"], "a queue's name is"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    settings: Settings, arguments: list[str], words: str
) -> None:
    ensure(settings, "default")
    refused = migrate(settings, *arguments)
    assert refused.exit_code == 2
    assert words in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_broker_that_is_away_ends_it_with_3(settings: Settings) -> None:
    away = settings.model_copy(update={"bootstrap_servers": "127.0.0.1:9"})
    told = migrate(away, "--partitions", "3", "--yes")
    assert told.exit_code == 3
    assert "127.0.0.1:9 did not answer" in told.stderr


class Command:
    """`taskmill topics migrate` as a process, with its progress to wait on."""

    def __init__(self, settings: Settings, folder: Path, new: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "taskmill", "topics", "migrate", "--yes", f"--partitions={new}"],
            cwd=folder,
            env={**os.environ, **environment(settings)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []

    def until(self, pattern: str | None) -> bool:
        """Read its progress up to a line that matches; False: it ended without one."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if pattern is not None and re.search(pattern, line):
                return True
        return False

    def end(self) -> int:
        """Its exit code."""
        self.until(None)
        code = self.process.wait(60)
        self.process.stderr.close()  # type: ignore[union-attr]
        return code

    def kill(self) -> None:
        self.process.kill()
        self.end()


#: After which progress to kill it; each phase is in there, and places inside.
POINTS = [
    None,
    r"^copying \(",
    r"^swapping state",
    r"^deleting \S+\.state\.",
    r"^filling \S+\.state\.",
    r"^counting \S+\.state\.",
    r"^deleting \S+\.results\.",
    r"^closing tasks",
    r"^swapping tasks",
    r"^deleting \S+\.tasks\.",
    r"^filling \S+\.tasks\.",
    r"^counting \S+\.tasks\.",
    r"^clearing up",
]


@pytest.mark.kill
@pytest.mark.proof("migrate killed")
def test_killed_at_any_point_the_same_command_goes_on(
    half: Callable[..., Scene], tmp_path: Path, seed: int
) -> None:
    print(f"seed {seed}")
    dice = Random(seed)
    old, new = (2, 3) if seed % 2 else (3, 2)
    scene = half(old, many=30)
    # In order: what was passed does not come again.
    kills = sorted(dice.sample(range(len(POINTS)), 2))
    for point in kills:
        command = Command(scene.settings, tmp_path, new)
        # Before its first word it starts Python, and asks what there is.
        wait_s = dice.uniform(0.3, 2.5) if POINTS[point] is None else dice.uniform(0, 0.15)
        if POINTS[point] is None or command.until(POINTS[point]):
            time.sleep(wait_s)
        command.kill()
        print(f"killed {wait_s:.3f} s after {POINTS[point]}: {command.lines[-1:]}")
    last = Command(scene.settings, tmp_path, new)
    assert last.end() == 0, last.lines
    print("\n".join(last.lines))
    scene.goes_on(new)


def test_one_under_way_refuses_another_count_and_can_be_undone_until_it_swaps(
    half: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = half(2, many=30)
    before = scene.oracle.committed()
    command = Command(scene.settings, tmp_path, 3)
    assert command.until(r"^copying \(")
    command.kill()
    other = migrate(scene.settings, "--partitions", "4", "--yes")
    assert other.exit_code == 2
    assert "on its way from 2 to 3 partitions (copying): finish that first" in other.stderr
    undone = migrate(scene.settings, "--abort")
    assert (undone.exit_code, undone.stderr) == (
        0,
        "queue 'default' is as it was, with 2 partitions\n",
    )
    assert scene.oracle.committed() == before
    nothing = migrate(scene.settings, "--abort", "--json")
    assert json.loads(nothing.stdout) == {"queue": "default", "aborted": False}
    scene.goes_on(2)


def test_after_the_first_swap_there_is_no_way_back_but_one_forward(
    half: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = half(2, many=30)
    command = Command(scene.settings, tmp_path, 3)
    assert command.until(r"^filling \S+\.state\.")
    command.kill()
    refused = migrate(scene.settings, "--abort")
    assert refused.exit_code == 2
    assert "cannot go back any more (swapping state)" in refused.stderr
    # Nor does a worker start on what is half moved.
    with scene.worker() as worker:
        assert worker.wait() == 2
        assert "must have equally many partitions" in worker.log
    gone_on = migrate(scene.settings, "--partitions", "3", "--yes", "--json")
    assert gone_on.exit_code == 0, gone_on.stderr
    assert json.loads(gone_on.stdout)["resumed"] == "swapping state"
    scene.goes_on(3)


def test_a_worker_that_ran_since_it_was_begun_makes_it_begin_again(
    half: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = half(2, many=30)
    command = Command(scene.settings, tmp_path, 3)
    assert command.until(r"^copying \(")
    command.kill()
    with Gate() as gate, scene.worker("--drain-timeout", "0s", env=gate.env) as worker:
        scene.oracle.wait_states(scene.waiting[:1])
        worker.terminate()
    scene.wait_left()
    again = migrate(scene.settings, "--partitions", "3", "--yes")
    assert again.exit_code == 0, again.stderr
    assert "a worker has run since it was begun: copying begins again" in again.stderr
    scene.goes_on(3)


class Goer:
    """A producer of somebody else's that was not stopped: it puts tasks until told to end."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self.sent = 0
        self.acked: list[str] = []
        self.refused: Counter[str] = Counter()
        self._topic = topic
        self._ending = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap_servers,
                "partitioner": "murmur2_random",
                "acks": "all",
                "linger.ms": 0,
                "message.timeout.ms": 20_000,
                "log_level": 0,
            }
        )
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        while not self._ending.wait(0.005):
            id = f"late-{self.sent}"
            self.sent += 1

            def report(error: KafkaError | None, _: object, id: str = id) -> None:
                if error is None:
                    self.acked.append(id)
                else:
                    self.refused[error.name()] += 1

            self._producer.produce(
                self._topic, task_value(id, "noop"), id.encode(), on_delivery=report
            )
            self._producer.poll(0)

    def end(self) -> None:
        self._ending.set()
        self._thread.join(10)
        assert self._producer.flush(30) == 0


@pytest.mark.parametrize(("old", "new"), [(2, 3), (3, 2)])
def test_what_a_producer_got_acknowledged_meanwhile_is_not_lost(
    half: Callable[..., Scene], old: int, new: int
) -> None:
    scene = half(old, many=30)
    goer = Goer(scene.settings, scene.oracle.tasks)
    done = migrate(scene.settings, "--partitions", str(new), "--yes", "--json")
    goer.end()
    assert done.exit_code == 0, done.output
    print(f"{len(goer.acked)} acknowledged, {goer.refused} refused")
    assert goer.acked
    # Closed, and gone for a moment: of what was not taken, it was told.
    assert len(goer.acked) + goer.refused.total() == goer.sent
    scene.waiting += goer.acked
    scene.goes_on(new)
