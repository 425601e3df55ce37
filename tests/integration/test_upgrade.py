"""Workers of older versions, built from this repository's history, and today's, in one group."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from faults.sessions import shorten_session
from support.oracle import Oracle
from support.releases import NoHistory, build
from support.witness import Witness
from support.workers import TESTS, WorkerProcess, environment, runs
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

pytestmark = [pytest.mark.kafka, pytest.mark.tools, pytest.mark.timeout(120)]

PARTITIONS = 4


@pytest.fixture(scope="module")
def python_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The interpreter of an environment with that version, built once."""

    @cache
    def made(version: str) -> Path:
        try:
            return build(version, tmp_path_factory.mktemp("old"))
        except NoHistory as missing:
            pytest.fail(str(missing))

    return made


class Group:
    """A queue, and workers of both versions in one state directory, as on one machine. `told`: what
    the new ones are told of the old ones' version."""

    def __init__(self, settings: Settings, folder: Path, old_python: Path, told: str) -> None:
        self.settings = settings.model_copy(update={"partitions": PARTITIONS})
        ensure(self.settings, "default")
        self.oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
        shorten_session(self.oracle.bootstrap, self.oracle.group)
        self._folder, self._old = folder, old_python
        self._told = {"TASKMILL_OLDEST_WORKER": told} if told else {}
        self.stack = ExitStack()
        #: All that was enqueued.
        self.ids: list[str] = []

    def old(self) -> WorkerProcess:
        """An old worker, with partitions."""
        one = self._start({}, python=self._old)
        one.wait_for("ready: |restored ")
        return one

    def new(self) -> WorkerProcess:
        """One of today's, with partitions."""
        one = self._start(self._told)
        one.wait_for("restored ")
        return one

    def scheduler(self) -> WorkerProcess:
        return self._start(self._told, target="", role="scheduler")

    def _start(self, env: dict[str, str], **how: str | Path) -> WorkerProcess:
        target = str(how.pop("target", "support.upgraded:app"))
        one = WorkerProcess(self.settings, self._folder, target=target, env=env, **how)  # type: ignore[arg-type]
        return self.stack.enter_context(one)

    def enqueue(self, name: str, ids: Sequence[str], *, by_old: bool, delay: str = "") -> None:
        """By an App of that version, in a program of its own."""
        env = {**os.environ, **environment(self.settings), "PYTHONPATH": str(TESTS)}
        command = [self._old if by_old else sys.executable, "-m", "support.upgraded"]
        subprocess.run(
            [*command, name, delay, *ids], env=env, cwd=self._folder, check=True, timeout=60
        )
        self.ids += [id for id in ids if id not in self.ids]

    def run(self, word: str) -> None:
        """Have twenty tasks of new IDs run, each enqueued by both versions: one is a duplicate."""
        ids = [f"{size}-{word}-{n}" for size in ("small", "large") for n in range(10)]
        self.enqueue("note", ids[:10], by_old=False)
        self.enqueue("note", ids, by_old=True)
        self.enqueue("note", ids[10:], by_old=False)
        self.oracle.wait_states(ids)
        self.oracle.wait_consumed()

    def enqueue_again(self) -> list[str]:
        """All of them once more; which of them have run again."""
        before = runs(self._folder)
        self.oracle.put_tasks(self.ids, "note")
        self.oracle.wait_consumed()
        return list(runs(self._folder)[len(before) :])


MakeGroup = Callable[..., Group]


@pytest.fixture
def group(
    settings: Settings, tmp_path: Path, python_of: Callable[[str], Path]
) -> Iterator[MakeGroup]:
    with ExitStack() as stack:

        def make(version: str = "0.1.0", *, told: str) -> Group:
            made = Group(settings, tmp_path, python_of(version), told)
            stack.enter_context(made.stack)
            return made

        yield make


def test_old_and_new_workers_share_a_queue_and_take_over_from_each_other(group: MakeGroup) -> None:
    here = group(told="0.1")
    old = here.old()
    here.run("old")
    new = here.new()
    here.run("mixed")
    assert here.enqueue_again() == []
    old.kill()  # all of its partitions go to the new one
    assert here.enqueue_again() == []
    here.run("new")
    old = here.old()
    assert here.enqueue_again() == []
    here.enqueue("nap", [f"moving-{n}" for n in range(20)], by_old=False)
    new.kill()  # all of its partitions go to the old one, some of it under way
    here.oracle.wait_states(here.ids)
    assert here.enqueue_again() == []
    here.new()
    assert old.terminate() == 0
    assert here.enqueue_again() == []
    here.oracle.check(here.ids)


@pytest.mark.parametrize(("version", "told"), [("0.1.0", "0.1"), ("0.2.0", "0.2")])
def test_what_a_new_worker_puts_off_an_old_one_runs(
    group: MakeGroup, version: str, told: str
) -> None:
    here = group(version, told=told)
    new = here.new()
    failed = [f"brittle-{n}" for n in range(10)]
    here.enqueue("brittle", failed, by_old=False)
    here.enqueue("note", ["delayed"], by_old=False, delay="1s")
    with Witness(here.oracle.bootstrap, [here.oracle.state]) as witness:
        waiting = {id.encode() for id in here.ids}
        witness.until(lambda: waiting <= set(witness.states), lambda: "all of them put off")
        assert {witness.states[id][-1]["status"] for id in waiting} == {"retrying", "scheduled"}
    new.kill()
    old = here.old()
    here.scheduler()
    ended = here.oracle.wait_states(here.ids)
    assert {state["status"] for state in ended.values()} == {"succeeded"}
    assert {state["worker"] for state in ended.values()} == {_name(old)}
    assert [ended[id.encode()]["attempt"] for id in failed] == [2] * len(failed)
    assert here.enqueue_again() == []


def test_a_new_worker_that_is_not_told_has_an_old_one_run_tasks_again(group: MakeGroup) -> None:
    """Why there is TASKMILL_OLDEST_WORKER: docs/upgrade.md says what happens without."""
    here = group(told="")
    new = here.new()
    here.run("new")
    assert new.terminate() == 0
    # As on another machine: what lies in the new one's local store could be read.
    shutil.rmtree(here.settings.state_dir)
    here.old()
    assert sorted(here.enqueue_again()) == sorted(here.ids)


def _name(worker: WorkerProcess) -> str:
    return worker.wait_for(r"slot (\S+), pid")[1]
