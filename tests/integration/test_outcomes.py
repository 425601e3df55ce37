"""Attempts inside PostgreSQL transactions: the rule, rollbacks, conflicts, and who waits for whom.

Each test runs for coroutines and for threads. Several benches on one database are several workers.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import psycopg
import pytest

from support.outcomes import Body, Counted, a_record, add, bench, effects, wait_for
from support.postgres import Postgres
from taskmill import Context, Retry
from taskmill.consumer.outcomes_pool import settled
from taskmill.consumer.record import Child, Lease, Outcome, Reason
from taskmill.schemas.states import Status

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(60)]


@pytest.fixture(params=["async", "thread"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def raising(error: BaseException) -> Body:
    async def body(ctx: Context) -> None:
        raise error

    return body


def test_what_was_done_is_said_again_and_not_done_again(
    postgres: Postgres, url: str, kind: str
) -> None:
    body = Counted()
    with bench(url, kind, body) as one:
        first = one.run(a_record())
    with bench(url, kind, body) as other:  # the worker that comes next
        again = other.run(a_record())
    assert (first.status, first.result, body.runs) == (Status.SUCCEEDED, b"1", 1)
    assert again._replace(record=first.record, duration=first.duration) == first
    assert effects(postgres, url) == [("a", 1)]


def test_a_failure_undoes_what_the_handler_did_and_is_kept_word_for_word(
    postgres: Postgres, url: str, kind: str
) -> None:
    body = Counted(raising(ValueError("bad \x00 byte, ünï")))
    with bench(url, kind, body) as one:
        first = one.run(a_record("ID with \x00 and ü"))
        again = one.run(a_record("ID with \x00 and ü"))
    assert (first.status, body.runs) == (Status.DEAD, 1)
    assert first.failure is not None
    assert first.failure.reason is Reason.FAILED
    assert first.failure.error.message == "bad \x00 byte, ünï"
    assert "raise error" in first.failure.stack
    assert again.failure == first.failure
    assert type(again.failure.reason) is Reason
    assert effects(postgres, url) == []


def test_a_result_that_cannot_be_kept_undoes_what_the_handler_did(
    postgres: Postgres, url: str, kind: str
) -> None:
    async def body(ctx: Context) -> Any:
        await add(ctx)
        return threading.Lock()

    with bench(url, kind, body) as one:
        outcome = one.run(a_record())
        assert one.run(a_record()).failure == outcome.failure
    assert outcome.failure is not None
    assert outcome.failure.reason is Reason.INVALID_RESULT
    assert effects(postgres, url) == []


def test_what_a_handler_did_before_its_time_was_over_is_undone(
    postgres: Postgres, url: str, kind: str
) -> None:
    async def body(ctx: Context) -> None:
        await add(ctx)
        if kind == "async":
            await asyncio.sleep(30)
        while True:
            pass

    with bench(url, kind, body) as one:
        first = one.run(a_record(timeout_ms=100))
        again = one.run(a_record(timeout_ms=100))
    assert first.failure is not None
    assert first.failure.reason is Reason.TIMED_OUT
    assert again.failure == first.failure
    assert effects(postgres, url) == []


def test_an_attempt_to_be_tried_again_is_undone_and_told_so_again(
    postgres: Postgres, url: str, kind: str
) -> None:
    async def body(ctx: Context) -> None:
        await add(ctx)
        if ctx.attempt < 3:
            raise ValueError(f"attempt {ctx.attempt}")

    with bench(url, kind, body, retry=Retry(base="3s")) as one:
        first = one.run(a_record())
        again = one.run(a_record())
        second = one.run(a_record(seq=1, attempt=2))
        late = one.run(a_record())
        third = one.run(a_record(seq=2, attempt=3))
    assert (first.status, first.retry_ms) == (Status.RETRYING, 3_000)
    assert (again.status, again.retry_ms, again.failure) == (first.status, 3_000, first.failure)
    assert (second.status, second.retry_ms) == (Status.RETRYING, 12_000)
    assert late.status is None, "a newer attempt of it has been here"
    assert third.status is Status.SUCCEEDED
    assert effects(postgres, url) == [("a", 1)]


def test_a_task_too_late_to_run_is_not_expired_where_it_had_run(
    postgres: Postgres, url: str, kind: str
) -> None:
    body = Counted()
    with bench(url, kind, body) as one:
        one.run(a_record("done"))
        assert one.run(a_record("done", expires_at=1)).status is Status.SUCCEEDED
        assert one.run(a_record("late", expires_at=1)).status is Status.EXPIRED
        # It stays so, whatever a clock says next time.
        assert one.run(a_record("late")).status is Status.EXPIRED
    assert effects(postgres, url) == [("done", 1)]


@pytest.mark.parametrize(
    ("stored", "comes", "runs"),
    [
        ((0, 0, "succeeded"), (1, 0), True),  # a replay
        ((0, 0, "retrying"), (0, 1), True),
        ((0, 3, "retrying"), (1, 0), True),
        ((0, 0, "running"), (0, 0), True),  # a COMMIT by hand, which kept no outcome
        ((0, 0, "succeeded"), (0, 0), "stored"),
        ((0, 0, "retrying"), (0, 0), "stored"),
        ((0, 2, "cancelled"), (0, 1), "stored"),
        ((0, 0, "dead"), (0, 1), "stored"),  # what is terminal blocks its generation
        ((1, 0, "succeeded"), (0, 0), "duplicate"),
        ((0, 2, "retrying"), (0, 1), "duplicate"),
    ],
)
def test_the_rule_is_that_of_the_idempotency_table(
    postgres: Postgres, url: str, stored: tuple[int, int, str], comes: tuple[int, int], runs: Any
) -> None:
    body = Counted()
    with bench(url, "async", body, prefix="shop") as one:
        with psycopg.connect(url) as connection:
            connection.execute(
                "INSERT INTO taskmill_outcomes (prefix, queue, id, generation, seq, status, result)"
                " VALUES ('shop', 'default', 'a', %s, %s, %s, 'old')",
                stored,
            )
        outcome = one.run(a_record("a", *comes))
    expected = {
        True: (Status.SUCCEEDED, b"1"),
        "stored": (Status(stored[2]), b"old"),
        "duplicate": (None, None),
    }[runs]
    assert (outcome.status, outcome.result) == expected
    assert body.runs == (runs is True)
    place = postgres.query("SELECT generation, seq FROM taskmill_outcomes", url)
    assert place == [comes if runs is True else stored[:2]]


def test_other_queues_and_prefixes_have_their_own_ids(url: str, kind: str) -> None:
    body = Counted()
    with bench(url, kind, body, prefix="one") as one, bench(url, kind, body, prefix="two") as two:
        one.run(a_record())
        two.run(a_record())
        one.run(a_record(lease=Lease(0, 1, "mail")))
    assert body.runs == 3


def test_children_and_times_are_kept_too(url: str) -> None:
    from taskmill.consumer.outcomes_table import TABLE, Statements, outcome_of, to_row

    record = a_record()
    children = (Child("mail", b"k\xff", b"\xc3\x01value"), Child("default", b"", b""))
    outcome = Outcome(record, Status.SUCCEEDED, b"1", None, 1000, 3500, 2.5, children, 99)
    key = ("p", "default", b"a")
    with bench(url, "async", Counted()), psycopg.connect(url) as connection:
        statements = Statements(TABLE)
        connection.execute(statements.take, (*key, 0, 0))
        connection.execute(statements.store, (*to_row(outcome), *key))
        row = connection.execute(statements.read, key).fetchone()
    assert row is not None
    assert outcome_of(record, row) == outcome


def test_a_twin_waits_for_the_first_and_says_what_it_says(
    postgres: Postgres, url: str, kind: str
) -> None:
    begun, go = threading.Event(), threading.Event()

    async def slow(ctx: Context) -> str:
        await add(ctx)
        begun.set()
        assert go.wait(20)
        return "first"

    never = Counted()
    with bench(url, kind, slow) as zombie, bench(url, kind, never) as heir:
        first = zombie.submit(a_record())
        assert begun.wait(20)
        second = heir.submit(a_record())
        # It waits for the row: PostgreSQL says so itself.
        _wait_until_blocked(postgres, url)
        # Longer than one try of it, so it asks again.
        assert threading.Event().wait(2.5) is False
        go.set()
        outcomes = [f.result(20) for f in (first, second)]
    assert [o.result for o in outcomes if o] == [b'"first"'] * 2
    assert never.runs == 0
    assert effects(postgres, url) == [("a", 1)]


def test_a_twin_runs_where_the_first_was_rolled_back(
    postgres: Postgres, url: str, kind: str
) -> None:
    begun, go = threading.Event(), threading.Event()
    ended = Lease(0, 1, "default")

    async def slow(ctx: Context) -> None:
        await add(ctx, 100)
        begun.set()
        assert go.wait(20)
        raise asyncio.CancelledError  # as the executor does where its lease has ended

    body = Counted()
    with bench(url, kind, slow) as zombie, bench(url, kind, body) as heir:
        first = zombie.submit(a_record(lease=ended))
        assert begun.wait(20)
        second = heir.submit(a_record())
        _wait_until_blocked(postgres, url)
        ended.held = False
        go.set()
        assert first.result(20) is None
        outcome = second.result(20)
    assert outcome is not None
    assert outcome.result == b"1"
    assert effects(postgres, url) == [("a", 1)]


def test_what_waits_for_a_row_gives_up_with_its_lease_or_its_worker(
    postgres: Postgres, url: str, kind: str
) -> None:
    lease = Lease(0, 1, "default")
    body = Counted()
    with bench(url, kind, body) as one, psycopg.connect(url) as holder:
        holder.execute(
            "INSERT INTO taskmill_outcomes (prefix, queue, id, generation, seq, status)"
            " VALUES ('taskmill', 'default', 'a', 0, 0, 'running')"
        )
        waiting = one.submit(a_record(lease=lease))
        _wait_until_blocked(postgres, url)
        lease.held = False
        assert waiting.result(20) is None
        waiting = one.submit(a_record())
        _wait_until_blocked(postgres, url)
        one.outcomes.stop()
        assert waiting.result(20) is None
    assert body.runs == 0


def test_serialization_failures_and_deadlocks_are_run_again(
    postgres: Postgres, url: str, kind: str
) -> None:
    postgres.query("INSERT INTO effects VALUES ('x', 0), ('y', 0)", url)
    both = threading.Barrier(2)
    tries = {"x": 0, "y": 0}

    async def crossed(ctx: Context) -> None:
        mine, other = ctx.id, "y" if ctx.id == "x" else "x"
        tries[mine] += 1
        update = "UPDATE effects SET n = n + 1 WHERE id = %s"
        await settled(ctx.connection.execute(update, (mine,)))
        if tries[mine] == 1:
            both.wait(20)
        await settled(ctx.connection.execute(update, (other,)))

    with bench(url, kind, crossed) as one, bench(url, kind, crossed) as two:
        waiting = [one.submit(a_record("x")), two.submit(a_record("y"))]
        outcomes = [f.result(30) for f in waiting]
    assert [o.status for o in outcomes if o] == [Status.SUCCEEDED] * 2
    assert sum(tries.values()) > 2
    assert effects(postgres, url) == [("x", 2), ("y", 2)]


def test_at_serializable_conflicts_with_a_twin_are_run_again_too(
    postgres: Postgres, url: str, kind: str
) -> None:
    url += "?options=-c%20default_transaction_isolation%3Dserializable"
    with bench(url, kind, Counted()) as one, bench(url, kind, Counted()) as two:
        ids = [f"t{n % 20}" for n in range(200)]
        waiting = [(one if n % 2 else two).submit(a_record(i)) for n, i in enumerate(sorted(ids))]
        outcomes = [f.result(50) for f in waiting]
    assert {o.status for o in outcomes if o} == {Status.SUCCEEDED}
    assert len(effects(postgres, url)) == 20


def test_a_constraint_that_fails_at_the_commit_is_the_tasks_failure(
    postgres: Postgres, url: str, kind: str
) -> None:
    postgres.query(
        "ALTER TABLE effects ADD CONSTRAINT once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED", url
    )
    postgres.query("INSERT INTO effects VALUES ('other', 1)", url)
    with bench(url, kind, add) as one:
        outcome = one.run(a_record())
        assert one.run(a_record()).failure == outcome.failure
        # And the connection is fit for the next task.
        assert one.run(a_record("b", generation=1)).status is Status.DEAD
    assert outcome.failure is not None
    assert outcome.failure.error.type == "psycopg.errors.UniqueViolation"
    assert effects(postgres, url) == [("other", 1)]


def test_a_connection_that_was_cut_costs_a_try_and_not_the_task(
    postgres: Postgres, url: str, kind: str
) -> None:
    tries = 0

    async def body(ctx: Context) -> str:
        nonlocal tries
        tries += 1
        await add(ctx)
        if tries == 1:
            postgres.query(f"SELECT pg_terminate_backend({ctx.connection.info.backend_pid})")
        await add(ctx, 2)
        return "done"

    with bench(url, kind, body) as one:
        assert one.run(a_record()).result == b'"done"'
    assert tries == 2
    assert effects(postgres, url) == [("a", 1), ("a", 2)]


def test_another_databases_failure_is_the_tasks_own(url: str, kind: str) -> None:
    async def body(ctx: Context) -> None:
        psycopg.connect("postgresql://nobody@127.0.0.1:1/none").close()

    with bench(url, kind, body) as one:
        outcome = one.run(a_record())
    assert outcome.status is Status.DEAD
    assert outcome.failure is not None
    assert outcome.failure.error.type == "psycopg.OperationalError"


def _wait_until_blocked(postgres: Postgres, url: str) -> None:
    name = url.rpartition("/")[2]
    waiting = (
        "SELECT count(*) FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND wait_event_type = 'Lock'"
    )
    wait_for(lambda: postgres.query(waiting, url) == [(1,)])
