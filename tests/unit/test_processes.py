"""The executor of isolated handlers, where its end and the end of a child meet."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from taskmill.consumer.attempt import Attempts
from taskmill.consumer.executors.processes import ChildSpec, ProcessExecutor
from taskmill.producer.middleware import Hooks
from taskmill.runtime.clock import SYSTEM_CLOCK


class Child:
    """A child process that its slot's thread buries at the very moment in which it is killed."""

    #: As multiprocessing tells it to one of two threads that wait for the same child.
    exitcode = None

    def __init__(self, slot: Any) -> None:
        self.calls: list[str] = []
        self._slot = slot

    def kill(self) -> None:
        self.calls.append("kill")
        self._slot.process = None

    def join(self) -> None:
        self.calls.append("join")

    def close(self) -> None:
        """As the connection."""


@pytest.fixture
def executor() -> Iterator[ProcessExecutor]:
    attempts = Attempts({}, SYSTEM_CLOCK, Hooks(()), 1000)
    one = ProcessExecutor(attempts, 1, lambda _: None, ChildSpec("m:app", 1000))
    one.start()
    yield one
    one.stop(1.0)


def test_a_child_that_is_buried_while_it_is_stopped_is_waited_for_all_the_same(
    executor: ProcessExecutor,
) -> None:
    (slot,) = executor._slots
    child = slot.process = Child(slot)
    assert executor.stop(1.0) == 0
    assert child.calls == ["kill", "join"]


def test_a_child_whose_exit_code_somebody_else_was_told_is_buried(
    executor: ProcessExecutor,
) -> None:
    (slot,) = executor._slots
    slot.process = slot.connection = Child(slot)  # type: ignore[assignment]
    assert str(executor._bury(slot)) == "the process that ran the handler ended with its worker"
    assert slot.process is None
    assert slot.connection is None


def test_an_exit_without_a_stop_does_not_wait_for_a_child() -> None:
    script = """
        from taskmill.consumer.attempt import Attempts
        from taskmill.consumer.executors import processes
        from taskmill.producer.middleware import Hooks
        from taskmill.runtime.clock import SYSTEM_CLOCK

        def child_main(connection, *rest):
            processes.signal.signal(processes.signal.SIGTERM, lambda *_: None)
            connection.send(b"up")
            connection.recv()  # for good: the other end closes with its parent

        if __name__ == "__main__":
            processes.child_main = child_main
            spec = processes.ChildSpec("m:app", 1000)
            one = processes.ProcessExecutor(
                Attempts({}, SYSTEM_CLOCK, Hooks(()), 1000), 1, lambda _: None, spec
            )
            one.start()
            (slot,) = one._slots
            one._spawn(slot)
            assert slot.connection.recv() == b"up"
            processes.signal.alarm(20)
            raise SystemExit(3)
    """
    with open("script.py", "w") as file:
        file.write(textwrap.dedent(script))
    ended = subprocess.run([sys.executable, "script.py"], capture_output=True, timeout=60)
    assert ended.returncode == 3, ended.stderr.decode()


def test_a_signal_that_has_no_name_is_told_by_its_number(executor: ProcessExecutor) -> None:
    (slot,) = executor._slots
    child = slot.process = slot.connection = Child(slot)  # type: ignore[assignment]
    child.exitcode = -40  # type: ignore[attr-defined]
    assert str(executor._bury(slot)) == "the process that ran the handler ended with signal 40"
