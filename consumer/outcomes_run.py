"""One attempt inside one PostgreSQL transaction, which takes the ID's row and stores its outcome.

    BEGIN, take the row ──> held already? ── yes ──> the stored outcome, the handler is not run
                            │ no
                            ▼
    prepare ──> handler, with ctx.connection ── returned ──> store, COMMIT
                            │ raised
                            ▼
    ROLLBACK ──> BEGIN, take the row (as above) ──> store the failure, COMMIT
    └─ its connection is closed, or cannot ROLLBACK: the same through another one

Two round trips a task beside the handler's own: BEGIN goes out with the row, COMMIT with the
outcome. A commit whose answer is lost is looked up: the next try finds the outcome, or runs again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from taskmill.consumer.attempt import Attempts, Prepared
from taskmill.consumer.outcomes_errors import (
    BadTransaction,
    ConnectionClosed,
    DatabaseFailed,
    first_line,
    is_conflict,
    is_of_database,
)
from taskmill.consumer.outcomes_pool import Connection, Pool, pipelined, settled
from taskmill.consumer.outcomes_table import TABLE, Statements, entry_of, outcome_of, to_row
from taskmill.consumer.record import Outcome, Record
from taskmill.consumer.table import Decision, decide
from taskmill.runtime.clock import Clock
from taskmill.schemas.states import TERMINAL, Status

logger = logging.getLogger("taskmill.worker")

_Status = psycopg.Transaction.Status

#: Between tries, doubling: PostgreSQL's restart takes a second or so.
RETRY_S, RETRY_MAX_S = 0.05, 2.0
#: How long one try waits for a twin's transaction; then it is asked whether the lease still holds.
ROW_WAIT = "SET LOCAL lock_timeout = '2s'"
#: What the handler before this one has set for its session is not this one's. RESET ALL leaves out
#: the two users; the first takes the second to none, or not, by the server's version.
RESETS = ("RESET SESSION AUTHORIZATION", "RESET ROLE", "RESET ALL")
#: A database that stays away is told of once in this many seconds.
REPEAT_S = 60.0


class RowBusy(Exception):
    """The row changed hands while it was looked at: to be looked at again."""


class Unfit(Exception):
    """The handler left its connection closed, or amid something: `outcome`, which is a failure,
    is to be stored through another one."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class OutcomeRun:
    """Runs records of one kind of handler (coroutines or threads) over one pool.

    `prefix` tells platforms apart that share the database. `pause` waits for so many seconds, the
    loop's by awaiting.
    """

    def __init__(
        self,
        attempts: Attempts,
        pool: Pool,
        prefix: str,
        clock: Clock,
        stopping: threading.Event,
        pause: Callable[[float], Any],
        transaction: Callable[[Connection], Any],
    ) -> None:
        self._attempts = attempts
        self._pool = pool
        self._prefix = prefix
        self._clock = clock
        self._stopping = stopping
        self._pause = pause
        self._transaction = transaction
        self._told = -REPEAT_S
        #: With the table's whole name, once that is known.
        self.statements = Statements(TABLE)

    async def run(self, record: Record) -> Outcome | None:
        """The outcome of `record`: stored before, or of its handler run now.

        Tries until the database lets it; None once the lease has ended or the worker stops.
        """
        pause = RETRY_S
        failed: Outcome | None = None
        async with self._pool.place():
            while not self._is_over(record):
                try:
                    async with self._pool.open() as connection:
                        if failed is not None:
                            return await self._keep(connection, record, failed)
                        return await self._once(connection, record)
                except Unfit as left:
                    failed = left.outcome
                    continue
                except RowBusy:
                    pause = RETRY_S
                except Exception as error:  # whatever it is, it is no fault of the task's
                    self._tell(error)
                await settled(self._pause(pause))
                pause = min(2 * pause, RETRY_MAX_S)
        return None

    def _is_over(self, record: Record) -> bool:
        return self._stopping.is_set() or not record.lease.held

    def _tell(self, error: Exception) -> None:
        now = self._clock.monotonic()
        if is_conflict(error) or now - self._told < REPEAT_S:
            logger.debug("PostgreSQL: %s; the attempt is tried again", first_line(error))
            return
        self._told = now
        logger.warning("PostgreSQL: %s; its tasks are tried until it works", first_line(error))

    async def _once(self, connection: Connection, record: Record) -> Outcome | None:
        transaction = self._transaction(connection)
        held = await self._take(connection, transaction, record)
        if held is not None:
            await _roll_back(transaction)
            return held
        attempt = self._attempts.prepare(record)
        if not isinstance(attempt, Prepared):
            await self._store(connection, transaction, attempt)
            return attempt
        if attempt.scope is None:
            outcome = await self._call(connection, transaction, attempt)
        else:
            with attempt.scope:
                outcome = await self._call(connection, transaction, attempt)
        if outcome.status is Status.SUCCEEDED:
            return outcome
        if not await _is_undone(connection, transaction):
            raise Unfit(outcome)
        return await self._keep(connection, record, outcome)

    async def _keep(self, connection: Connection, record: Record, outcome: Outcome) -> Outcome:
        """Store a failure whose own transaction is undone; what a twin has stored goes first."""
        transaction = self._transaction(connection)
        held = await self._take(connection, transaction, record)
        if held is not None:
            await _roll_back(transaction)
            return held
        await self._store(connection, transaction, outcome)
        return outcome

    async def _take(
        self, connection: Connection, transaction: Any, record: Record
    ) -> Outcome | None:
        """Begin `transaction` and lock the ID's row. An Outcome where the rule says not to run."""
        row = (self._prefix, record.lease.queue, record.mark_key)
        place = (record.generation, record.seq)
        cursor, reader = (connection.cursor(row_factory=tuple_row) for _ in range(2))
        try:
            async with pipelined(connection):
                await _enter(transaction)
                for reset in RESETS:
                    await settled(connection.execute(reset))
                await settled(connection.execute(ROW_WAIT))
                await settled(cursor.execute(self.statements.take, (*row, *place)))
                await settled(connection.execute("SET LOCAL lock_timeout TO DEFAULT"))
            if await settled(cursor.fetchone()) is not None:
                return None
            async with pipelined(connection):
                await settled(connection.execute(ROW_WAIT))
                await settled(reader.execute(self.statements.read, row))
                await settled(connection.execute("SET LOCAL lock_timeout TO DEFAULT"))
        except psycopg.errors.LockNotAvailable:
            raise RowBusy from None
        found = await settled(reader.fetchone())
        if found is None:
            raise RowBusy  # deleted in between, for its age
        entry = entry_of(found)
        if decide(entry, *place) is Decision.RUN:
            return None
        is_same = (entry.generation, entry.seq) == place
        if is_same or (entry.generation == record.generation and entry.status in TERMINAL):
            return outcome_of(record, found)
        # A newer attempt or replay of it is here already: this one is a duplicate.
        return Outcome(record, None)

    async def _call(self, connection: Connection, transaction: Any, attempt: Prepared) -> Outcome:
        """Run the handler; where it succeeds, its outcome is committed with what it did."""
        context, definition = attempt.context, attempt.definition
        assert context is not None, "a task with effects takes a Context"
        context.connect(connection)
        try:
            if definition.is_async:
                value = await self._attempts.timekeeper.acall(attempt)
            else:
                value = self._attempts.timekeeper.call(attempt)
        except asyncio.CancelledError as error:
            if self._is_over(attempt.record):
                raise  # by the worker: whoever owns the record next runs it
            return self._failed(connection, attempt, error)
        except BaseException as error:  # SystemExit and the like end the attempt, not the worker
            if connection.broken or is_of_database(error):
                raise DatabaseFailed(error) from error
            return self._failed(connection, attempt, error)
        finally:
            context.connect(None)
        try:
            if _is_closed(connection):
                raise ConnectionClosed(definition.name)
            if connection.info.transaction_status != TransactionStatus.INTRANS:
                raise BadTransaction(definition.name)
            outcome = self._attempts.succeed(attempt, value)
            if outcome.status is Status.SUCCEEDED:
                await self._store(connection, transaction, outcome)
        except Exception as error:
            if connection.broken or is_of_database(error):
                raise
            # Its own: a deferred constraint that does not hold, or a transaction it has ended.
            return self._attempts.fail(attempt, error)
        return outcome

    def _failed(self, connection: Connection, attempt: Prepared, error: BaseException) -> Outcome:
        if _is_closed(connection):
            error = ConnectionClosed(attempt.definition.name, error)
        return self._attempts.fail(attempt, error)

    async def _store(self, connection: Connection, transaction: Any, outcome: Outcome) -> None:
        """Write `outcome` to the row that is held, and commit."""
        record = outcome.record
        row = (self._prefix, record.lease.queue, record.mark_key)
        cursor = connection.cursor()
        async with pipelined(connection):
            await settled(cursor.execute(self.statements.store, (*to_row(outcome), *row)))
            await _leave(transaction)


