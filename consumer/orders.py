"""What was asked of one partition's tasks: from its place on `control` to what came of it.

    read ──> about a record in flight ──> pending ── that one is settled ──┐
      │                                      │ it waits for a next attempt │
      │                                      ▼                             ▼
      ├────> about an entry of the table ──> mark ─────────────────────> done ──> its offset moves
      └────> nothing is to be done ───────────────────────────────────────┘

A *mark* is an outcome without a record of `tasks`: CANCELLED, or SCHEDULED of a task that is given
another time. What stands for its record lies at the order's offset on `control`. Offsets move as
those of `tasks` do: to the lowest that is not done, in the transaction that holds the mark or a
later one. What is read again changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from taskmill.consumer.record import Lease, Outcome, Record, Source
from taskmill.consumer.table import Entry
from taskmill.consumer.transaction import Taken
from taskmill.consumer.window import Window
from taskmill.schemas.models import JSON, Control, Task
from taskmill.schemas.states import TERMINAL, Status

#: In place of an offset on `control` that counts no more.
NOWHERE = -1


class Order(NamedTuple):
    """A record of `control` at `offset`, read at `read_at` (UTC ms). `control` None: it is passed
    over, whatever it asks for."""

    offset: int
    control: Control | None
    read_at: int = 0

    @property
    def mark_key(self) -> bytes:
        """What the table knows its task by; of what is passed over, no ID."""
        return b"\xff" if self.control is None else self.control.id.encode()


class Pending:
    """`record` is in flight and to be cancelled; asked for at `offsets`."""

    __slots__ = ("offsets", "read_at", "record")

    def __init__(self, record: Record, offsets: list[int], read_at: int) -> None:
        self.record = record
        self.offsets = offsets
        self.read_at = read_at

    def ended(self, outcome: Outcome | None = None) -> Outcome:
        """The record's outcome; `outcome` is how its attempt ended, if it was begun."""
        if outcome is None:
            return Outcome(self.record, Status.CANCELLED, finished_at=self.read_at)
        return Outcome(
            self.record,
            Status.CANCELLED,
            started_at=outcome.started_at,
            finished_at=outcome.finished_at or self.read_at,
            duration=outcome.duration,
        )


def is_open(outcome: Outcome) -> bool:
    """Whether its task is to go on."""
    return outcome.status is not None and outcome.status not in TERMINAL


