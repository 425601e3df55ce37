"""What a worker does at intervals beside its work: one thread, a few jobs, none that ends it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from confluent_kafka import KafkaException

from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import TaskmillError

logger = logging.getLogger("taskmill.worker")

#: A job that fails each time is told of once in this many seconds.
REPEAT_S = 60.0
#: With nothing to do, the thread looks again after this.
IDLE_S = 60.0
#: A job that is under way when the worker stops is waited for so long, then left to the end of the
#: process: every job must bear that.
STOP_S = 1.0


class Job(NamedTuple):
    """`run` is called every `every_s` seconds, first after as many; `name` is for the log.

    Jobs share a thread: one that takes seconds makes the others late.
    """

    name: str
    every_s: float
    run: Callable[[], object]


class Upkeep:
    """Runs jobs until stopped, whatever becomes of each. Add them before `start`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: list[Job] = []
        #: When each job is due, and when its last failure was told: monotonic seconds.
        self._due: list[float] = []
        self._told: list[float | None] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._main, name="taskmill-upkeep", daemon=True)

    def add(self, jobs: Iterable[Job]) -> None:
        now = self._clock.monotonic()
        for job in jobs:
            self._jobs.append(job)
            self._due.append(now + job.every_s)
            self._told.append(None)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Start no more jobs; returns at once, or after STOP_S where one does not end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def step(self) -> float:
        """Run what is due. Returns the seconds until the next job is."""
        for number, job in enumerate(self._jobs):
            if self._due[number] > self._clock.monotonic() or self._stopping.is_set():
                continue
            try:
                job.run()
            except Exception as error:  # the next job, and the next time, have no part in it
                self._tell(number, error)
            # From its end on: a slow job must not take the others' turns.
            self._due[number] = self._clock.monotonic() + job.every_s
        now = self._clock.monotonic()
        return max(0.0, min((due - now for due in self._due), default=IDLE_S))

    def _main(self) -> None:
        while not self._stopping.wait(self.step()):
            pass

    def _tell(self, number: int, error: Exception) -> None:
        now, told = self._clock.monotonic(), self._told[number]
        if told is not None and now - told < REPEAT_S:
            return
        self._told[number] = now
        name = self._jobs[number].name
        if isinstance(error, KafkaException):
            logger.warning("upkeep, %s: %s; it is tried again", name, error.args[0].str())
        elif isinstance(error, TaskmillError):
            logger.warning("upkeep, %s: %s; it is tried again", name, error)
        else:
            logger.error("upkeep, %s: it is tried again", name, exc_info=error)
