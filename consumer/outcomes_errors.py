"""Whose failure an error inside a PostgreSQL transaction is: the database's, or the task's."""

from __future__ import annotations

import psycopg

#: Failures of the database, not of what a handler asks of it: connection lost, out of resources,
#: shutting down, I/O error; serialization failure, deadlock, a standby taken for the primary.
_CLASSES = ("08", "53", "57P", "58")
_CODES = frozenset({"40001", "40P01", "25006"})


class BadTransaction(Exception):
    """The handler returned, and its transaction was failed or over."""

    def __init__(self, task: str) -> None:
        super().__init__(
            f"task {task!r} returned with its PostgreSQL transaction failed or ended: an error "
            "that is caught needs a savepoint, ctx.connection.transaction(); COMMIT and ROLLBACK "
            "are the worker's"
        )


class ConnectionClosed(Exception):
    """The handler closed its connection, and so undid what it had done there.

    `error` is what it raised besides; it stays the cause.
    """

    def __init__(self, task: str, error: BaseException | None = None) -> None:
        ended = "returned" if error is None else f"raised {type(error).__name__}"
        super().__init__(
            f"task {task!r} closed ctx.connection (close(), or a with block over it) and {ended}: "
            "nothing it did there is kept; closing it is the worker's, a handler may open and "
            "close ctx.connection.transaction()"
        )
        if error is not None:
            self.__cause__ = error
            self.__traceback__ = error.__traceback__


class DatabaseFailed(Exception):
    """The handler met a failure of the database itself."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))


def is_of_database(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, is the database's failure and may pass."""
    state = _state(error)
    return state in _CODES or state.startswith(_CLASSES)


def is_worth_waiting(error: BaseException) -> bool:
    """Whether `error`, of a connection that ran nobody's handler, may pass by itself."""
    return isinstance(error, psycopg.OperationalError) or is_of_database(error)


def is_conflict(error: BaseException) -> bool:
    """Whether transactions got into each other's way, as they do where all is well."""
    return _state(error) in ("40001", "40P01")


def _state(error: BaseException) -> str:
    """The SQLSTATE of `error`, or of the first error of psycopg's that led to it."""
    seen: BaseException | None = error
    for _ in range(20):  # chains may be circular
        if seen is None:
            break
        if isinstance(seen, psycopg.Error) and seen.sqlstate:
            return seen.sqlstate
        seen = seen.__cause__ or seen.__context__
    return ""


def first_line(error: BaseException) -> str:
    """What PostgreSQL said, without its details: they may quote a row's values."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