class Orders:
    """Those of one held partition. `window` is None until the group's offset is known."""

    __slots__ = ("_taken", "done", "marked", "marks", "pending", "window")

    def __init__(self) -> None:
        self.window: Window | None = None
        #: Marks that await a transaction.
        self.marks: list[Outcome] = []
        #: By ID: marks that are not committed yet, and that no newer record has made void.
        self.marked: dict[bytes, Outcome] = {}
        #: By their records' offsets on `tasks`.
        self.pending: dict[int, Pending] = {}
        #: Offsets with nothing left to be done.
        self.done: list[int] = []
        self._taken: tuple[list[Outcome], list[int]] = [], []

    @property
    def awaits(self) -> bool:
        """Whether a transaction has something to write."""
        return bool(self.marks or self.done)

    def over(
        self, records: Sequence[Record], entries: Sequence[Entry | None]
    ) -> list[Entry | None]:
        """`entries` of `records`, as they are once the marks are committed. A newer generation's
        record makes a mark void: of one ID only the newest is marked."""
        out: list[Entry | None] = []
        for record, entry in zip(records, entries, strict=True):
            mark = self.marked.get(record.mark_key)
            if mark is None:
                out.append(entry)
            elif record.generation > mark.record.generation and record.belongs_to is None:
                del self.marked[record.mark_key]
                out.append(entry)
            else:
                out.append(entry_of(mark))
        return out

    def mark(self, mark: Outcome) -> None:
        self.marks.append(mark)
        self.marked[mark.record.mark_key] = mark

    def take(self, room: int, transaction: int) -> Taken | None:
        """What goes into `transaction`: `room` marks at the most; None where nothing does."""
        if not self.awaits:
            return None
        first, self.marks = self.marks[: max(room, 0)], self.marks[max(room, 0) :]
        marks = [mark for mark in first if self._is_valid(mark)]
        done, self.done = self.done, []
        done += [m.record.offset for m in first if not self._is_valid(m)]
        done = [offset for offset in done if offset != NOWHERE]
        self._taken = marks, done
        at = None if self.window is None else self.window.take(self._offsets(), transaction)
        return Taken(marks, at)

    @property
    def taken(self) -> list[Outcome]:
        """The marks of the transaction that has not been answered, or not for certain."""
        return self._taken[0]

    def settle(self) -> None:
        """The transaction committed."""
        if self.window is not None:
            self.window.settle(self._offsets())
        for mark in self._taken[0]:
            if self._is_valid(mark):
                del self.marked[mark.record.mark_key]
        self._taken = [], []

    def put_back(self) -> None:
        """The transaction did not commit: what it held goes into the next one."""
        marks, done = self._taken
        if self.window is not None:
            self.window.put_back(self._offsets())
        self.marks[:0] = [mark for mark in marks if self._is_valid(mark)]
        void = [mark.record.offset for mark in marks if not self._is_valid(mark)]
        self.done += done + [offset for offset in void if offset != NOWHERE]
        self._taken = [], []

    def forget(self) -> None:
        """`control` is gone, or seems to be: what was read of it is carried out, and has no offset
        any more."""
        self.window, self.done = None, []
        self.marks = [self._detached(mark) for mark in self.marks]
        self._taken = [self._detached(mark) for mark in self._taken[0]], []
        for pending in self.pending.values():
            pending.offsets = []

    def _detached(self, mark: Outcome) -> Outcome:
        new = mark._replace(record=mark.record._replace(offset=NOWHERE))
        if self._is_valid(mark):
            self.marked[mark.record.mark_key] = new
        return new

    def _offsets(self) -> list[int]:
        marks, done = self._taken
        return done + [offset for mark in marks if (offset := mark.record.offset) != NOWHERE]

    def _is_valid(self, mark: Outcome) -> bool:
        return self.marked.get(mark.record.mark_key) is mark


def entry_of(mark: Outcome) -> Entry:
    """What the table will hold."""
    record = mark.record
    assert mark.status is not None, "or it marks nothing"
    return Entry(record.generation, record.seq, mark.status, 0, saved=mark.saved)


def may_move(control: Control, entry: Entry | None) -> bool:
    """Whether the task that the table holds as `entry` waits as the sender of `control` saw it."""
    return (
        entry is not None
        and entry.status is Status.SCHEDULED
        and control.generation in (None, entry.generation)
        and control.seq in (None, entry.seq)
    )


def place_of(generation: int | None, entry: Entry | None) -> tuple[int, int] | None:
    """(generation, seq) that a cancellation marks where nothing of the ID is in flight, and the
    table holds `entry`; None: nothing. `generation`: None for whichever is current."""
    if entry is None:
        return generation or 0, 0
    if generation is not None and generation > entry.generation:
        return generation, 0
    if generation not in (None, entry.generation) or entry.status in TERMINAL:
        return None
    return entry.generation, entry.seq


def mark_of(lease: Lease, order: Order, place: tuple[int, int]) -> Outcome:
    """The mark of a task that no record here speaks for."""
    control = order.control
    assert control is not None, "what is passed over marks nothing"
    generation, seq = place
    name, at = control.name or "", control.requested_at
    enqueued_at = at if control.enqueued_at is None else control.enqueued_at
    # Until when it was to wait: whoever passes it on finds it by that.
    task = Task(control.id, name, b"", JSON, enqueued_at, control.due_at, attempt=0)
    task = task._replace(generation=generation, seq=seq)
    source = Source("", lease.partition, -1, at, order.mark_key, None, ())
    record = Record(lease, order.offset, order.mark_key, generation, seq, task, source)
    return Outcome(record, Status.CANCELLED, finished_at=order.read_at)
