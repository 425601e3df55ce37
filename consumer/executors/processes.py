"""Handlers declared `isolate="process"`: each slot is a thread that feeds one child process.

A child that dies takes its one attempt with it and nothing else: the attempt fails as
`ProcessDied`, the slot gets a new child. Children ignore SIGINT and SIGTERM (both may reach the
whole group; draining is the parent's to decide), and end with the parent, however it ends.
"""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from taskmill.consumer.attempt import Attempts, Prepared
from taskmill.consumer.executors.child import ORDERLY, child_main
from taskmill.consumer.executors.loop import Sink
from taskmill.consumer.executors.threads import ThreadExecutor
from taskmill.consumer.record import Lease, Outcome, Record
from taskmill.runtime.errors import ProcessDied

#: Fresh interpreters: a fork of a process with threads, as a worker is, may deadlock.
_SPAWN = multiprocessing.get_context("spawn")


class ChildSpec(NamedTuple):
    """What a child needs to run handlers: where the App is, and the limits."""

    #: "module:attribute", importable in a fresh interpreter.
    target: str
    max_result_bytes: int


class _Slot:
    __slots__ = ("connection", "process", "record")

    def __init__(self) -> None:
        self.process: Any = None
        self.connection: Connection | None = None
        self.record: Record | None = None


class ProcessExecutor(ThreadExecutor):
    """`size` children; one attempt at a time each."""

    def __init__(self, attempts: Attempts, size: int, sink: Sink, spec: ChildSpec) -> None:
        super().__init__(attempts, size, sink, name="process")
        self._spec = spec
        self._slots = [_Slot() for _ in range(size)]

    def start(self) -> None:
        super().start()
        # At exit multiprocessing sends SIGTERM, which they ignore, and waits for them: be first.
        atexit.register(self._kill)

    def cancel(self, leases: Sequence[Lease]) -> None:
        """Kill the children that run for ended leases; their outcomes are dropped."""
        for slot in self._slots:
            record, process = slot.record, slot.process
            if record is not None and record.lease in leases and process is not None:
                process.kill()

    def stop(self, timeout_s: float) -> int:
        left = super().stop(timeout_s)
        for process in self._kill():
            process.join()
        return left

    def _kill(self) -> list[Any]:
        """Kill all children; returns them. A slot's own thread may bury its child meanwhile."""
        children = [process for slot in self._slots if (process := slot.process) is not None]
        for process in children:
            process.kill()
        return children

    def _run(self, index: int, attempt: Prepared) -> Outcome:
        slot = self._slots[index]
        record = slot.record = attempt.record
        try:
            if slot.connection is None:
                self._spawn(slot)
            assert slot.connection is not None, "a spawned slot is connected"
            # Without the bytes that only the parent needs: the decoded task says it all.
            slot.connection.send(record._replace(source=record.source._replace(value=None)))
            while isinstance(answer := slot.connection.recv(), bytes):
                self._attempts.keep(record, attempt.started_at, answer)
            outcome: Outcome = answer
        except (EOFError, OSError) as error:
            if slot.connection is None:
                died = ProcessDied(f"no process could be started for the handler: {error}")
            else:
                died = self._bury(slot)
            return self._attempts.fail(attempt, died)
        finally:
            slot.record = None
        return self._attempts.observe(attempt, outcome._replace(record=record))

    def _spawn(self, slot: _Slot) -> None:
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(
            target=child_main, args=(theirs, *self._spec), name="taskmill-child", daemon=True
        )
        # Else it is started with the first child, and unblocks these signals.
        resource_tracker.ensure_running()
        blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, ORDERLY)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)
        theirs.close()
        # Not before it runs: others kill what they find here.
        slot.process, slot.connection = process, ours

    def _bury(self, slot: _Slot) -> ProcessDied:
        assert slot.connection is not None, "only a connected child can be lost"
        process = slot.process
        slot.connection.close()
        process.join()
        code: int | None = process.exitcode
        slot.connection = slot.process = None
        if code is None:  # the system tells it once, and stop() waits for the child too
            return ProcessDied("the process that ran the handler ended with its worker")
        how = f"signal {_name(-code)}" if code < 0 else f"exit code {code}"
        return ProcessDied(f"the process that ran the handler ended with {how}")


def _name(number: int) -> str:
    """The name of a signal; most of the real-time ones have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
