"""The read side of the store: what the API and the dashboard ask of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, Executable, Row, and_, desc, func, select

from taskmill.console.store import queries
from taskmill.console.store.address import FileClaim
from taskmill.console.store.errors import told as told_of
from taskmill.console.store.rows import (
    BUCKETS,
    ArrivalRow,
    AttemptRow,
    CountRow,
    Freshness,
    LetterCursor,
    LetterFilter,
    LetterGroup,
    LetterRow,
    MinuteRow,
    OffsetRow,
    TaskCursor,
    TaskFilter,
    TaskRow,
    TopicLag,
)
from taskmill.console.store.tables import (
    ATTEMPTS,
    COUNTER,
    COUNTS,
    LETTERS,
    MINUTES,
    OFFSETS,
    RESULTS,
    TASKS,
)
from taskmill.console.store.texts import stored, told
from taskmill.schemas.states import Status

EVERYTHING = TaskFilter()
ALL_LETTERS = LetterFilter()
_MINUTE_MS = 60_000


class Store:
    """An open store. Safe to share between threads; made by `open_store`.

    All methods raise Unreachable while the database is away.
    """

    def __init__(
        self, engine: Engine, identity: str, shown: str, claim: FileClaim | None = None
    ) -> None:
        self.engine = engine
        #: Another one once the store was deleted and made anew: numbers of changes mean others.
        self.uuid = identity
        #: Where it is, without a password.
        self.where = shown
        self._claim = claim

    @property
    def is_shared(self) -> bool:
        """Whether other consoles may use it at the same time: not a file, whoever holds it."""
        return self.engine.dialect.name != "sqlite"

    def close(self) -> None:
        """Close the connections and let the file go. Idempotent."""
        self.engine.dispose()
        if self._claim is not None:
            self._claim.release()

    # ---- tasks ----------------------------------------------------------------------------------

    def task(self, queue: str, task_id: str) -> TaskRow | None:
        """The whole of a task; None: it is not known."""
        t, r = TASKS.c, RESULTS.c
        asked = (
            select(
                *queries.task_columns(whole=True),
                *(r.result, r.content_type, r.error_type, r.error_message, r.fingerprint, r.stack),
            )
            .select_from(
                TASKS.outerjoin(
                    RESULTS,
                    and_(
                        *(r.queue == t.queue, r.id == t.id),
                        *(r.generation == t.generation, r.seq == t.seq),
                    ),
                )
            )
            .where(t.queue == queue, t.id == stored(task_id))
        )
        for found in self._rows(asked):
            return _whole(found)
        return None

    def tasks(
        self, chosen: TaskFilter = EVERYTHING, after: TaskCursor | None = None, limit: int = 100
    ) -> list[TaskRow]:
        """A page of tasks, newest first by (enqueued_at, queue, id); `limit` up to 1000."""
        return [_task(row) for row in self._rows(queries.tasks_page(chosen, after, limit))]

    def changes(self, after: int, limit: int = 500) -> list[TaskRow]:
        """Tasks changed after change number `after`, in that order; of each only its last change.

        Numbers become visible in their order: none will turn up below one that was seen.
        """
        t = TASKS.c
        page = select(*queries.task_columns(whole=False)).where(t.changed > after)
        return [
            _task(row)
            for row in self._rows(page.order_by(t.changed).limit(min(limit, queries.MOST)))
        ]

    def last_change(self) -> int:
        """The greatest change number given so far."""
        return int(self._rows(select(COUNTER.c.value))[0][0])

    def attempts(self, queue: str, task_id: str) -> list[AttemptRow]:
        """States of a task before its newest one, oldest first by (generation, seq)."""
        t = ATTEMPTS.c
        asked = select(*(t[name] for name in AttemptRow._fields)).where(
            t.queue == queue, t.id == stored(task_id)
        )
        return [
            AttemptRow._make(_texts(row))._replace(status=Status(row.status))
            for row in self._rows(asked.order_by(t.generation, t.seq))
        ]

    def counts(self) -> list[CountRow]:
        """How many tasks the store holds, by queue, name and status."""
        t = COUNTS.c
        asked = select(t.queue, t.name, t.status, t.count).where(t.count > 0)
        return [
            CountRow(queue, told(name), Status(status), number)
            for queue, name, status, number in self._rows(asked.order_by(t.queue, t.name, t.status))
        ]

    def minutes(self, since: int, until: int) -> list[MinuteRow]:
        """What ended in the minutes that begin from `since` up to, not including, `until`."""
        t = MINUTES.c
        asked = select(MINUTES).where(t.minute >= since, t.minute < until, t.count > 0)
        return [
            _minute(row) for row in self._rows(asked.order_by(t.minute, t.queue, t.name, t.outcome))
        ]

    def arrivals(self, since: int, until: int) -> list[ArrivalRow]:
        """Tasks enqueued in the minutes that begin from `since` up to, not including, `until`."""
        return [ArrivalRow._make(row) for row in self._rows(queries.arrivals(since, until))]

    # ---- letters --------------------------------------------------------------------------------

    def letters(
        self,
        chosen: LetterFilter = ALL_LETTERS,
        after: LetterCursor | None = None,
        limit: int = 100,
    ) -> list[LetterRow]:
        """A page of dead letters, newest first; `limit` up to 1000."""
        return [_letter(row) for row in self._rows(queries.letters_page(chosen, after, limit))]

    def letter(self, queue: str, partition: int, offset: int) -> LetterRow | None:
        """The letter at a place of the queue's DLQ; None: not known."""
        t = LETTERS.c
        asked = select(LETTERS).where(
            t.queue == queue, t.partition == partition, t.offset == offset, t.died_at.is_not(None)
        )
        # Of a DLQ that was made anew the older letters go a moment later.
        for row in self._rows(asked.order_by(desc(t.died_at)).limit(1)):
            return _letter(row)
        return None

    def letter_groups(
        self, chosen: LetterFilter = ALL_LETTERS, limit: int = 200
    ) -> list[LetterGroup]:
        """Letters by (queue, name, reason, fingerprint, error type), the most first."""
        return [
            LetterGroup._make(_texts(row))
            for row in self._rows(queries.letter_groups(chosen, limit))
        ]

    def letter_counts(self) -> dict[str, int]:
        """Letters that were not replayed, by queue; a queue without any is left out."""
        t = LETTERS.c
        asked = select(t.queue, func.count()).where(t.died_at.is_not(None), t.replayed_at.is_(None))
        return {str(queue): int(count) for queue, count in self._rows(asked.group_by(t.queue))}

    # ---- itself ---------------------------------------------------------------------------------

    def freshness(self) -> Freshness:
        """Up to when it knows all, and how far it is behind."""
        as_of, progress = self._rows(select(COUNTER.c.as_of, COUNTER.c.progress))[0]
        topics = tuple(
            TopicLag(topic, lag, known) for topic, (lag, known) in json.loads(progress).items()
        )
        return Freshness(as_of, sum(topic.lag for topic in topics), topics)

    def offsets(self) -> list[OffsetRow]:
        """Up to where each partition was projected."""
        t = OFFSETS.c
        asked = select(*(t[name] for name in OffsetRow._fields)).order_by(t.topic, t.partition)
        return [OffsetRow._make(row) for row in self._rows(asked)]

    def ping(self) -> None:
        """Raises Unreachable where the database does not answer."""
        self._rows(select(COUNTER.c.one))

    def _rows(self, statement: Executable) -> Sequence[Any]:
        with told_of(self.where), self.engine.connect() as connection:
            return connection.execute(statement).fetchall()


