"""A queue that `topics migrate` moves, half processed; the command, and a producer that goes on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

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


def migrate(settings: Settings, *arguments: str) -> Result:
    runner = CliRunner(env=environment(settings))
    return runner.invoke(cli, ["topics", "migrate", *arguments])


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
