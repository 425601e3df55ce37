"""The table `taskmill_outcomes`: its columns, how an Outcome lies in it, and how old ones leave.

One row an ID, the newest (generation, seq) of it. A row is taken at the start of an attempt's
transaction and holds the whole outcome at its end, so whoever comes later can say the same again.
IDs, results and texts are `bytea`: an ID may be any UTF-8, NUL included, which `text` refuses.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from taskmill.consumer.outcomes_errors import first_line, is_worth_waiting
from taskmill.consumer.record import Child, Failure, Outcome, Reason, Record
from taskmill.consumer.table import Entry
from taskmill.runtime.errors import ConfigError
from taskmill.schemas.models import TaskError
from taskmill.schemas.states import Status

TABLE = "taskmill_outcomes"

#: fillfactor: a row is inserted and completed in one transaction; with room on its page the second
#: version needs no new index entries.
CREATE = f"""\
CREATE TABLE IF NOT EXISTS {TABLE} (
    prefix text NOT NULL,
    queue text NOT NULL,
    id bytea NOT NULL,
    generation integer NOT NULL,
    seq integer NOT NULL,
    status text NOT NULL,
    result bytea,
    failure bytea,
    children bytea,
    started_at bigint,
    finished_at bigint,
    expires_at bigint,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (prefix, queue, id)
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS {TABLE}_stored_at ON {TABLE} (stored_at);"""

_COLUMNS = "result, failure, children, started_at, finished_at, expires_at"

#: SKIP LOCKED: what somebody is just running again is not old any more.
_FORGET = """\
DELETE FROM {} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {}
WHERE prefix = %s AND stored_at < now() - %s * interval '1 ms' LIMIT %s FOR UPDATE SKIP LOCKED))"""
_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))"


class Statements:
    """The statements on `table`, which is named with its schema: a handler may set another one."""

    def __init__(self, table: str) -> None:
        def on_table(text: str) -> str:
            return text.replace("{}", table.replace("%", "%%"))

        #: Waits for a twin's transaction; nothing is inserted where that one has committed.
        self.take = on_table(
            "INSERT INTO {} (prefix, queue, id, generation, seq, status) "
            "VALUES (%s, %s, %s, %s, %s, 'running') ON CONFLICT DO NOTHING RETURNING true"
        )
        self.read = on_table(
            f"SELECT generation, seq, status, {_COLUMNS} FROM {{}} "  # noqa: S608
            "WHERE prefix = %s AND queue = %s AND id = %s FOR UPDATE"
        )
        self.store = on_table(
            "UPDATE {} SET generation = %s, seq = %s, status = %s, "
            "result = %s, failure = %s, children = %s, started_at = %s, finished_at = %s, "
            "expires_at = %s, stored_at = now() WHERE prefix = %s AND queue = %s AND id = %s"
        )
        self.forget = on_table(_FORGET)


def to_row(outcome: Outcome) -> tuple[Any, ...]:
    """The values of `store` up to its WHERE."""
    record, failure = outcome.record, outcome.failure
    assert outcome.status is not None, "an outcome that leaves no mark is not stored"
    return (
        record.generation,
        record.seq,
        outcome.status.value,
        outcome.result,
        None if failure is None else _dump(_parts(failure, outcome)),
        _dump([[c.queue, _text(c.key), _text(c.value)] for c in outcome.children])
        if outcome.children
        else None,
        outcome.started_at,
        outcome.finished_at,
        outcome.expires_at,
    )


def entry_of(row: tuple[Any, ...]) -> Entry:
    """The place and status of a row of `read`, for the rule."""
    return Entry(row[0], row[1], Status(row[2]), 0)


def outcome_of(record: Record, row: tuple[Any, ...]) -> Outcome:
    """The outcome that a row of `read` holds, as that of `record`."""
    _, _, status, result, failure, children, started_at, finished_at, expires_at = row
    duration = 0.0
    if started_at is not None and finished_at is not None:
        duration = (finished_at - started_at) / 1000
    why, waits = (None, ()) if failure is None else _failure(json.loads(failure))
    retry_ms, due_at = (*waits, None, None)[:2]
    return Outcome(
        record,
        Status(status),
        result,
        why,
        started_at,
        finished_at,
        duration,
        tuple(Child(q, b64decode(k), b64decode(v)) for q, k, v in json.loads(children or b"[]")),
        expires_at,
        retry_ms,
        due_at=due_at,
    )


def _parts(failure: Failure, outcome: Outcome) -> list[str | int]:
    """As `_failure` reads it; where it is tried again, after how long, and when, if exactly."""
    parts: list[str | int] = [failure.reason, *failure.error, failure.stack]
    return parts + [one for one in (outcome.retry_ms, outcome.due_at) if one is not None]


def _failure(parts: list[Any]) -> tuple[Failure, tuple[int, ...]]:
    reason, kind, message, fingerprint, stack, *waits = parts
    return Failure(Reason(reason), TaskError(kind, message, fingerprint), stack), tuple(waits)


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _text(value: bytes) -> str:
    return b64encode(value).decode()


def create_if_missing(connection: psycopg.Connection[Any]) -> Statements:
    """Make the table unless it is there, and try its statements, without effect.

    Raises ConfigError, with the SQL, where that is not allowed, and where the table there is not
    of this form; psycopg.Error where it may be allowed later. `connection` commits by itself.
    """
    cursor = connection.cursor(row_factory=tuple_row)
    try:
        with connection.transaction():
            # Two workers that start together: IF NOT EXISTS alone may fail on the catalogue.
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (TABLE,))
            if _name_of_table(cursor) is None:
                cursor.execute(CREATE)
            name = _name_of_table(cursor)
            assert name is not None, "it is there now"
    except psycopg.Error as error:
        if is_worth_waiting(error):
            raise
        raise ConfigError(_how_to_make_it(cursor, error)) from None
    statements = Statements(name)
    try:
        with connection.transaction(force_rollback=True):
            nothing = ("", "", b"")
            cursor.execute(statements.take, (*nothing, 0, 0))
            cursor.execute(statements.read, nothing)
            cursor.execute(statements.store, (0, 0, "running", *[None] * 6, *nothing))
            cursor.execute(statements.forget, ("", 0, 0))
    except psycopg.Error as error:
        if is_worth_waiting(error):
            raise
        raise ConfigError(
            f"table {name} at TASKMILL_OUTCOMES_URL cannot be used: {first_line(error)}; wanted "
            f"are SELECT, INSERT, UPDATE and DELETE on a table made by:\n{CREATE}"
        ) from None
    return statements


def _how_to_make_it(cursor: psycopg.Cursor[Any], error: psycopg.Error) -> str:
    user = f'"{cursor.connection.info.user}"'
    where = ""
    if isinstance(error, psycopg.errors.InvalidSchemaName):
        row = cursor.execute("SHOW search_path").fetchone()
        where = f", in a schema of search_path {row and row[0]} that {user} has USAGE of"
    return (
        f"PostgreSQL at TASKMILL_OUTCOMES_URL: {first_line(error)}; let its owner run{where}:\n"
        f"{CREATE}\nGRANT SELECT, INSERT, UPDATE, DELETE ON {TABLE} TO {user};"
    )


def _name_of_table(cursor: psycopg.Cursor[Any]) -> str | None:
    row = cursor.execute(
        "SELECT quote_ident(nspname) || '.' || quote_ident(relname) FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = to_regclass(%s)",
        (TABLE,),
    ).fetchone()
    return row[0] if row is not None else None


def forget(
    connection: psycopg.Connection[Any],
    statements: Statements,
    prefix: str,
    window_ms: int,
    limit: int,
) -> int:
    """Delete up to `limit` outcomes of `prefix` older than `window_ms`; returns how many.

    None of them where another worker is at it.
    """
    with connection.transaction():
        cursor = connection.cursor(row_factory=tuple_row)
        if cursor.execute(_LOCK, (f"{TABLE} {prefix}",)).fetchone() != (True,):
            return 0
        return cursor.execute(statements.forget, (prefix, window_ms, limit)).rowcount
