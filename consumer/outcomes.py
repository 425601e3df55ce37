"""Outside effects exactly once, through PostgreSQL: the tasks declared so, and what runs them.

A handler's transaction also holds its outcome (outcomes_run.py). What is done there and not yet
marked in Kafka, because a worker died in between, is not done again: its outcome is emitted.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping

import psycopg

from taskmill.consumer.attempt import Attempts
from taskmill.consumer.outcomes_errors import first_line, is_worth_waiting
from taskmill.consumer.outcomes_pool import Pool, connection_parameters, finish
from taskmill.consumer.outcomes_run import REPEAT_S, OutcomeRun
from taskmill.consumer.outcomes_table import create_if_missing, forget
from taskmill.consumer.record import Outcome, Record
from taskmill.producer.definition import TaskDefinition
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings

logger = logging.getLogger("taskmill.worker")

#: How often a worker looks for outcomes that are older than the window.
FORGET_EVERY_S = 300.0
#: Rows a transaction, so that each is over in some milliseconds.
FORGET_ROWS = 1000
#: Between tries to reach the database at start.
LOOK_S = 1.0


class PostgresOutcomes:
    """Runs records of tasks declared `effects="postgresql"`, of loops and of threads."""

    def __init__(
        self,
        definitions: Mapping[str, TaskDefinition],
        attempts: Attempts,
        settings: Settings,
        clock: Clock,
    ) -> None:
        """Raises ConfigError for a URL that is none."""
        assert settings.outcomes_url is not None, "whoever makes this has looked"
        self._names = frozenset(n for n, d in definitions.items() if d.effects is not None)
        self._clock = clock
        self._prefix = settings.prefix
        self._window_ms = settings.dedup_window_ms
        self._parameters = connection_parameters(settings.outcomes_url)
        self._stopping = threading.Event()
        size = settings.outcomes_connections
        self._of_loop = Pool(self._parameters, size, is_async=True)
        self._of_threads = Pool(self._parameters, size, is_async=False)
        common = (self._prefix, clock, self._stopping)
        self._in_loop = OutcomeRun(
            attempts, self._of_loop, *common, asyncio.sleep, psycopg.AsyncTransaction
        )
        self._in_threads = OutcomeRun(
            attempts, self._of_threads, *common, self._stopping.wait, psycopg.Transaction
        )
        self._forgetter = threading.Thread(
            target=self._forget, name="taskmill-outcomes", daemon=True
        )

    def takes(self, record: Record) -> bool:
        """Whether `record` is of a task declared so."""
        return record.task is not None and record.task.name in self._names

    async def run(self, record: Record) -> Outcome | None:
        """As OutcomeRun's, for a coroutine's record."""
        return await self._in_loop.run(record)

    def run_in_thread(self, record: Record) -> Outcome | None:
        """As OutcomeRun's, for a plain function's record."""
        try:
            return finish(self._in_threads.run(record))
        except asyncio.CancelledError:  # a handler's, which is told that its lease has ended
            return None

    # ---- life -----------------------------------------------------------------------------------

    def start(self, stopped: Callable[[], bool]) -> bool:
        """Make the table where it is missing. Waits for a database that is away, or a standby;
        False where it was told to stop meanwhile. Raises ConfigError where the table cannot be
        used."""
        told = -REPEAT_S
        while not stopped():
            try:
                with psycopg.connect(**self._parameters, autocommit=True) as connection:
                    self._in_loop.statements = create_if_missing(connection)
                    self._in_threads.statements = self._in_loop.statements
            except psycopg.Error as error:
                if not is_worth_waiting(error):
                    raise
                now = self._clock.monotonic()
                if now - told >= REPEAT_S:
                    told = now
                    logger.warning(
                        "PostgreSQL at TASKMILL_OUTCOMES_URL: %s; waiting for it", first_line(error)
                    )
                self._clock.sleep(LOOK_S)
                continue
            self._forgetter.start()
            return True
        return False

    def _forget(self) -> None:
        statements = self._in_loop.statements
        while True:
            try:
                with psycopg.connect(**self._parameters, autocommit=True) as connection:
                    while not self._stopping.is_set():
                        window = (self._prefix, self._window_ms)
                        if forget(connection, statements, *window, FORGET_ROWS) == 0:
                            break
            except psycopg.Error as error:
                logger.debug("old outcomes stay for now: %s", first_line(error))
            if self._stopping.wait(FORGET_EVERY_S):
                return

    def stop(self) -> None:
        """Try nothing again; what runs is cut off by its executor."""
        self._stopping.set()

    async def close(self) -> None:
        """Close the connections, those in use once they come back; on the executors' loop."""
        await self._of_loop.close()
        finish(self._of_threads.close())