def _texts(row: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(told(value) if isinstance(value, str) else value for value in row)


def _task(row: Sequence[Any]) -> TaskRow:
    task = TaskRow._make(_texts(row))
    return task._replace(status=Status(task.status))


def _whole(row: Sequence[Any]) -> TaskRow:
    """A task with what lay on the results topic, where that is of the same (generation, seq)."""
    task = _task(row[: len(TaskRow._fields)])
    result, content_type, error_type, message, fingerprint, stack = _texts(
        row[len(TaskRow._fields) :]
    )
    if task.large is None:
        return task
    if result is not None:
        task = task._replace(result=result, content_type=content_type)
    if error_type is not None:
        task = task._replace(error_type=error_type, error_message=message, fingerprint=fingerprint)
    return task._replace(stack=stack)


def _letter(row: Row[Any]) -> LetterRow:
    named = row._mapping
    return LetterRow._make(_texts([named[name] for name in LetterRow._fields]))


def _minute(row: Row[Any]) -> MinuteRow:
    named = row._mapping
    return MinuteRow(
        queue=named["queue"],
        name=told(named["name"]),
        minute=named["minute"],
        outcome=Status(named["outcome"]),
        number=named["count"],
        runs=named["runs"],
        run_ms=named["run_ms"],
        waits=named["waits"],
        wait_ms=named["wait_ms"],
        run_buckets=tuple(named[f"run_{i}"] for i in range(BUCKETS)),
        wait_buckets=tuple(named[f"wait_{i}"] for i in range(BUCKETS)),
    )
