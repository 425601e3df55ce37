"""Records in any order, any number of times, in any batches, give the same rows."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.projected import Seen, expected, picture
from support.states import make_state
from taskmill.console.projection.batch import Batch
from taskmill.console.projection.fold import QUEUED, RANKS, Given, Large, State, version
from taskmill.console.projection.writer import Writer
from taskmill.console.store.open import open_store
from taskmill.console.store.store import Store
from taskmill.console.store.texts import stored
from taskmill.schemas.models import JSON, Task, TaskError, TaskResult, TaskState
from taskmill.schemas.states import Status

#: Some day in 2026, to the minute.
T = 1_767_323_040_000
IDS = ("a", "b\0c", "é")


def add(batch: Batch, seen: Seen, queue: str) -> None:
    """What decode.py does with a message, without one."""
    one = seen.record
    key = (queue, stored(one.id))
    if isinstance(one, TaskResult):
        error = one.error or (None, None, None)
        large = (one.result, one.content_type, *error, one.stack)
        batch.add_large(key, Large(one.generation, one.seq, seen.time, seen.offset, *large))
    elif isinstance(one, Task):
        order = (one.generation, one.seq)
        nothing = (None,) * 9
        state = State(
            *order, 0, one.attempt, QUEUED, one.name, None, one.enqueued_at, *nothing, None,
            0, seen.offset, seen.time, seen.offset,
        )  # fmt: skip
        task = Given(
            *order, seen.time, seen.offset, one.payload, JSON, len(one.payload), None, None
        )
        batch.add_task(key, state, task)
    else:
        error = tuple(one.error) if one.error else (None, None, None)
        batch.add_state(
            key,
            State(
                one.generation, one.seq, RANKS[one.status], one.attempt, one.status.value, one.name,
                one.worker, one.enqueued_at, one.started_at, one.finished_at, one.next_attempt_at,
                *error, one.result, one.content_type, one.large, None, 0, 0, seen.time, seen.offset,
            ),
        )  # fmt: skip


pairs = st.tuples(st.integers(0, 2), st.integers(0, 3))
near = st.integers(T - 200_000, T + 200_000)


@st.composite
def histories(draw: st.DrawFn) -> list[Seen]:
    """Records of a few tasks, as odd as they come; no two lie at one place."""
    out = []
    for offset in range(draw(st.integers(1, 14))):
        generation, seq = draw(pairs)
        task_id, time = draw(st.sampled_from(IDS)), draw(near)
        kind = draw(st.sampled_from("TSSSL"))
        record: Task | TaskState | TaskResult
        if kind == "T":
            payload = b"%d" % offset
            record = Task(task_id, "add", payload, JSON, draw(near), generation=generation, seq=seq)
        elif kind == "L":
            record = TaskResult(task_id, generation, seq, b"large %d" % offset, JSON)
        else:
            status = draw(st.sampled_from(Status))
            failed = status in {Status.DEAD, Status.RETRYING}
            record = make_state(
                task_id,
                status,
                generation=generation,
                seq=seq,
                name=draw(st.sampled_from(["add", "sub"])),
                attempt=draw(st.integers(0, 3)),
                enqueued_at=draw(near),
                started_at=draw(st.none() | near),
                finished_at=draw(st.none() | near),
                error=TaskError("E", f"no {offset}", "f") if failed else None,
                large=draw(st.sampled_from([None, None, "results"])),
            )
        out.append(Seen(record, time, offset))
    return out


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    path: Path = tmp_path_factory.mktemp("store") / "console.db"
    one = open_store(f"sqlite:///{path}")
    yield one
    one.close()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), data=st.data())
def test_any_order_and_repetition_gives_the_same_rows(
    store: Store, history: list[Seen], data: st.DataObject
) -> None:
    queue = uuid.uuid4().hex
    writer = Writer(store, "test")
    assert writer.take(writer.look())
    again = data.draw(st.lists(st.sampled_from(history), max_size=8))
    rest = data.draw(st.permutations([*history, *again]))
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        batch = Batch()
        for seen in rest[:size]:
            add(batch, seen, queue)
        writer.write(batch, None)
        rest = rest[size:]
    assert picture(store, queue) == expected(history)


def test_of_one_pair_a_terminal_state_wins_over_an_open_one() -> None:
    def place(status: Status | None, time: int) -> tuple[int, ...]:
        blank = State._make([None] * len(State._fields))
        rank = 0 if status is None else RANKS[status.value]
        return version(
            blank._replace(generation=0, seq=0, rank=rank, updated_at=time, record_offset=time)
        )

    assert place(Status.SUCCEEDED, 1) > place(Status.RUNNING, 9)
    assert place(Status.RETRYING, 1) > place(Status.RUNNING, 9)
    assert place(Status.RUNNING, 2) > place(Status.RUNNING, 1)
    # Of records on `tasks` the first is the one that ran.
    assert place(None, 1) > place(None, 2)
    assert place(Status.QUEUED, 1) > place(None, 1)
