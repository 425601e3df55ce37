"""A worker's local copies of `state`, on its disk."""

from __future__ import annotations

from taskmill.consumer.orders import entry_of as entry_of_mark
from taskmill.consumer.record import Note, Outcome
from taskmill.consumer.table import Entry, fold
from taskmill.consumer.transaction import Taken
from taskmill.schemas.states import Status


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


def entry_of(note: Note) -> Entry:
    """The `running` mark that `note` is."""
    record = note.record
    place = record.generation, record.seq
    return Entry(*place, Status.RUNNING, 0, note.deliveries, note.saved)


def marks_of(
    told: Taken | None, notes: list[Note], outcomes: list[Outcome]
) -> list[tuple[bytes, Entry]]:
    """As Core.commit_marks makes them; the simulation has no clock."""
    asked = [(m.record.mark_key, entry_of_mark(m)) for m in (told.marks if told else ())]
    noted = asked + [(note.record.mark_key, entry_of(note)) for note in notes]
    return noted + [
        (r.mark_key, Entry(r.generation, r.seq, o.status, 0))
        for o in outcomes
        if o.status is not None
        for r in (o.record,)
    ]
