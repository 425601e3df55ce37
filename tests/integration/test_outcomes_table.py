"""The table of outcomes in PostgreSQL: who makes it, what is refused, and what leaves it."""

from __future__ import annotations

import threading

import pytest

from support.outcomes import Bench, Counted, a_record, bench, wait_for
from support.postgres import Postgres
from taskmill.runtime.errors import ConfigError
from taskmill.schemas.states import Status

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(60)]


def test_outcomes_older_than_the_window_are_deleted(postgres: Postgres, url: str) -> None:
    body = Counted()
    with bench(url, "async", body, dedup_window_ms=60_000, prefix="mine") as one:
        one.run(a_record("young"))
    with bench(url, "async", body, prefix="mine"):
        # Of another prefix, whose window this worker does not know; and more than one batch.
        postgres.query(
            "INSERT INTO taskmill_outcomes (prefix, queue, id, generation, seq, status, stored_at)"
            " SELECT p, 'default', n::text::bytea, 0, 0, 'succeeded', now() - interval '2 min'"
            " FROM generate_series(1, 2500) n, unnest(array['mine', 'theirs']) p",
            url,
        )
    count = "SELECT prefix, count(*) FROM taskmill_outcomes GROUP BY prefix ORDER BY prefix"
    with bench(url, "async", body, dedup_window_ms=60_000, prefix="mine"):
        wait_for(lambda: postgres.query(count, url) == [("mine", 1), ("theirs", 2500)])


def test_workers_that_start_together_make_the_table_once(postgres: Postgres, url: str) -> None:
    benches = [Bench(url, "async", Counted()) for _ in range(8)]
    threads = [
        threading.Thread(target=one.outcomes.start, args=(lambda: False,)) for one in benches
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for one in benches:
        one.close()
    assert postgres.query("SELECT count(*) FROM taskmill_outcomes", url) == [(0,)]


def test_a_role_that_may_not_make_the_table_is_told_the_sql(postgres: Postgres, url: str) -> None:
    postgres.query("DROP ROLE IF EXISTS weak")
    postgres.query("CREATE ROLE weak LOGIN")
    weak = url.replace("postgres@", "weak@")
    one = Bench(weak, "async", Counted())
    with pytest.raises(ConfigError, match=r"(?s)CREATE TABLE IF NOT EXISTS.*GRANT.*weak") as told:
        one.outcomes.start(lambda: False)
    # The table's owner runs what it was told: from then on it works.
    postgres.query(str(told.value).partition("let its owner run:\n")[2], url)
    postgres.query("GRANT INSERT ON effects TO weak", url)
    assert one.outcomes.start(lambda: False)
    assert one.run(a_record()).status is Status.SUCCEEDED
    one.close()
    postgres.query("REVOKE DELETE ON taskmill_outcomes FROM weak", url)
    other = Bench(weak, "async", Counted())
    with pytest.raises(ConfigError, match="DELETE"):
        other.outcomes.start(lambda: False)
    other.close()
    postgres.query("DROP OWNED BY weak", url)
    postgres.query("DROP ROLE weak")


@pytest.mark.parametrize("how", ["no right to it", "no such schema"])
def test_a_role_without_a_schema_is_told_the_sql_and_where(
    postgres: Postgres, url: str, how: str
) -> None:
    role = url.rpartition("/")[2]  # its own, as the database
    schema = "public" if how == "no right to it" else "shop"
    postgres.query(f"CREATE ROLE {role} LOGIN")
    postgres.query("REVOKE ALL ON SCHEMA public FROM PUBLIC", url)
    weak = f"{url.replace('postgres@', role + '@')}?options=-c%20search_path%3D{schema}"
    one = Bench(weak, "async", Counted())
    with pytest.raises(ConfigError) as told:
        one.outcomes.start(lambda: False)
    where, _, sql = str(told.value).partition(":\nCREATE")
    assert where == (
        "PostgreSQL at TASKMILL_OUTCOMES_URL: no schema has been selected to create in; let its "
        f'owner run, in a schema of search_path {schema} that "{role}" has USAGE of'
    )
    # Its owner does what it was told: from then on it works.
    postgres.query(
        f"CREATE SCHEMA IF NOT EXISTS {schema}; GRANT USAGE ON SCHEMA {schema} TO {role};"
        f"SET search_path = {schema}; CREATE{sql}",
        url,
    )
    assert one.outcomes.start(lambda: False)
    one.close()
    postgres.query(f"DROP OWNED BY {role}", url)
    postgres.query(f"DROP ROLE {role}")


@pytest.mark.parametrize("table", ["missing", "there"])
def test_a_standby_is_waited_on_until_it_is_the_primary(
    postgres: Postgres, url: str, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    if table == "there":
        with bench(url, "async", Counted()):
            pass
    name = url.rpartition("/")[2]
    # What a session on a standby gets too: read-only transactions, and the same SQLSTATE.
    postgres.query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    one = Bench(url, "async", Counted())
    started: list[bool] = []
    thread = threading.Thread(target=lambda: started.append(one.outcomes.start(lambda: False)))
    thread.start()
    wait_for(lambda: "read-only transaction; waiting for it" in caplog.text)
    assert started == []
    postgres.query(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    thread.join(20)
    assert started == [True]
    one.close()


def test_a_table_of_another_form_is_refused(postgres: Postgres, url: str) -> None:
    postgres.query("CREATE TABLE taskmill_outcomes (id text)", url)
    one = Bench(url, "async", Counted())
    with pytest.raises(ConfigError, match="cannot be used"):
        one.outcomes.start(lambda: False)
    one.close()


def test_a_url_that_is_none_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as told:
        Bench("postgresql://u:secret@h:port/db%", "async", Counted())
    assert "secret" not in str(told.value)
    assert "TASKMILL_OUTCOMES_URL" in str(told.value)
