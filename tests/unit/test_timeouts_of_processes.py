"""Processes of isolated handlers, where the time of one is over."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.limited import Sink, Told, reasons
from support.protocols import held, owner, record
from taskmill.consumer.attempt import Attempts, definitions_by_name
from taskmill.consumer.executors.processes import ChildSpec, ProcessExecutor
from taskmill.consumer.record import Outcome
from taskmill.producer.middleware import Hooks
from taskmill.runtime.clock import SYSTEM_CLOCK

pytestmark = pytest.mark.timeout(60)

APP = """
import asyncio, signal, time
from pathlib import Path
from taskmill import App, Interrupted

app = App("slow")


def cleans_up():
    try:
        time.sleep(30)  # a system call
    finally:
        Path("cleaned").touch()


def insists():
    while True:
        try:
            time.sleep(30)
        except Interrupted:
            Path("interrupted").touch()


def returns():
    import os
    return os.getpid()


async def sleeps():
    try:
        await asyncio.sleep(30)
    finally:
        Path("cancelled").touch()


for fn in (cleans_up, insists, returns, sleeps):
    app.task(fn, isolate="process", timeout="300ms")
"""


class Children:
    """One process for handlers of APP."""

    def __init__(self, folder: Path) -> None:
        (folder / "slow.py").write_text(textwrap.dedent(APP))
        from slow import app  # type: ignore[import-not-found]

        self.told = Told()
        attempts = Attempts(definitions_by_name(app.tasks), SYSTEM_CLOCK, Hooks((self.told,)), 1000)
        self.sink = Sink()
        spec = ChildSpec("slow:app", 1000, 1.0)
        self.executor = ProcessExecutor(attempts, 1, self.sink, spec)
        self.executor.start()
        self.lease = held(owner(0))

    def run(self, *names: str) -> list[Outcome]:
        self.executor.submit([record(self.lease, n, name=name) for n, name in enumerate(names)])
        return self.sink.wait(len(names))


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Children]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    one = Children(tmp_path)
    yield one
    one.executor.stop(5.0)


def test_a_process_is_interrupted_cleans_up_and_is_used_again(
    children: Children, tmp_path: Path
) -> None:
    outcomes = children.run("returns", "cleans_up", "sleeps", "returns")
    assert reasons(outcomes) == ["succeeded", "timed_out", "timed_out", "succeeded"]
    assert outcomes[0].result == outcomes[3].result != str(os.getpid()).encode()
    assert (tmp_path / "cleaned").exists()
    assert (tmp_path / "cancelled").exists()
    assert outcomes[1].failure is not None
    assert "in cleans_up" in outcomes[1].failure.stack
    assert len(children.told.runs) == 4


def test_a_process_that_does_not_heed_it_is_killed_and_replaced(
    children: Children, tmp_path: Path
) -> None:
    outcomes = children.run("returns", "insists", "returns")
    assert reasons(outcomes) == ["succeeded", "timed_out", "succeeded"]
    assert outcomes[0].result != outcomes[2].result
    assert (tmp_path / "interrupted").exists()
    assert len(children.told.runs) == 3
