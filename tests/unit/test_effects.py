"""`effects="postgresql"` as it is declared, and the settings that belong to it."""

from __future__ import annotations

import pytest
from psycopg import OperationalError, errors

from taskmill import App, Context
from taskmill.consumer.outcomes_errors import (
    DatabaseFailed,
    is_conflict,
    is_of_database,
    is_worth_waiting,
)
from taskmill.consumer.outcomes_pool import connection_parameters
from taskmill.runtime.config import Settings, load_settings
from taskmill.runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"effects": "mysql"}, 'allowed: None, "postgresql"'),
        ({"effects": "postgresql", "isolate": "process"}, "another process"),
        ({"effects": "postgresql", "delivery": "at_most_once"}, "leave out the delivery"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    options: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=r"^task 'pay': [^\n]*$") as told:

        @App("shop").task(**options)  # type: ignore[call-overload]
        def pay(ctx: Context) -> None: ...

    assert message in str(told.value)


def test_a_task_without_a_context_could_not_use_it() -> None:
    with pytest.raises(ConfigError, match="annotated Context"):

        @App("shop").task(effects="postgresql")
        def pay() -> None: ...


def test_a_context_of_any_other_task_has_no_connection() -> None:
    with pytest.raises(AttributeError, match='effects="postgresql"'):
        _ = Context("a", "pay", "default").connection


def test_the_url_is_a_postgresql_one_and_masked() -> None:
    with pytest.raises(ConfigError, match=r"TASKMILL_OUTCOMES_URL.*begins with postgresql://"):
        load_settings(outcomes_url="mysql://u:secret@h/db")
    for url in (
        "postgresql://u:secret@h/db",
        "postgres://u:se/cr@et-secret@h/db",
        "postgresql://h/db?user=u&password=secret&sslpassword=secret",
    ):
        settings = Settings(outcomes_url=url)
        assert "secret" not in str(settings.masked()["outcomes_url"])
        assert "secret" not in repr(settings)
        assert "h/db" in repr(settings)


def test_what_a_url_says_goes_before_what_we_add() -> None:
    ours = connection_parameters("postgresql://h/db")
    assert ours["connect_timeout"] == 10
    theirs = connection_parameters(
        "postgresql://h/db?connect_timeout=3&options=-c%20tcp_keepalives_idle%3D99"
    )
    assert theirs["connect_timeout"] == "3"
    # The last one counts.
    assert theirs["options"].endswith("-c tcp_keepalives_idle=99")


def test_the_databases_failures_are_told_from_the_tasks() -> None:
    for kind in (
        errors.AdminShutdown,
        errors.ConnectionFailure,
        errors.DeadlockDetected,
        errors.DiskFull,
        errors.ReadOnlySqlTransaction,
        errors.SerializationFailure,
        errors.TooManyConnections,
    ):
        assert is_of_database(kind("x")), kind
    for kind in (errors.UniqueViolation, errors.QueryCanceled, errors.LockNotAvailable, ValueError):
        assert not is_of_database(kind("x")), kind
    # Another database's, or a broken connection: that is asked of the connection itself.
    assert not is_of_database(OperationalError("connection refused"))


def test_a_failure_counts_through_what_was_raised_from_it() -> None:
    error = ValueError("wrapped")
    error.__context__ = errors.SerializationFailure("x")
    assert is_of_database(error)
    failed = DatabaseFailed(error)
    assert not is_conflict(failed)
    failed.__cause__ = error
    assert is_conflict(failed)
    # A chain that bites its own tail ends too.
    one, two = ValueError(), ValueError()
    one.__cause__, two.__cause__ = two, one
    assert not is_of_database(one)


def test_what_is_worth_waiting_for_at_the_start_is_what_may_pass() -> None:
    for kind in (OperationalError, errors.ReadOnlySqlTransaction, errors.CannotConnectNow):
        assert is_worth_waiting(kind("x")), kind
    for kind in (errors.InsufficientPrivilege, errors.InvalidSchemaName, errors.UndefinedColumn):
        assert not is_worth_waiting(kind("x")), kind
