"""The databases' errors in our own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from taskmill.runtime.errors import TaskmillError, Unreachable

#: SQLSTATE classes in which the same statement may succeed later: connection, resources, an
#: operator's intervention, a conflict between transactions; and a standby's "read only".
_PASSING = ("08", "53", "57", "40", "55", "25006")


#: Classes in which it is the values that are wrong, or too large for an index.
_REFUSED = ("22", "54")


class Refused(TaskmillError):
    """Values that the database does not take, however often they are given."""


def first_line(error: BaseException) -> str:
    """The first line of what a database said."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def is_passing(error: SQLAlchemyError) -> bool:
    """Whether it is the store that is away, or full, or busy; not what it was given."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    state = getattr(error.orig, "sqlstate", None)
    if state:
        return bool(state.startswith(_PASSING))
    return isinstance(error, OperationalError)


def _is_refused(error: SQLAlchemyError) -> bool:
    state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    return isinstance(error, DataError) or state.startswith(_REFUSED)


@contextmanager
def told(where: str) -> Iterator[None]:
    """Raises Unreachable where the store is away, Refused for values, else TaskmillError."""
    try:
        yield
    except OverflowError as error:
        # Of SQLite's driver, before the database sees the number.
        raise Refused(f"the store at {where}: {first_line(error)}") from error
    except SQLAlchemyError as error:
        said = f"the store at {where}: {first_line(error)}"
        if is_passing(error):
            raise Unreachable(said) from error
        raise (Refused if _is_refused(error) else TaskmillError)(said) from error
