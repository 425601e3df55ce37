"""Which of many IDs the store holds: asked before tasks are enqueued under them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from taskmill.console.store.errors import told as told_of
from taskmill.console.store.store import Store
from taskmill.console.store.tables import TASKS
from taskmill.console.store.texts import stored, told

#: Both databases take far more parameters than that in one statement.
_AT_ONCE = 1_000


def known_ids(store: Store, queue: str, ids: Sequence[str]) -> frozenset[str]:
    """Those of `ids` that are tasks of the queue. Raises Unreachable."""
    t = TASKS.c
    found: set[str] = set()
    with told_of(store.where), store.engine.connect() as connection:
        for first in range(0, len(ids), _AT_ONCE):
            part = [stored(id) for id in ids[first : first + _AT_ONCE]]
            asked = select(t.id).where(t.queue == queue, t.id.in_(part))
            found.update(told(row[0]) for row in connection.execute(asked))
    return frozenset(found)
