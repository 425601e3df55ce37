"""The cluster demo's other recount: what the console knows, read from its PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from plain_reader import ENDS

from taskmill.runtime.clock import SYSTEM_CLOCK, Deadline

#: A console is behind Kafka by less than a second; it may be on its way back to a broker.
CATCH_UP_S = 60.0
_LOOK_S = 0.1


class Row(NamedTuple):
    """A task in the console's table."""

    id: str
    generation: int
    seq: int
    status: str


def read_rows(url: str, count: int) -> list[Row]:
    """All rows, once `count` of them have ended; else those that there are after CATCH_UP_S."""
    deadline = Deadline(CATCH_UP_S)
    query = "SELECT id, generation, seq, status FROM tasks ORDER BY id"
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            rows = [Row(*row) for row in connection.execute(query)]
            if sum(row.status in ENDS for row in rows) >= count or deadline.over():
                return rows
            SYSTEM_CLOCK.sleep(_LOOK_S)


def row_differences(
    rows: Sequence[Row], ends: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[str]:
    """In what the rows differ from the outcomes on `state`; empty where all agree."""
    known = {row.id: row for row in rows}
    wrong = [f"{id}: a row of no outcome" for id in known if id not in ends]
    if len(known) != len(rows):
        wrong.append(f"{len(rows)} rows of {len(known)} tasks")
    for id, outcomes in ends.items():
        row, last = known.get(id), outcomes[-1]
        told = Row(id, last["generation"], last["seq"], last["status"])
        if row is None:
            wrong.append(f"{id}: {last['status']} on Kafka, and no row")
        elif row != told:
            wrong.append(f"{id}: {row} is its row, {told} its outcome")
    return wrong
