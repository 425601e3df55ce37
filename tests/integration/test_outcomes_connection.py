"""The connection that a handler is lent: what it may do with it, and what it cannot break.

Each test runs for coroutines and for threads.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from support.outcomes import Bench, Counted, a_record, add, bench, effects
from support.postgres import Postgres
from taskmill import Context
from taskmill.consumer.outcomes_pool import entered, settled
from taskmill.consumer.record import Failure
from taskmill.schemas.states import Status

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.timeout(60),
    pytest.mark.parametrize("kind", ["async", "thread"]),
]


def test_the_connection_is_of_the_handlers_kind_and_only_lent(url: str, kind: str) -> None:
    kept: list[Context] = []

    async def body(ctx: Context) -> str:
        kept.append(ctx)
        return type(ctx.connection).__name__

    with bench(url, kind, body) as one:
        result = one.run(a_record()).result
    assert result == {"async": b'"AsyncConnection"', "thread": b'"Connection"'}[kind]
    with pytest.raises(AttributeError, match=r'effects="postgresql"'):
        _ = kept[0].connection


@pytest.mark.parametrize("how", ["COMMIT", "ROLLBACK", "commit()", "swallowed"])
def test_a_handler_that_ends_or_breaks_its_transaction_has_failed(
    postgres: Postgres, url: str, kind: str, how: str
) -> None:
    async def body(ctx: Context) -> None:
        if how == "commit()":
            await settled(ctx.connection.commit())
        elif how == "swallowed":
            try:
                await settled(ctx.connection.execute("SELECT 1/0"))
            except psycopg.errors.DivisionByZero:
                return
        else:
            await settled(ctx.connection.execute(how))

    with bench(url, kind, body) as one:
        outcome = one.run(a_record())
        assert one.run(a_record()).failure == outcome.failure
    assert outcome.status is Status.DEAD
    assert outcome.failure is not None
    words = "forbidden" if how == "commit()" else "ctx.connection.transaction()"
    assert words in outcome.failure.error.message


def test_a_savepoint_lets_a_handler_go_on_after_an_error(
    postgres: Postgres, url: str, kind: str
) -> None:
    async def body(ctx: Context) -> str:
        await add(ctx)
        try:
            async with entered(ctx.connection.transaction()):
                await add(ctx, 2)
                await settled(ctx.connection.execute("SELECT 1/0"))
        except psycopg.errors.DivisionByZero:
            return "went on"
        return "never"

    with bench(url, kind, body) as one:
        assert one.run(a_record()).result == b'"went on"'
    assert effects(postgres, url) == [("a", 1)]


def test_handlers_do_not_see_each_others_session_settings(url: str, kind: str) -> None:
    async def body(ctx: Context) -> Any:
        cursor = await settled(ctx.connection.execute("SHOW search_path"))
        (path,) = await settled(cursor.fetchone())
        await settled(ctx.connection.execute("SET search_path = elsewhere, pg_temp"))
        ctx.connection.row_factory = psycopg.rows.dict_row
        return path

    with bench(url, kind, body) as one:
        paths = {one.run(a_record(f"t{n}")).result for n in range(3)}
    assert paths == {b'"\\"$user\\", public"'}


def failure_kept(one: Bench, body: Counted) -> Failure:
    """The failure of a task that runs once, and whose next delivery says the same."""
    outcome = one.run(a_record())
    assert one.run(a_record()).failure == outcome.failure
    assert (outcome.status, body.runs) == (Status.DEAD, 1)
    assert outcome.failure is not None
    return outcome.failure


@pytest.mark.parametrize("how", ["with", "close()", "close() and more", "close() and return"])
def test_a_handler_that_closes_its_connection_has_failed_once(
    postgres: Postgres, url: str, kind: str, how: str
) -> None:
    async def close(ctx: Context) -> str:
        if how == "with":
            async with entered(ctx.connection):
                raise ValueError("its own\nand more")
        await settled(ctx.connection.close())
        if how == "close() and more":
            await add(ctx)
        return "done"

    body = Counted(close)
    with bench(url, kind, body) as one:
        failure = failure_kept(one, body)
        # The worker is fit for the next task.
        assert one.run(a_record("b")).status is Status.DEAD
    assert failure.error.type.endswith("ConnectionClosed")
    ended = {"with": "raised ValueError", "close() and more": "raised OperationalError"}
    assert (
        f"closed ctx.connection (close(), or a with block over it) and {ended.get(how, 'ret')}"
        in (failure.error.message)
    )
    assert "\n" not in failure.error.message
    assert ("ValueError: its own\nand more" in failure.stack) is (how == "with")
    assert effects(postgres, url) == []


def test_a_conflict_inside_a_block_that_closes_the_connection_is_run_again(
    postgres: Postgres, url: str, kind: str
) -> None:
    async def conflict_at_first(ctx: Context) -> str:
        if body.runs == 1:
            async with entered(ctx.connection):
                await settled(ctx.connection.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))
        return "done"

    body = Counted(conflict_at_first)
    with bench(url, kind, body) as one:
        assert one.run(a_record()).result == b'"done"'
    assert effects(postgres, url) == [("a", 2)]


@pytest.mark.parametrize("amid", ["a block", "a COPY"])
def test_a_connection_that_cannot_be_rolled_back_costs_the_task_and_not_the_worker(
    postgres: Postgres, url: str, kind: str, amid: str
) -> None:
    left: list[Any] = []

    async def leave(ctx: Context) -> None:
        if amid == "a block":
            left.append(ctx.connection.transaction())
        else:
            left.append(ctx.connection.cursor().copy("COPY effects FROM STDIN"))
        enter = "__aenter__" if kind == "async" else "__enter__"
        await settled(getattr(left[0], enter)())

    body = Counted(leave)
    with bench(url, kind, body) as one:
        failure_kept(one, body)
    assert effects(postgres, url) == []


def test_handlers_do_not_have_each_others_role(postgres: Postgres, url: str, kind: str) -> None:
    role = url.rpartition("/")[2]  # its own, as the database
    postgres.query(f"CREATE ROLE {role} SUPERUSER")

    async def body(ctx: Context) -> list[Any]:
        cursor = await settled(ctx.connection.execute("SELECT session_user, current_user"))
        users = await settled(cursor.fetchone())
        what = "ROLE" if ctx.id == "first" else "SESSION AUTHORIZATION"
        await settled(ctx.connection.execute(f"SET {what} {role}"))
        return list(users)

    with bench(url, kind, body) as one:
        for id in ("first", "second", "third"):
            assert one.run(a_record(id)).result == b'["postgres","postgres"]'
    # Where the URL says which role, it is that one again.
    with bench(f"{url}?options=-c%20role%3D{role}", kind, body) as one:
        for id in ("fourth", "fifth"):
            assert one.run(a_record(id)).result == f'["postgres","{role}"]'.encode()
    postgres.query(f"DROP ROLE {role}")


def test_a_role_that_may_not_write_the_outcome_fails_its_task_only(
    postgres: Postgres, url: str, kind: str
) -> None:
    role = url.rpartition("/")[2]
    postgres.query(f"CREATE ROLE {role}")

    async def take(ctx: Context) -> None:
        await add(ctx)
        await settled(ctx.connection.execute(f"SET ROLE {role}"))

    with bench(url, kind, take) as one:
        for n in range(20):  # what psycopg raises differs with how the answers come in
            failure = one.run(a_record(f"t{n}")).failure
            assert failure is not None
            assert failure.error.type == "psycopg.errors.InsufficientPrivilege"
    assert effects(postgres, url) == []
    postgres.query(f"DROP ROLE {role}")
