"""The projection in a process of its own: it takes as much of a core as there is to read, and would
hold up whoever asks."""

from __future__ import annotations

import logging
import os
import signal
import threading
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from taskmill.console.projection.projector import Projector
from taskmill.console.store.address import store_url
from taskmill.console.store.open import open_store
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.logs import LogSpec, installed, log_to_stderr

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

logger = logging.getLogger("taskmill.console")

#: Before one that died is started again.
_AGAIN_S = 1.0
#: To end its transaction. Killed, it loses nothing, since rows and offsets are one; and it may wait
#: for a Kafka that is away.
_END_S = 3.0
#: Answers first: what is read from Kafka a moment later is told by `as_of`.
_NICE = 10


class Projecting:
    """Keeps one such process, from `start` to `close`. The store's file is held by this one."""

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="taskmill-projecting", daemon=True)

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def close(self) -> None:
        """End it, after the transaction under way."""
        self._ending.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._ending.is_set():
            try:
                child, ours = self._begin()
            except OSError as error:
                logger.error("the projection's process cannot be started: %s", error)
                self._ending.wait(_AGAIN_S)
                continue
            while child.is_alive() and not self._ending.is_set():
                child.join(0.1)
            # It sees the end of its pipe, also where this process is killed.
            ours.close()
            child.join(_END_S)
            if child.is_alive():
                child.kill()
                child.join()
            if not self._ending.is_set():
                logger.error("the projection's process ended (%s); again", child.exitcode)
                self._ending.wait(_AGAIN_S)

    def _begin(self) -> tuple[SpawnProcess, Connection]:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        spec = installed() or LogSpec("text", logging.getLevelName(logging.INFO))
        child = context.Process(
            target=_project, args=(self._settings, theirs, spec), name="taskmill-projection"
        )
        child.start()
        theirs.close()
        return child, ours


def _project(settings: Settings, pipe: Connection, spec: LogSpec) -> None:
    """Project until the pipe ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # A terminal's Ctrl-C goes to both; this one ends with the other.
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    log_to_stderr(spec)
    try:
        store = open_store(store_url(settings), claimed=False)
    except TaskmillError as error:
        # It was there a moment ago: this process is started again.
        logger.error("the projection waits: %s", error)
        return
    projector: Any = Projector(settings, store)
    projector.start()
    try:
        pipe.recv()
    except (EOFError, OSError):
        pass
    projector.close()
    store.close()
