"""Replays whose command is killed, and whose workers are: each letter is replayed once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from support.brokers import delete_topics
from support.queues import Queue
from support.wire import task_value
from support.workers import WorkerProcess, environment
from taskmill.runtime.config import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(180)]

PARTITIONS, LETTERS = 3, 150
#: Letters a second: slow enough that a kill finds it at work.
RATE = 30


class Dead(Queue):
    """A queue of dead letters, and workers that could run them by now, for many points."""

    def begin(self, ids: list[str]) -> None:
        """Tasks of these IDs, dead, and mended now."""
        (self.folder / "mended").unlink(missing_ok=True)
        for id in ids:
            self.oracle.put(id.encode(), task_value(id, "brittle", {}))
        self.oracle.wait_states(ids, 60)
        (self.folder / "mended").touch()

    def keep(self, count: int) -> list[WorkerProcess]:
        """Two workers that live."""
        living = [one for one in self.workers if one.process.poll() is None]
        return living + [self.add() for _ in range(count - len(living))]

    def replay(self) -> subprocess.Popen[str]:
        """The command, under way."""
        return subprocess.Popen(
            [sys.executable, "-m", "taskmill", "dlq", "replay", "--yes", "--rate", f"{RATE}/s"],
            cwd=self.folder,
            env={**os.environ, **environment(self.settings)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def copies(self, ids: list[str]) -> Counter[bytes]:
        """How often each was put on `tasks` by a replay."""
        wanted = {id.encode() for id in ids}
        return Counter(
            record.key
            for record in self.oracle.read(self.oracle.tasks)
            if record.key in wanted and "taskmill-replay" in record.headers
        )


@pytest.fixture(scope="module")
def dead(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dead]:
    prefix, folder = f"t-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("replays")
    settings = Settings(
        bootstrap_servers=broker,
        prefix=prefix,
        partitions=PARTITIONS,
        state_dir=folder / "state",
        # Its replay is innocent of its worker's end.
        crash_loop_limit=1_000_000,
    )
    with Dead(settings, Path(folder)) as queue:
        yield queue
    delete_topics(broker, prefix)


@pytest.mark.proof("replay: SIGKILL of its command, and of workers")
def test_each_letter_is_replayed_once_whatever_dies(dead: Dead, seed: int) -> None:
    dice = Random(seed)
    ids = [f"{seed}-{uuid.uuid4().hex[:8]}-{n}" for n in range(LETTERS)]
    dead.keep(2)
    dead.begin(ids)
    for _ in range(dice.randrange(1, 3)):
        command = dead.replay()
        # From its start over taking its turn to its last letters.
        time.sleep(dice.uniform(0.3, 6.0))
        command.send_signal(signal.SIGKILL)
        command.communicate()
        if dice.random() < 0.5:
            dice.choice(dead.keep(2)).kill()
            dead.keep(2)
    last = dead.replay()
    _, said = last.communicate(timeout=60)
    assert last.returncode == 0, said
    print(said)
    dead.oracle.wait_consumed()
    assert dead.copies(ids) == dict.fromkeys((id.encode() for id in ids), 1)
    states = dead.oracle.check(ids)
    for id in ids:
        ends = [(s["generation"], s["status"]) for s in states[id.encode()]]
        assert [end for end in ends if end[1] != "running"] == [(0, "dead"), (1, "succeeded")], id
