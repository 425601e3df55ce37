"""A worker of 0.1.0, built from this repository's history, and today's, in one group."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from faults.sessions import shorten_session
from support.oracle import Oracle
from support.releases import NoHistory, build
from support.workers import TESTS, WorkerProcess, environment, runs
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

pytestmark = [pytest.mark.kafka, pytest.mark.tools, pytest.mark.timeout(120)]

OLD = "0.1.0"
PARTITIONS = 4
TARGET = "support.upgraded:app"


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with 0.1.0."""
    try:
        return build(OLD, tmp_path_factory.mktemp("old"))
    except NoHistory as missing:
        pytest.fail(str(missing))


class Group:
    """A queue, and workers of both versions. `oldest`: what the new ones are told of the others."""

    def __init__(
        self, settings: Settings, folder: Path, old_python: Path, oldest: str | None
    ) -> None:
        self.settings = settings.model_copy(update={"partitions": PARTITIONS})
        ensure(self.settings, "default")
        self.oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
        shorten_session(self.oracle.bootstrap, self.oracle.group)
        self._folder, self._old = folder, old_python
        self._newer = {} if oldest is None else {"TASKMILL_OLDEST_WORKER": oldest}
        self._stack = ExitStack()

    def old(self) -> WorkerProcess:
        """A worker of 0.1.0."""
        return self._start({}, python=self._old)

    def new(self) -> WorkerProcess:
        return self._start(self._newer)

    def scheduler(self) -> WorkerProcess:
        return self._start(self._newer, target="", role="scheduler")

    def _start(self, env: dict[str, str], **how: str | Path) -> WorkerProcess:
        how = {"target": TARGET, **how}
        one = WorkerProcess(self.settings, self._folder, env=env, **how)  # type: ignore[arg-type]
        return self._stack.enter_context(one)

    def enqueue_old(self, name: str, ids: Sequence[str]) -> None:
        """By an App of 0.1.0."""
        env = {**os.environ, **environment(self.settings), "PYTHONPATH": str(TESTS)}
        command = [self._old, "-m", "support.upgraded", name, *ids]
        subprocess.run(command, env=env, cwd=self._folder, check=True, timeout=60)

    def enqueue_new(self, name: str, ids: Sequence[str]) -> None:
        self.oracle.put_tasks(ids, name)

    def both(self, name: str, ids: Sequence[str]) -> None:
        """Each ID by each version: the second one is a duplicate, whoever meets it."""
        half = len(ids) // 2
        self.enqueue_new(name, ids[:half])
        self.enqueue_old(name, ids)
        self.enqueue_new(name, ids[half:])
        self.oracle.wait_states(ids)
        self.oracle.wait_consumed()

    def again(self, ids: Sequence[str]) -> None:
        """Enqueue what has ended once more: nothing of it runs."""
        before = sorted(runs(self._folder))
        self.oracle.put_tasks(ids, "note")
        self.oracle.wait_consumed()
        assert sorted(runs(self._folder)) == before

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def group(
    settings: Settings, tmp_path: Path, old_python: Path, request: pytest.FixtureRequest
) -> Iterator[Group]:
    one = Group(settings, tmp_path, old_python, request.param)
    with one._stack:
        yield one


@pytest.mark.parametrize("group", [None, "0.1"], indirect=True)
def test_x(group: Group, tmp_path: Path) -> None:
    old = group.old()
    first = names("old")
    group.both("note", first)
    group.again(first)
    new = group.new()
    new.wait_for("restored")
    group.again(first)
    second = names("mixed")
    group.both("note", second)
    old.kill()
    group.again(first + second)
    third = names("new")
    group.both("note", third)
    old = group.old()
    old.wait_for("ready: ")
    group.again(first + second + third)
    fourth = names("moving")
    group.enqueue_new("nap", fourth)
    new.kill()
    group.oracle.wait_states(fourth)
    group.again(first + second + third + fourth)
    new = group.new()
    new.wait_for("restored")
    old.terminate()
    group.again(first + second + third + fourth)
    group.oracle.check(first + second + third + fourth)


def names(word: str) -> list[str]:
    return [f"{kind}-{word}-{n}" for kind in ("small", "large") for n in range(10)]
