"""The child process of a ProcessExecutor slot: receives records, runs them, sends outcomes."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection, wait
from types import FrameType

from taskmill.consumer.app import AppLike
from taskmill.consumer.attempt import Attempts, Prepared, definitions_by_name
from taskmill.consumer.record import Outcome, Record
from taskmill.consumer.scope import continue_in
from taskmill.consumer.timeouts import Timekeeper
from taskmill.producer.middleware import Hooks
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.errors import Interrupted
from taskmill.runtime.logs import LogSpec, log_to_stderr

#: Whoever tells the worker to stop may tell its whole process group. A child is started with them
#: blocked, until it has handlers.
ORDERLY = frozenset({signal.SIGTERM, signal.SIGINT})
#: With this a child interrupts its own handler.
INTERRUPT = signal.SIGTERM

#: What a child says beside outcomes and what handlers save: that it takes records, and that it has
#: taken one. It has run nothing of a record before the latter.
READY, STARTED = "ready", "started"


Place = tuple[str, int, int, int]


def place_of(record: Record) -> Place:
    """What tells `record` from others that a worker runs."""
    lease = record.lease
    return lease.queue, lease.partition, lease.epoch, record.offset


class Orders:
    """What the worker says of a record after it was sent: that it is cancelled."""

    def __init__(self, connection: Connection, timekeeper: Timekeeper) -> None:
        self._connection = connection
        self._timekeeper = timekeeper
        self._now: Record | None = None
        #: It may come before the record does, by another pipe.
        self._told: set[Place] = set()

    def begun(self, record: Record) -> None:
        self._now = record
        if place_of(record) in self._told:
            record.lease.cancelled.add(record.offset)

    def ended(self, record: Record) -> None:
        self._now = None
        self._told.discard(place_of(record))

    def watch(self) -> None:
        """The thread. Ends this process, whatever it runs, when the worker is gone: nobody waits
        for it."""
        worker = multiprocessing.parent_process()
        assert worker is not None, "a child is started by multiprocessing"
        while worker.sentinel not in wait([worker.sentinel, self._connection]):
            try:
                self._cancel(self._connection.recv())
            except (EOFError, OSError):  # the slot is given up, with the other pipe
                wait([worker.sentinel])
                break
        os._exit(1)

    def _cancel(self, place: Place) -> None:
        self._told.add(place)
        record = self._now
        if record is not None and place_of(record) == place:
            record.lease.cancelled.add(record.offset)
            self._timekeeper.cancel(record)


def child_main(
    connection: Connection,
    heard: Connection,
    logs: LogSpec | None,
    target: str,
    max_result_bytes: int,
    grace_s: float,
) -> None:
    """Serve attempts from `connection` until it closes; one event loop for the child's life. It
    logs as its worker does, by `logs`."""
    if logs is not None:
        log_to_stderr(logs)
    timekeeper = Timekeeper(SYSTEM_CLOCK, grace_s, _interrupt)

    def on_signal(number: int, frame: FrameType | None) -> None:
        # Else the worker drains: what runs here may end, and then the worker ends this process.
        if number == INTERRUPT and timekeeper.strikes():
            raise Interrupted

    # A handler, not SIG_IGN: processes that tasks start would inherit that.
    for number in ORDERLY:
        signal.signal(number, on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERLY)
    # Not the loop's: a task may hold that for as long as it likes.
    orders = Orders(heard, timekeeper)
    threading.Thread(target=orders.watch, name="taskmill-parent", daemon=True).start()
    module, _, attribute = target.partition(":")
    app: AppLike = getattr(importlib.import_module(module), attribute)
    definitions = definitions_by_name(app.tasks)
    attempts = Attempts(definitions, SYSTEM_CLOCK, Hooks(()), max_result_bytes, timekeeper)
    with asyncio.Runner() as runner:
        runner.run(_serve(connection, orders, attempts, app))


def _interrupt(ident: int) -> None:
    """Wake the handler's thread, which is the main one, also out of a system call."""
    signal.pthread_kill(ident, INTERRUPT)


async def _serve(connection: Connection, orders: Orders, attempts: Attempts, app: AppLike) -> None:
    attempts.encode = app.encode
    continue_in(attempts)
    # What a handler saves goes ahead of its outcome, as bytes.
    attempts.keep = lambda record, started_at, saved: connection.send(saved)
    async with app.resources() as resources:
        attempts.resources = resources
        connection.send(READY)
        while True:
            try:
                record: Record = connection.recv()
            except (EOFError, OSError):
                return
            connection.send(STARTED)
            orders.begun(record)
            outcome = await _attempt(attempts, record)
            orders.ended(record)
            connection.send(outcome._replace(record=None))  # type: ignore[arg-type]


async def _attempt(attempts: Attempts, record: Record) -> Outcome:
    attempt = attempts.prepare(record)
    if not isinstance(attempt, Prepared):
        return attempt
    if attempt.scope is None:
        return await _outcome(attempts, attempt)
    with attempt.scope:
        return await _outcome(attempts, attempt)


async def _outcome(attempts: Attempts, attempt: Prepared) -> Outcome:
    try:
        if attempt.definition.is_async:
            value = await attempts.timekeeper.acall(attempt)
        else:
            value = attempts.timekeeper.call(attempt)
    except BaseException as error:  # SystemExit and the like end the attempt, not the child
        return attempts.fail(attempt, error)
    finally:
        me = asyncio.current_task()
        while me is not None and me.cancelling():
            me.uncancel()  # it was the handler that was cancelled
    return attempts.succeed(attempt, value)
