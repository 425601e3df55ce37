"""Handlers declared `isolate="process"`: each slot is a thread that feeds one child process.

A child that dies takes the attempt that it has started with it and nothing else: that one fails as
`ProcessDied`, the slot gets a new child. One that dies before (its lifespan fails, since a database
is away) is replaced, with back-off, and the record waits. Children ignore SIGINT and SIGTERM (both
may reach the whole group; draining is the parent's to decide), and end with the parent, however it
ends.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import signal
import threading
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from taskmill.consumer.attempt import Attempts, Prepared, cancelled
from taskmill.consumer.executors.child import ORDERLY, STARTED, child_main, place_of
from taskmill.consumer.executors.loop import Sink
from taskmill.consumer.executors.threads import ThreadExecutor
from taskmill.consumer.record import Lease, Outcome, Record
from taskmill.consumer.timeouts import GRACE_S, is_cancelled
from taskmill.runtime.clock import Deadline
from taskmill.runtime.errors import ProcessDied
from taskmill.runtime.logs import installed

logger = logging.getLogger("taskmill.worker")

#: A child that died before it started anything is replaced after this, doubling up to the maximum.
AGAIN_S, AGAIN_MAX_S = 0.1, 5.0
#: A record that so many children died of before they could start it, though they were ready, fails.
_TRIES = 3

#: Fresh interpreters: a fork of a process with threads, as a worker is, may deadlock.
_SPAWN = multiprocessing.get_context("spawn")


class ChildSpec(NamedTuple):
    """What a child needs to run handlers: where the App is, and the limits."""

    #: "module:attribute", importable in a fresh interpreter.
    target: str
    max_result_bytes: int
    #: Seconds that a handler has after it was interrupted, before its process is killed.
    grace_s: float = GRACE_S


class _Slot:
    __slots__ = ("connection", "lock", "orders", "process", "record")

    def __init__(self) -> None:
        #: Held where `record` changes, so that no child is killed for one that it has done.
        self.lock = threading.Lock()
        self.process: Any = None
        self.connection: Connection | None = None
        #: Where the child hears of what is to be cancelled while it runs something.
        self.orders: Connection | None = None
        self.record: Record | None = None


class ProcessExecutor(ThreadExecutor):
    """`size` children; one attempt at a time each."""

    def __init__(self, attempts: Attempts, size: int, sink: Sink, spec: ChildSpec) -> None:
        super().__init__(attempts, size, sink, name="process")
        self._spec = spec
        self._slots = [_Slot() for _ in range(size)]
        self._stopping = threading.Event()

    def start(self) -> None:
        super().start()
        # At exit multiprocessing sends SIGTERM, which they ignore, and waits for them: be first.
        atexit.register(self._kill)

    def cancel(self, leases: Sequence[Lease]) -> None:
        """Kill the children that run for ended leases; their outcomes are dropped."""
        for slot in self._slots:
            with slot.lock:
                record, process = slot.record, slot.process
                if record is not None and record.lease in leases and process is not None:
                    process.kill()

    def _stop(self, record: Record) -> None:
        """Its child ends the handler as one whose time is over; else it is killed."""
        for slot in self._slots:
            with slot.lock:
                if slot.record is not record:
                    continue
                if slot.orders is not None:
                    try:
                        slot.orders.send(place_of(record))
                    except OSError:
                        pass  # it has just died
            late = threading.Timer(self._spec.grace_s, self._kill_for, (slot, record))
            late.daemon = True
            late.start()

    def _kill_for(self, slot: _Slot, record: Record) -> None:
        """`record` was cancelled, and the grace is over."""
        with slot.lock:
            process = slot.process
            if slot.record is record and process is not None:
                process.kill()

    def stop(self, timeout_s: float) -> int:
        self._stopping.set()
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

    def _run(self, index: int, attempt: Prepared) -> Outcome | None:
        slot, record = self._slots[index], attempt.record
        with slot.lock:
            slot.record = record
        try:
            outcome = self._outcome_of(slot, attempt)
        finally:
            with slot.lock:
                slot.record = None
        if outcome is None:
            return None
        return self._attempts.observe(attempt, outcome._replace(record=record))

    def _outcome_of(self, slot: _Slot, attempt: Prepared) -> Outcome | None:
        """What a child made of it; None where it was given up before one was ready."""
        record = attempt.record
        # Without the bytes that only the parent needs: the decoded task says it all.
        sent = record._replace(source=record.source._replace(value=None))
        if attempt.scope is not None:
            sent = attempt.scope.carried_by(sent)
        for _ in range(_TRIES):
            connection = self._ready(slot, record)
            if connection is None:
                return None
            if is_cancelled(record):
                return cancelled(record, self._attempts.clock.now_ms())
            started = False
            limit: Deadline | None = None
            try:
                connection.send(sent)
                while True:
                    if limit is not None and not connection.poll(limit.left()):
                        return self._overdue(slot, attempt)
                    answer = connection.recv()
                    if answer == STARTED:
                        started = True
                        if attempt.due is not None:
                            # It interrupts its handler itself, and answers, unless it cannot.
                            limit = Deadline(attempt.due.seconds + self._spec.grace_s)
                    elif isinstance(answer, bytes):
                        self._attempts.keep(record, attempt.started_at, answer)
                    else:
                        outcome: Outcome = answer
                        return outcome
            except (EOFError, OSError):
                died = self._bury(slot)
                if started:
                    break
        return self._attempts.failure(attempt, died)

    def _overdue(self, slot: _Slot, attempt: Prepared) -> Outcome:
        """The child has let the grace pass too: it is killed."""
        assert attempt.due is not None, "only what has a time can be over it"
        slot.process.kill()
        self._bury(slot)
        return self._attempts.failure(attempt, attempt.due.error())

    def _ready(self, slot: _Slot, record: Record) -> Connection | None:
        """A child in `slot` that takes records; None where `record` is not to start any more."""
        pause = AGAIN_S
        while (connection := slot.connection) is None:
            shed = self._shedding and not record.is_gated
            if self._stopping.is_set() or shed or not record.lease.held:
                return None
            why: Exception
            try:
                connection = self._spawn(slot)
                connection.recv()  # READY
                break
            except EOFError:
                why = self._bury(slot)
            except OSError as error:
                why = error if connection is None else self._bury(slot)
            logger.warning("no process for a handler, another one in %g s: %s", pause, why)
            self._stopping.wait(pause)
            pause = min(2 * pause, AGAIN_MAX_S)
        return connection

    def _spawn(self, slot: _Slot) -> Connection:
        ours, theirs = _SPAWN.Pipe()
        heard, orders = _SPAWN.Pipe(duplex=False)
        process = _SPAWN.Process(
            target=child_main,
            args=(theirs, heard, installed(), *self._spec),
            name="taskmill-child",
            daemon=True,
        )
        # Else it is started with the first child, and unblocks these signals.
        resource_tracker.ensure_running()
        blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, ORDERLY)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)
        theirs.close()
        heard.close()
        # Not before it runs: others kill what they find here.
        slot.process, slot.connection, slot.orders = process, ours, orders
        return ours

    def _bury(self, slot: _Slot) -> ProcessDied:
        assert slot.connection is not None, "only a connected child can be lost"
        process = slot.process
        slot.connection.close()
        with slot.lock:
            if slot.orders is not None:
                slot.orders.close()
            slot.orders = None
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
