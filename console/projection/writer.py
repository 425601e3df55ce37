"""The write side of the store: rows and consumed offsets in one transaction, by one console.

Every transaction first moves the counter's row, if this console still holds it. That gives the
changes their numbers, in the order in which they become visible, and fences a console that was
taken for dead: whatever it has read, it writes no more.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Connection, select, update

from taskmill.console.projection.batch import Batch
from taskmill.console.projection.sweep import sweep_letters, sweep_minutes, sweep_tasks
from taskmill.console.projection.write import write_batch
from taskmill.console.store.bulk import Bulk, PostgresBulk, SqliteBulk
from taskmill.console.store.errors import Refused, told
from taskmill.console.store.store import Store
from taskmill.console.store.tables import COUNTER
from taskmill.runtime.errors import TaskmillError

logger = logging.getLogger("taskmill.console")


class LeaseLost(TaskmillError):
    """Another console projects into this store now."""


class Progress(NamedTuple):
    """How far the store is: up to when it knows all, and by topic (lag, as_of)."""

    as_of: int
    topics: Mapping[str, tuple[int, int]]


class Seen(NamedTuple):
    """Who held the store when it was looked at, and a number that rises while that one lives."""

    holder: str
    beat: int


class Writer:
    """Writes to `store` as `name`, which no other console has. Not thread-safe.

    All methods raise Unreachable while the store is away, TaskmillError for what it refuses; those
    that write raise LeaseLost where another console has taken over.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        #: Tasks, results and letters that the database did not take.
        self.refused = 0
        self._store = store
        self._bulk: Bulk = PostgresBulk() if store.is_shared else SqliteBulk()

    # ---- who writes -----------------------------------------------------------------------------

    def look(self) -> Seen:
        """Who holds the store; "": nobody."""
        with told(self._store.where), self._store.engine.connect() as connection:
            row = connection.execute(select(COUNTER.c.holder, COUNTER.c.beat)).one()
            return Seen(row.holder, row.beat)

    def take(self, seen: Seen) -> bool:
        """Take the store over from whom was seen; False where somebody wrote since then."""
        mine = (
            update(COUNTER)
            .where(COUNTER.c.holder == seen.holder, COUNTER.c.beat == seen.beat)
            .values(holder=self.name, beat=COUNTER.c.beat + 1)
        )
        with told(self._store.where), self._store.engine.begin() as connection:
            return connection.execute(mine).rowcount == 1

    def leave(self) -> None:
        """Let it go, so that another need not wait until this console counts as dead."""
        mine = update(COUNTER).where(COUNTER.c.holder == self.name).values(holder="")
        with told(self._store.where), self._store.engine.begin() as connection:
            connection.execute(mine)

    # ---- what is written ------------------------------------------------------------------------

    def write(self, batch: Batch, progress: Progress | None) -> None:
        """All of a batch, or nothing; and that this console lives. Where the database refuses its
        values, all but those: no record that anybody can write holds up the others."""
        try:
            self._write(batch, progress)
        except Refused:
            for piece in batch.pieces():
                try:
                    self._write(piece, None)
                except Refused as error:
                    self.refused += 1
                    logger.warning("passed over: %s", error)
            places = Batch()
            places.places = batch.places
            self._write(places, progress)

    def _write(self, batch: Batch, progress: Progress | None) -> None:
        size = len(batch.tasks) + len(batch.large) + len(batch.letters) + len(batch.replays)
        with self._transaction(size, progress) as (connection, number):
            write_batch(connection, self._bulk, batch, number)

    def sweep(self, before: int, most: int) -> int:
        """Forget up to so many tasks that ended before then, and minutes; how many tasks."""
        with self._transaction(0, None) as (connection, _):
            sweep_minutes(connection, before)
            return sweep_tasks(connection, self._bulk, before, most)

    def sweep_letters(
        self, queue: str, topic_id: str, starts: Mapping[int, int], before: int
    ) -> None:
        """Forget letters that Kafka has no more: of another DLQ than that of `topic_id`, and in
        each partition those below its start; of letters that never came, replays before then."""
        with self._transaction(0, None) as (connection, _):
            sweep_letters(connection, queue, topic_id, starts, before)

    @contextmanager
    def _transaction(
        self, size: int, progress: Progress | None
    ) -> Iterator[tuple[Connection, int]]:
        """A transaction, and the number before its first change."""
        values: dict[str, object] = {
            "value": COUNTER.c.value + size,
            "beat": COUNTER.c.beat + 1,
        }
        if progress is not None:
            values["as_of"] = progress.as_of
            values["progress"] = json.dumps(progress.topics)
        mine = (
            update(COUNTER)
            .where(COUNTER.c.holder == self.name)
            .values(values)
            .returning(COUNTER.c.value)
        )
        with told(self._store.where), self._store.engine.begin() as connection:
            value = connection.execute(mine).scalar()
            if value is None:
                raise LeaseLost("another console projects into this store now")
            yield connection, int(value) - size
