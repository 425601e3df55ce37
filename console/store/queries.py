"""The statements of the read side: pages that stay put while rows come and go."""

from __future__ import annotations

from string import ascii_lowercase, ascii_uppercase
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    desc,
    func,
    literal_column,
    null,
    or_,
    select,
    tuple_,
)

from taskmill.console.store.rows import (
    LetterCursor,
    LetterFilter,
    TaskCursor,
    TaskFilter,
    TaskRow,
)
from taskmill.console.store.tables import LETTERS, NOT_SUCCEEDED, TASKS
from taskmill.console.store.texts import stored
from taskmill.schemas.states import Status

_MINUTE_MS = 60_000
#: Rows of a page at the most.
MOST = 1000
#: As both databases make it of what they hold: letters of ASCII alone have a lower case there.
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
#: What a list does not read: it may be large.
_HEAVY = frozenset({"result", "payload", "stack"})


def task_columns(*, whole: bool) -> list[ColumnElement[Any]]:
    """The columns of a TaskRow; but for `whole` without what is large."""
    return [
        null().label(name) if name == "stack" or (not whole and name in _HEAVY) else TASKS.c[name]
        for name in TaskRow._fields
    ]


def tasks_page(chosen: TaskFilter, after: TaskCursor | None, limit: int) -> Select[Any]:
    """Newest first, by (enqueued_at, queue, id)."""
    t = TASKS.c
    wanted: list[ColumnElement[bool]] = []
    if chosen.statuses:
        wanted.append(t.status.in_([str(status) for status in chosen.statuses]))
        if Status.SUCCEEDED not in chosen.statuses:
            # In these words: the partial index is for queries that say so.
            wanted.append(literal_column(f"({NOT_SUCCEEDED})"))
    if chosen.names:
        wanted.append(t.name.in_([stored(name) for name in chosen.names]))
    if chosen.queues:
        wanted.append(t.queue.in_(chosen.queues))
    if chosen.since is not None:
        wanted.append(t.enqueued_at >= chosen.since)
    if chosen.until is not None:
        wanted.append(t.enqueued_at < chosen.until)
    if chosen.parent is not None:
        wanted.append(t.parent_id == stored(chosen.parent))
    if chosen.id_prefix:
        wanted.append(begins(t.id, stored(chosen.id_prefix)))
    order = (t.enqueued_at, t.queue, t.id)
    if after is not None:
        wanted.append(
            tuple_(*order) < tuple_(after.enqueued_at, stored(after.queue), stored(after.id))
        )
    page = select(*task_columns(whole=False)).where(and_(True, *wanted))
    return page.order_by(*map(desc, order)).limit(min(limit, MOST))


def begins(column: ColumnElement[str], prefix: str) -> ColumnElement[bool]:
    """Whether it begins so, in the order of bytes, which an index knows."""
    end = _behind(prefix)
    return column >= prefix if end is None else and_(column >= prefix, column < end)


def _behind(prefix: str) -> str | None:
    """The least text behind all that begin with `prefix`; None: there is none."""
    for at in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[at]) + 1
        if 0xD800 <= code <= 0xDFFF:  # no character, in no text
            code = 0xE000
        if code <= 0x10FFFF:
            return prefix[:at] + chr(code)
    return None


def _letters(chosen: LetterFilter) -> list[ColumnElement[bool]]:
    t = LETTERS.c
    wanted: list[ColumnElement[bool]] = [t.died_at.is_not(None)]
    if not chosen.replayed_too:
        wanted.append(t.replayed_at.is_(None))
    if chosen.queues:
        wanted.append(t.queue.in_(chosen.queues))
    if chosen.names:
        wanted.append(t.name.in_([stored(name) for name in chosen.names]))
    if chosen.reasons:
        wanted.append(t.reason.in_([stored(reason) for reason in chosen.reasons]))
    if chosen.fingerprints:
        wanted.append(or_(*(begins(t.fingerprint, stored(one)) for one in chosen.fingerprints)))
    if chosen.id is not None:
        wanted.append(t.id == stored(chosen.id))
    if chosen.since is not None:
        wanted.append(t.died_at >= chosen.since)
    if chosen.until is not None:
        wanted.append(t.died_at < chosen.until)
    if chosen.error:
        said = func.lower(t.error_type + ": " + t.error_message)
        part = stored(chosen.error).translate(_LOWER).replace("\\", "\\\\")
        part = part.replace("%", "\\%").replace("_", "\\_")
        wanted.append(said.like(f"%{part}%", escape="\\"))
    return wanted


def arrivals(since: int, until: int) -> Select[Any]:
    """(queue, minute, count) of tasks by when they were enqueued; read from an index alone."""
    t = TASKS.c
    minute = (t.enqueued_at - t.enqueued_at % _MINUTE_MS).label("minute")
    chosen = select(t.queue, minute, func.count()).where(
        t.enqueued_at >= since, t.enqueued_at < until
    )
    return chosen.group_by(t.queue, minute)


def letters_page(chosen: LetterFilter, after: LetterCursor | None, limit: int) -> Select[Any]:
    """Newest first, by (died_at, queue, partition, offset)."""
    t = LETTERS.c
    order = (t.died_at, t.queue, t.partition, t.offset)
    wanted = _letters(chosen)
    if after is not None:
        place = after._replace(queue=stored(after.queue))
        wanted.append(tuple_(*order) < tuple_(*place))
    page = select(LETTERS).where(and_(*wanted))
    return page.order_by(*map(desc, order)).limit(min(limit, MOST))


def letter_groups(chosen: LetterFilter, limit: int) -> Select[Any]:
    """Groups by what failed, the largest first; each with its newest letter."""
    t = LETTERS.c
    by = (t.queue, t.name, t.reason, t.fingerprint, t.error_type)
    newest = func.row_number().over(
        partition_by=by, order_by=(desc(t.died_at), desc(t.partition), desc(t.offset))
    )
    marked = select(*by, t.died_at, t.id, t.error_message, newest.label("number"))
    inner = marked.where(and_(*_letters(chosen))).subquery()
    i = inner.c
    groups = select(
        i.queue, i.name, i.reason, i.fingerprint, i.error_type,
        func.count(), func.min(i.died_at), func.max(i.died_at),
        func.max(case((i.number == 1, i.id))), func.max(case((i.number == 1, i.error_message))),
    )  # fmt: skip
    grouped = groups.group_by(i.queue, i.name, i.reason, i.fingerprint, i.error_type)
    ordered = grouped.order_by(desc(func.count()), desc(func.max(i.died_at)), i.fingerprint)
    return ordered.limit(min(limit, MOST))
