"""One contract, both databases: what is written is found, page by page, and by one writer."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from support.postgres import Postgres
from taskmill.console.projection.batch import Batch, LetterFact, Place, ReplayFact
from taskmill.console.projection.fold import RANKS, Given, Large, State
from taskmill.console.projection.writer import LeaseLost, Progress, Writer
from taskmill.console.store.open import open_store
from taskmill.console.store.rows import (
    LetterCursor,
    LetterFilter,
    OffsetRow,
    TaskCursor,
    TaskFilter,
    TopicLag,
)
from taskmill.console.store.store import Store
from taskmill.console.store.tables import METADATA
from taskmill.console.store.texts import stored
from taskmill.runtime.errors import ConfigError, Unreachable
from taskmill.schemas.states import Status

T = 1_767_323_040_000


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/console.db"
    return str(request.getfixturevalue("database"))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    one = open_store(url)
    yield one
    one.close()


@pytest.fixture
def writer(store: Store) -> Writer:
    one = Writer(store, "w")
    assert one.take(one.look())
    return one


def state(status: Status = Status.SUCCEEDED, **fields: object) -> State:
    blank = State._make([None] * len(State._fields))._replace(
        generation=0, seq=0, attempt=1, name="add", enqueued_at=T, partition=0, offset=0,
        updated_at=T + 9, record_offset=0,
    )  # fmt: skip
    one = blank._replace(status=status.value, rank=RANKS[status.value])
    return one._replace(**fields)  # type: ignore[arg-type]


def put(writer: Writer, *states: tuple[str, State], queue: str = "q") -> None:
    batch = Batch()
    for task_id, one in states:
        batch.add_state((queue, stored(task_id)), one)
    writer.write(batch, None)


def ids(store: Store, **chosen: object) -> list[str]:
    return [row.id for row in store.tasks(TaskFilter(**chosen))]  # type: ignore[arg-type]


def test_pages_stay_put_while_rows_come_and_go(store: Store, writer: Writer) -> None:
    # Equal times, so that all three of the cursor's columns decide; IDs in the order of bytes.
    names = ["Z", "a", "a\0b", "aa", "b", "é", "\U0001f600", "ﬀ"]
    put(writer, *((one, state()) for one in names))
    put(writer, ("x", state()), queue="p")
    put(writer, ("new", state(enqueued_at=T + 1)), ("old", state(enqueued_at=T - 1)))
    listed = [("q", "new"), *(("q", n) for n in sorted(names, key=str.encode)[::-1])]
    listed += [("p", "x"), ("q", "old")]
    found, after = [], None
    while page := store.tasks(after=after, limit=2):
        found += [(row.queue, row.id) for row in page]
        after = TaskCursor(page[-1].enqueued_at, page[-1].queue, page[-1].id)
        put(writer, (f"later{len(found)}", state(enqueued_at=T + 5)))
    assert found == listed


def test_filters_take_what_they_say(store: Store, writer: Writer) -> None:
    put(
        writer,
        ("ok", state()),
        ("bad", state(Status.DEAD, name="sub", enqueued_at=T + 1)),
        ("50%_off", state(Status.RETRYING, enqueued_at=T + 2)),
        ("50x", state(Status.QUEUED, enqueued_at=T + 3)),
    )
    put(writer, ("other", state(Status.DEAD)), queue="p")
    assert ids(store, queues=("q",)) == ["50x", "50%_off", "bad", "ok"]
    assert ids(store, statuses=(Status.DEAD,)) == ["bad", "other"]
    assert ids(store, statuses=(Status.DEAD, Status.SUCCEEDED), queues=("q",)) == ["bad", "ok"]
    assert ids(store, names=("sub",)) == ["bad"]
    assert ids(store, since=T + 1, until=T + 3) == ["50%_off", "bad"]
    assert ids(store, id_prefix="50") == ["50x", "50%_off"]
    assert ids(store, id_prefix="50%") == ["50%_off"]
    assert ids(store, statuses=(Status.CANCELLED,)) == []


def test_a_task_has_its_arguments_its_large_result_and_its_children(
    store: Store, writer: Writer
) -> None:
    batch = Batch()
    given = Given(0, 0, T, 3, b'{"a":1}', "application/json", 7, None, stored("par\0ent"))
    batch.add_task(("q", "t"), state(Status.QUEUED), given)
    batch.add_large(("q", "t"), Large(0, 0, T, 5, b"big", "text/x", None, None, None, None))
    writer.write(batch, None)
    put(writer, ("t", state(large="results")))
    task = store.task("q", "t")
    assert task is not None
    assert (task.payload, task.payload_bytes, task.result) == (b'{"a":1}', 7, b"big")
    assert (task.content_type, task.parent_id) == ("text/x", "par\0ent")
    assert ids(store, parent="par\0ent") == ["t"]
    assert store.tasks()[0].payload is None
    # Of an older hand-over, it is not the result of the new one.
    put(writer, ("t", state(Status.SUCCEEDED, generation=1, result=b"new")))
    task = store.task("q", "t")
    assert task is not None
    assert task.result == b"new"
    assert [a.generation for a in store.attempts("q", "t")] == [0]
    assert store.task("q", "nobody") is None
    assert store.task("p", "t") is None


def test_changes_come_in_their_order_and_only_the_last_of_each(
    store: Store, writer: Writer
) -> None:
    put(writer, ("a", state(Status.RUNNING)), ("b", state()))
    first = store.changes(0)
    assert [row.id for row in first] == ["a", "b"]
    put(writer, ("a", state()))
    again = store.changes(first[-1].changed)
    assert [(row.id, row.status) for row in again] == [("a", Status.SUCCEEDED)]
    put(writer, ("a", state()))  # says nothing new
    assert store.changes(again[-1].changed) == []
    assert store.last_change() >= again[-1].changed
    counted = {(row.name, row.status): row.number for row in store.counts()}
    assert counted == {("add", Status.SUCCEEDED): 2}


def letter(writer: Writer, p: int, offset: int, dlq: str = "dlq", **fields: object) -> None:
    batch = Batch()
    one = LetterFact("id", "add", "failed", "ValueError", "50% No", "f00", T, 1, 0)
    batch.letters["q", dlq, p, offset] = one._replace(**fields)  # type: ignore[arg-type]
    writer.write(batch, None)


def test_letters_are_listed_grouped_and_forgotten(store: Store, writer: Writer) -> None:
    letter(writer, 0, 1)
    letter(writer, 0, 2, died_at=T + 1, error_message="last", id=None, name=None)
    letter(writer, 1, 1, died_at=T + 1)
    batch = Batch()
    batch.add_replay(("q", "dlq", 0, 1), ReplayFact(T + 5, "r1"))
    batch.add_replay(("q", "dlq", 2, 7), ReplayFact(T + 5, "r1"))  # before the letter itself
    batch.add_replay(("q", "gone", 0, 2), ReplayFact(T + 5, "r0"))  # of a DLQ of before
    writer.write(batch, None)
    letter(writer, 2, 7)

    def places(**chosen: object) -> list[tuple[int, int]]:
        return [(x.partition, x.offset) for x in store.letters(LetterFilter(**chosen))]  # type: ignore[arg-type]

    assert places() == [(1, 1), (0, 2)]
    assert places(replayed_too=True) == [(1, 1), (0, 2), (2, 7), (0, 1)]
    assert places(error="error: 50% n") == [(1, 1)]
    assert places(fingerprints=("f0",), names=("add",)) == [(1, 1)]
    assert places(fingerprints=("f1",)) == []
    page = store.letters(limit=1)[0]
    after = LetterCursor(page.died_at, page.queue, page.partition, page.offset)
    assert [x.offset for x in store.letters(after=after)] == [2]
    groups = store.letter_groups(LetterFilter(replayed_too=True))
    assert [(g.name, g.number, g.example_id) for g in groups] == [("add", 3, "id"), (None, 1, None)]
    assert groups[1].example_message == "last"
    assert store.letter_counts() == {"q": 2}
    replayed = store.letter("q", 2, 7)
    assert replayed is not None
    assert replayed.replay == "r1"
    writer.sweep_letters("q", "dlq", {0: 2, 1: 0}, T)
    assert places(replayed_too=True) == [(1, 1), (0, 2), (2, 7)]
    letter(writer, 0, 0, dlq="anew")
    writer.sweep_letters("q", "anew", {}, T + 6)
    assert places(replayed_too=True) == [(0, 0)]
    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM letters")).scalar() == 1


def test_what_ended_before_the_window_is_forgotten_a_piece_at_a_time(
    store: Store, writer: Writer
) -> None:
    old = {"enqueued_at": T - 9, "updated_at": T - 5, "finished_at": T - 5, "started_at": T - 6}
    put(writer, *((f"old{n}", state(**old)) for n in range(5)))
    put(writer, ("open", state(Status.RETRYING, **old)), ("new", state()))
    put(writer, ("old1", state(Status.DEAD, **{**old, "seq": 1, "finished_at": T + 9})))
    assert [writer.sweep(T, 3) for _ in range(3)] == [3, 2, 0]
    assert sorted(ids(store)) == ["new", "open"]
    assert {(r.status, r.number) for r in store.counts()} == {
        (Status.SUCCEEDED, 1),
        (Status.RETRYING, 1),
    }
    assert store.attempts("q", "old1") == []
    assert {m.minute for m in store.minutes(0, T + 1)} == {T}


def test_offsets_and_progress_are_written_with_the_rows(store: Store, writer: Writer) -> None:
    batch = Batch()
    batch.add_state(("q", "a"), state())
    batch.places["t", 1] = Place("uuid", 7, T)
    writer.write(batch, Progress(T, {"t": (2, T), "u": (1, T + 5)}))
    assert store.offsets() == [OffsetRow("t", 1, "uuid", 7, T)]
    fresh = store.freshness()
    assert (fresh.as_of, fresh.lag) == (T, 3)
    assert fresh.topics == (TopicLag("t", 2, T), TopicLag("u", 1, T + 5))
    writer.write(Batch(), None)
    assert store.freshness() == fresh


def test_one_that_was_taken_for_dead_writes_no_more(store: Store, writer: Writer) -> None:
    other = Writer(store, "other")
    seen = other.look()
    assert seen.holder == "w"
    put(writer, ("a", state()))
    assert not other.take(seen), "it has written since"
    assert other.take(other.look())
    with pytest.raises(LeaseLost):
        put(writer, ("b", state()))
    assert ids(store) == ["a"]
    other.leave()
    assert writer.look().holder == ""


def test_opened_again_it_is_the_same_and_its_schema_is_that_of_the_code(url: str) -> None:
    with_first = open_store(url)
    uuid = with_first.uuid
    with_first.close()
    again = open_store(url)
    assert again.uuid == uuid
    with again.engine.connect() as connection:
        context = MigrationContext.configure(connection, {"version_table": "taskmill_schema"})
        drift = compare_metadata(context, METADATA)
    # The one table that is not ours is Alembic's own.
    assert [(what, table.name) for what, table in drift] == [("remove_table", "taskmill_schema")]
    again.close()


def test_a_store_of_a_newer_version_is_refused(url: str) -> None:
    store = open_store(url)
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE taskmill_schema SET version_num = '999'"))
    store.close()
    with pytest.raises(ConfigError, match="written by a newer taskmill") as refused:
        open_store(url)
    assert "\n" not in str(refused.value)


def test_a_second_console_on_one_file_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    store = open_store(url)
    with pytest.raises(ConfigError, match="in use by another console"):
        open_store(url)
    store.close()
    open_store(url).close()


def test_a_file_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("shopping: " + "eggs " * 500)
    with pytest.raises(ConfigError, match="not a database"):
        open_store(f"sqlite:///{file}")
    assert file.read_text().startswith("shopping")
    with sqlite3.connect(tmp_path / "c.db") as other:
        other.execute("CREATE TABLE tasks (n int)")
    other.close()
    with pytest.raises((ConfigError, Unreachable), match="already exists"):
        open_store(f"sqlite:///{tmp_path}/c.db")


@pytest.mark.postgres
def test_values_that_the_database_refuses_hold_up_nothing_else(database: str) -> None:
    store = open_store(database)
    writer = Writer(store, "w")
    assert writer.take(writer.look())
    batch = Batch()
    batch.places["t", 0] = Place("uuid", 3, T)
    for task_id, name in (("a", "add"), ("b", "never\0stored"), ("c", "add")):
        batch.add_state(("q", task_id), state(name=name))
    writer.write(batch, Progress(T, {}))
    assert ids(store) == ["c", "a"]
    assert writer.refused == 1
    assert store.offsets() == [OffsetRow("t", 0, "uuid", 3, T)]
    assert store.freshness().as_of == T
    store.close()


@pytest.mark.postgres
def test_consoles_that_start_together_make_one_schema(database: str) -> None:
    stores: list[Store] = []
    threads = [
        threading.Thread(target=lambda: stores.append(open_store(database))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({store.uuid for store in stores}) == 1
    for store in stores:
        store.close()


@pytest.mark.postgres
def test_a_database_that_is_away_is_unreachable_and_found_again(private_postgres: Postgres) -> None:
    store = open_store(private_postgres.database("c"))
    store.ping()
    private_postgres.kill()
    with pytest.raises(Unreachable, match=r"the store at 127\.0\.0\.1"):
        store.ping()
    with pytest.raises(Unreachable):
        open_store(private_postgres.url)
    private_postgres.start()
    store.ping()
    assert store.tasks() == []
    store.close()


@pytest.mark.parametrize("wrong", ["sqlite://", "mysql://x/y", "sqlite:///:memory:", "nonsense"])
def test_another_url_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="TASKMILL_STORE_URL"):
        open_store(wrong)


def test_what_is_looked_for_in_errors_is_found_whatever_its_letters(
    store: Store, writer: Writer
) -> None:
    said = ("ÉCHEC du paiement", "100%_sure\\", "ΣΊΣΥΦΟΣ", "İstanbul", "plain")
    batch = Batch()
    for at, message in enumerate(said):
        fact = LetterFact(str(at), "add", "failed", "E", message, "f", T + at, 1, 0)
        batch.letters["q", "dlq", 0, at] = fact
    writer.write(batch, None)
    for at, message in enumerate(said):
        for part in (message, message[1:4], f"e: {message}"):
            found = [row.offset for row in store.letters(LetterFilter(error=part))]
            assert found == [at], part


def test_a_cursor_of_somebodys_own_making_ends_a_page_and_harms_nobody(
    store: Store, writer: Writer
) -> None:
    put(writer, ("a", state()))
    far = 2**63 - 1
    for queue in ("q", "q\0", "\1", ""):
        assert len(store.tasks(after=TaskCursor(far, queue, "\0"))) == 1
        assert store.letters(after=LetterCursor(far, queue, far, far)) == []


def test_numbers_that_no_column_holds_are_passed_over_and_the_rest_is_kept(
    store: Store, writer: Writer
) -> None:
    batch = Batch()
    batch.add_state(("q", "huge"), state(finished_at=2**70))
    batch.add_state(("q", "well"), state())
    batch.replays["q", "dlq", 0, 2**64] = ReplayFact(T, "r")
    batch.places["topic", 0] = Place("topic-id", 7, T)
    writer.write(batch, None)
    assert (ids(store), writer.refused) == (["well"], 2)
    assert [row.next_offset for row in store.offsets()] == [7]
