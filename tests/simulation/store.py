"""A worker's local copies of `state`, on its disk."""

from __future__ import annotations

from taskmill.consumer.record import Outcome
from taskmill.consumer.table import Entry, fold


class Store:
    """A partition's local copy: the table, and the changelog offset that it reaches."""

    __slots__ = ("checkpoint", "entries")

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.checkpoint = 0

    def apply(self, marks: list[tuple[bytes, Entry]], checkpoint: int) -> None:
        for key, entry in marks:
            self.entries[key] = fold(self.entries.get(key), entry)
        self.checkpoint = checkpoint


def marks_of(outcomes: list[Outcome]) -> list[tuple[bytes, Entry]]:
    """As Core.commit_marks makes them; the simulation has no clock."""
    return [
        (r.mark_key, Entry(r.generation, r.seq, o.status, 0))
        for o in outcomes
        if o.status is not None
        for r in (o.record,)
    ]