def _is_closed(connection: Connection) -> bool:
    """Whether the handler has closed it: one that was cut is `broken`."""
    return connection.closed and not connection.broken


async def _is_undone(connection: Connection, transaction: Any) -> bool:
    """Roll back what a handler did; False where it left no connection to do so on."""
    if connection.info.transaction_status in (TransactionStatus.UNKNOWN, TransactionStatus.ACTIVE):
        return False  # closed; amid a COPY, where a ROLLBACK would wait for ever
    try:
        if transaction.status is _Status.ACTIVE:
            await _roll_back(transaction)
        else:  # its COMMIT failed, or was not reached
            await settled(connection.rollback())
    except psycopg.Error:  # a block of its own that it did not leave
        return False
    return bool(connection.info.transaction_status == TransactionStatus.IDLE)


async def _enter(transaction: Any) -> None:
    is_async = isinstance(transaction, psycopg.AsyncTransaction)
    await settled(transaction.__aenter__() if is_async else transaction.__enter__())


async def _leave(transaction: Any, error: BaseException | None = None) -> None:
    """COMMIT; ROLLBACK where there is an error."""
    is_async = isinstance(transaction, psycopg.AsyncTransaction)
    end = transaction.__aexit__ if is_async else transaction.__exit__
    await settled(end(type(error) if error else None, error, None))


async def _roll_back(transaction: Any) -> None:
    await _leave(transaction, psycopg.Rollback())
