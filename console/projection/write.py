"""A batch into the store's tables, inside a transaction that holds the counter's row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Table, or_, select, tuple_

from taskmill.console.projection.batch import Batch
from taskmill.console.projection.fold import (
    MEASURES,
    Ended,
    Facts,
    Given,
    Head,
    Key,
    Merged,
    Pair,
    State,
    add_measures,
    ended,
    merge,
)
from taskmill.console.store.bulk import Bulk
from taskmill.console.store.rows import BUCKETS
from taskmill.console.store.tables import (
    ATTEMPTS,
    COUNTS,
    LETTERS,
    MINUTES,
    OFFSETS,
    RESULTS,
    TASKS,
)

_KEY = ("queue", "id")
#: What of a state is not read back: it may be large, and is only ever replaced.
_LARGE = ("result", "content_type", "large", "result_expires_at")
_HEAD = (
    *_KEY,
    *(name for name in State._fields if name not in _LARGE),
    *Given._fields[:4],
)
_STATE_AT = len(_KEY)
_GIVEN_AT = len(_HEAD) - 4
#: Where the four that are not read stand among a State's fields.
_GAP = State._fields.index("result")
_ALL = (*_KEY, *State._fields, *Given._fields, "changed")
_STATE = (*_KEY, *State._fields, "changed")
_GIVEN = (*_KEY, *Given._fields, "changed")
_NO_GIVEN = (None,) * len(Given._fields)
_PAST = tuple(column.name for column in ATTEMPTS.columns)
#: A State's fields that an attempt has.
_PAST_OF = [State._fields.index(name) for name in _PAST[len(_KEY) :]]
#: Rows of a statement whose keys are listed in it: SQLite takes 32,766 parameters.
_CHUNK = 400


def write_batch(connection: Connection, bulk: Bulk, batch: Batch, number: int) -> None:
    """`number`: after it, those of its changes."""
    number = _write_tasks(connection, bulk, batch.tasks, number)
    number = _write_large(connection, bulk, batch, number)
    _write_letters(connection, bulk, batch, number)
    _write_places(connection, bulk, batch)


# ---- tasks --------------------------------------------------------------------------------------


def _write_tasks(
    connection: Connection, bulk: Bulk, tasks: Mapping[Key, Facts], number: int
) -> int:
    heads = find_heads(connection, bulk, tasks)
    older = _find_older(connection, tasks, heads)
    new: list[tuple[Any, ...]] = []
    states: list[tuple[Any, ...]] = []
    givens: list[tuple[Any, ...]] = []
    past: list[dict[str, Any]] = []
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    minutes: dict[Ended, list[int]] = {}
    nothing: dict[Pair, State] = {}
    for key, facts in tasks.items():
        head = heads.get(key)
        merged = merge(head, older.get(key, nothing), facts)
        state, given = merged.state, merged.given
        number += 1
        if head is None:
            assert state is not None, "of a new task something is known"
            new.append((*key, *state, *(given or _NO_GIVEN), number))
        else:
            if state is not None:
                states.append((*key, *state, number))
            if given is not None:
                givens.append((*key, *given, number))
        if state is not None:
            counts[key[0], state.name, state.status] += 1
            if head is not None:
                counts[key[0], head.state.name, head.state.status] -= 1
        if merged.attempts:
            past += (past_row(key, one) for one in merged.attempts)
        _add_minutes(minutes, key[0], merged)
    if new:
        bulk.insert(connection, TASKS, _ALL, new)
    if states:
        bulk.update(connection, TASKS, _STATE, states)
    if givens:
        bulk.update(connection, TASKS, _GIVEN, givens)
    if past:
        upsert(connection, bulk, ATTEMPTS, past)
    add_counts(connection, bulk, counts)
    _write_minutes(connection, bulk, minutes)
    return number


def find_heads(connection: Connection, bulk: Bulk, keys: Iterable[Key]) -> dict[Key, Head]:
    """What the store has of these tasks."""
    by_queue: dict[str, list[str]] = defaultdict(list)
    for queue, task_id in keys:
        by_queue[queue].append(task_id)
    gap = (None,) * len(_LARGE)
    found: dict[Key, Head] = {}
    for queue, ids in by_queue.items():
        for row in bulk.find(connection, TASKS, _HEAD, queue, ids):
            fields = row[_STATE_AT:_GIVEN_AT]
            state = State._make((*fields[:_GAP], *gap, *fields[_GAP:]))
            given = None if row[_GIVEN_AT] is None else tuple(row[_GIVEN_AT:])
            found[queue, row[1]] = Head(state, given)
    return found


def _find_older(
    connection: Connection, tasks: Mapping[Key, Facts], heads: Mapping[Key, Head]
) -> dict[Key, dict[Pair, State]]:
    """The attempts that facts are about which are older than their task's row."""
    wanted = [
        (*key, *pair)
        for key, head in heads.items()
        for pair in tasks[key].states
        if pair < head.state[:2]
    ]
    found: dict[Key, dict[Pair, State]] = defaultdict(dict)
    t = ATTEMPTS.c
    for start in range(0, len(wanted), _CHUNK):
        some = wanted[start : start + _CHUNK]
        asked = select(ATTEMPTS).where(tuple_(t.queue, t.id, t.generation, t.seq).in_(some))
        for row in connection.execute(asked):
            state = _state_of_past(row._mapping)
            found[row.queue, row.id][state[:2]] = state
    return found


