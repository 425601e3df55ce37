"""Thousands of rows at once: the few statements in which the two databases differ.

SQLite is a call away, so a statement a row costs little. PostgreSQL is behind a socket, and takes
rows fastest by COPY: new ones straight into their table, changed ones by way of a temporary one.
"""

# ruff: noqa: S608  (names are those of tables.py, values are parameters)

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

Rows = Sequence[Sequence[Any]]


class Bulk(Protocol):
    """Of one database. Column names are those of tables.py."""

    def find(
        self, connection: Connection, table: Table, columns: Sequence[str], queue: str,
        ids: Sequence[str],
    ) -> Rows:  # fmt: skip
        """`columns` of the queue's rows that have one of these IDs, in any order."""
        ...

    def insert(
        self, connection: Connection, table: Table, columns: Sequence[str], rows: Rows
    ) -> None:
        """Rows that are known not to be there."""
        ...

    def update(
        self, connection: Connection, table: Table, columns: Sequence[str], rows: Rows
    ) -> None:
        """Rows that are there, by the first two of `columns`: queue and id."""
        ...

    def upsert(self, table: Table) -> Any:
        """SQLAlchemy's INSERT that has ON CONFLICT."""
        ...


class SqliteBulk:
    """SQLite's."""

    def find(
        self, connection: Connection, table: Table, columns: Sequence[str], queue: str,
        ids: Sequence[str],
    ) -> Rows:  # fmt: skip
        listed = ", ".join(f't."{name}"' for name in columns)
        # CROSS JOIN is SQLite's word for "in this order".
        text = (
            f"SELECT {listed} FROM json_each(?) AS k "
            f"CROSS JOIN {table.name} AS t ON t.queue = ? AND t.id = k.value"
        )
        return connection.exec_driver_sql(text, (json.dumps(ids), queue)).fetchall()

    def insert(
        self, connection: Connection, table: Table, columns: Sequence[str], rows: Rows
    ) -> None:
        marks = ", ".join("?" * len(columns))
        text = f"INSERT INTO {table.name} ({_listed(columns)}) VALUES ({marks})"
        connection.exec_driver_sql(text, [*rows])

    def update(
        self, connection: Connection, table: Table, columns: Sequence[str], rows: Rows
    ) -> None:
        sets = ", ".join(f'"{name}" = ?' for name in columns[2:])
        text = f"UPDATE {table.name} SET {sets} WHERE queue = ? AND id = ?"
        connection.exec_driver_sql(text, [(*row[2:], row[0], row[1]) for row in rows])

    def upsert(self, table: Table) -> Any:
        return sqlite.insert(table)


class PostgresBulk:
    """PostgreSQL's."""

    def find(
        self, connection: Connection, table: Table, columns: Sequence[str], queue: str,
        ids: Sequence[str],
    ) -> Rows:  # fmt: skip
        text = f"SELECT {_listed(columns)} FROM {table.name} WHERE queue = %s AND id = ANY(%s)"
        return connection.exec_driver_sql(text, (queue, [*ids])).fetchall()

    def insert(
        self, connection: Connection, table: Table, columns: Sequence[str], rows: Rows
    ) -> None:
        self._copy(connection, f"{table.name} ({_listed(columns)})", rows)

    def update(
        self, connection: Connection, table: Table, columns: Sequence[str], rows: Rows
    ) -> None:
        pending = f"pending_{table.name}_{len(columns)}"
        # Once a connection; empty again at the end of each transaction.
        connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {pending} ON COMMIT DELETE ROWS "
            f"AS SELECT {_listed(columns)} FROM {table.name} WITH NO DATA"
        )
        self._copy(connection, f"{pending} ({_listed(columns)})", rows)
        sets = ", ".join(f'"{name}" = p."{name}"' for name in columns[2:])
        connection.exec_driver_sql(
            f"UPDATE {table.name} AS t SET {sets} FROM {pending} AS p "
            "WHERE t.queue = p.queue AND t.id = p.id"
        )

    def upsert(self, table: Table) -> Any:
        return postgresql.insert(table)

    def _copy(self, connection: Connection, into: str, rows: Rows) -> None:
        text = f"COPY {into} FROM STDIN"
        driver: Any = connection.connection.driver_connection
        with _told(connection, text), driver.cursor() as cursor, cursor.copy(text) as copy:
            for row in rows:
                copy.write_row(row)


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


@contextmanager
def _told(connection: Connection, text: str) -> Iterator[None]:
    """What SQLAlchemy does for its own statements: the driver's errors as its own."""
    driver: Any = connection.dialect.dbapi
    try:
        yield
    except driver.Error as error:
        raise DBAPIError.instance(
            text, None, error, driver.Error, dialect=connection.dialect
        ) from error
