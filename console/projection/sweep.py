"""What the store forgets: tasks that ended before the window, their minutes, letters that are gone.

In bounded pieces, each a transaction of some milliseconds. Tasks that have not ended stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, Table, delete, select, tuple_

from taskmill.console.projection.write import add_counts
from taskmill.console.store.bulk import Bulk
from taskmill.console.store.tables import ATTEMPTS, LETTERS, MINUTES, RESULTS, TASKS
from taskmill.schemas.states import TERMINAL

_CHUNK = 400


def sweep_tasks(connection: Connection, bulk: Bulk, before: int, most: int) -> int:
    """Forget up to `most` tasks that ended, and were written last, before then; how many."""
    t = TASKS.c
    # What ended before then was enqueued before then: the index finds the oldest.
    old = (
        select(t.queue, t.id, t.name, t.status)
        .where(t.enqueued_at < before, t.updated_at < before, t.status.in_(sorted(TERMINAL)))
        .order_by(t.enqueued_at)
        .limit(most)
    )
    found = connection.execute(old).fetchall()
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    for row in found:
        counts[row.queue, row.name, row.status] -= 1
    keys = [(row.queue, row.id) for row in found]
    for table in (TASKS, ATTEMPTS, RESULTS):
        _delete(connection, table, keys)
    add_counts(connection, bulk, counts)
    # Of tasks that were never heard of, or are gone.
    r = RESULTS.c
    orphans = select(r.queue, r.id).where(r.at < before).order_by(r.at).limit(most)
    gone = [tuple(row) for row in connection.execute(orphans)]
    _delete(connection, RESULTS, gone)
    return len(found)


def sweep_minutes(connection: Connection, before: int) -> None:
    """Forget minutes before then."""
    connection.execute(delete(MINUTES).where(MINUTES.c.minute < before))


def sweep_letters(
    connection: Connection, queue: str, topic_id: str, starts: Mapping[int, int], before: int
) -> None:
    """As Writer.sweep_letters."""
    t = LETTERS.c
    of_queue = t.queue == queue
    for partition, start in starts.items():
        gone = (t.topic_id == topic_id, t.partition == partition, t.offset < start)
        connection.execute(delete(LETTERS).where(of_queue, *gone))
    connection.execute(
        delete(LETTERS).where(of_queue, t.topic_id != topic_id, t.died_at.is_not(None))
    )
    # That it was replayed may be read before a letter; of one that is gone, for ever.
    connection.execute(delete(LETTERS).where(of_queue, t.died_at.is_(None), t.replayed_at < before))


def _delete(connection: Connection, table: Table, keys: Sequence[Sequence[object]]) -> None:
    for start in range(0, len(keys), _CHUNK):
        some = [tuple(key) for key in keys[start : start + _CHUNK]]
        connection.execute(delete(table).where(tuple_(table.c.queue, table.c.id).in_(some)))