def past_row(key: Key, state: State) -> dict[str, Any]:
    """A state as a row of `attempts`."""
    return dict(zip(_PAST, (*key, *(state[at] for at in _PAST_OF)), strict=True))


def _state_of_past(row: Mapping[Any, Any]) -> State:
    fields: list[Any] = [None] * len(State._fields)
    for name, at in zip(_PAST[len(_KEY) :], _PAST_OF, strict=True):
        fields[at] = row[name]
    return State._make(fields)


# ---- what is counted ----------------------------------------------------------------------------


def _add_minutes(minutes: dict[Ended, list[int]], queue: str, merged: Merged) -> None:
    for states, sign in ((merged.come, 1), (merged.gone, -1)):
        for state in states:
            where = ended(queue, state)
            if where is not None:
                sums = minutes.get(where)
                if sums is None:
                    sums = minutes[where] = [0] * MEASURES
                add_measures(sums, state, sign)


_MEASURES = (
    *("count", "runs", "run_ms", "waits", "wait_ms"),
    *(f"run_{i}" for i in range(BUCKETS)),
    *(f"wait_{i}" for i in range(BUCKETS)),
)


def _write_minutes(connection: Connection, bulk: Bulk, minutes: Mapping[Ended, list[int]]) -> None:
    rows = [
        {**where._asdict(), **dict(zip(_MEASURES, sums, strict=True))}
        for where, sums in minutes.items()
        if any(sums)
    ]
    if rows:
        insert = bulk.upsert(MINUTES)
        more = {name: MINUTES.c[name] + insert.excluded[name] for name in _MEASURES}
        key = [*MINUTES.primary_key]
        connection.execute(insert.on_conflict_do_update(index_elements=key, set_=more), rows)


def add_counts(
    connection: Connection, bulk: Bulk, counts: Mapping[tuple[str, str, str], int]
) -> None:
    """Change how many tasks there are, by (queue, name, status)."""
    rows = [
        {"queue": queue, "name": name, "status": status, "count": change}
        for (queue, name, status), change in counts.items()
        if change
    ]
    if rows:
        insert = bulk.upsert(COUNTS)
        more = {"count": COUNTS.c.count + insert.excluded["count"]}
        key = [*COUNTS.primary_key]
        connection.execute(insert.on_conflict_do_update(index_elements=key, set_=more), rows)


# ---- the rest -----------------------------------------------------------------------------------


def _write_large(connection: Connection, bulk: Bulk, batch: Batch, number: int) -> int:
    """Results, newest first wins; and that their tasks have changed."""
    if not batch.large:
        return number
    insert = bulk.upsert(RESULTS)
    names = [column.name for column in RESULTS.columns]
    order = ("generation", "seq", "at", "record_offset")
    newer = tuple_(*(insert.excluded[n] for n in order)) > tuple_(*(RESULTS.c[n] for n in order))
    statement = insert.on_conflict_do_update(
        index_elements=[RESULTS.c.queue, RESULTS.c.id],
        set_={name: insert.excluded[name] for name in names[2:]},
        where=newer,
    )
    rows = [dict(zip(names, (*key, *large), strict=True)) for key, large in batch.large.items()]
    connection.execute(statement, rows)
    first = number + 1
    changed = [
        (*key, change) for change, key in enumerate(batch.large, first) if key not in batch.tasks
    ]
    if changed:
        bulk.update(connection, TASKS, (*_KEY, "changed"), changed)
    return number + len(batch.large)


def _write_letters(connection: Connection, bulk: Bulk, batch: Batch, number: int) -> None:
    key = ("queue", "topic_id", "partition", "offset")
    t = LETTERS.c
    if batch.letters:
        rows = [
            {**dict(zip(key, place, strict=True)), **letter._asdict(), "changed": change}
            for change, (place, letter) in enumerate(batch.letters.items(), number + 1)
        ]
        upsert(connection, bulk, LETTERS, rows)
        number += len(rows)
    if batch.replays:
        # The letter itself may not have been read yet: its place is kept for it.
        blank = {
            **dict.fromkeys(("reason", "error_type", "error_message", "fingerprint"), ""),
            **dict.fromkeys(("attempts", "generation"), 0),
        }
        rows = [
            {**dict(zip(key, place, strict=True)), **blank, **fact._asdict(), "changed": change}
            for change, (place, fact) in enumerate(batch.replays.items(), number + 1)
        ]
        insert = bulk.upsert(LETTERS)
        said = insert.excluded
        later = or_(
            t.replayed_at.is_(None),
            tuple_(said.replayed_at, said.replay) > tuple_(t.replayed_at, t.replay),
        )
        statement = insert.on_conflict_do_update(
            index_elements=[t[name] for name in key],
            set_={name: said[name] for name in ("replayed_at", "replay", "changed")},
            where=later,
        )
        connection.execute(statement, rows)


def _write_places(connection: Connection, bulk: Bulk, batch: Batch) -> None:
    rows = [
        {"topic": topic, "partition": p, **place._asdict()}
        for (topic, p), place in batch.places.items()
    ]
    if rows:
        upsert(connection, bulk, OFFSETS, rows)


def upsert(connection: Connection, bulk: Bulk, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert, or set what the rows name, by the table's key."""
    insert = bulk.upsert(table)
    key = [*table.primary_key]
    names = {column.name for column in key}
    values = {name: insert.excluded[name] for name in rows[0] if name not in names}
    connection.execute(insert.on_conflict_do_update(index_elements=key, set_=values), rows)
