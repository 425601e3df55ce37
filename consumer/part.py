"""What a worker holds of one partition index, and how much of all of them it may hold."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from taskmill.consumer.orders import Orders
from taskmill.consumer.record import Lease, Note, Outcome, Record
from taskmill.consumer.window import Window


class Limits(NamedTuple):
    """What is held in memory at the most. Reasons for the numbers: ARCHITECTURE.md, "Bounds"."""

    #: Records delivered and not settled, over all partitions.
    in_flight: int = 12_000
    #: Their values' bytes.
    in_flight_bytes: int = 64 * 1024 * 1024
    #: Offsets between a partition's watermark and its newest record.
    span: int = 50_000
    #: Outcomes in one transaction, and the tasks that they enqueue: a bound on its size and time,
    #: far below its time-out.
    per_transaction: int = 4_000
    #: Bytes of results, enqueued tasks and dead letters in one; a single outcome always goes.
    transaction_bytes: int = 16 * 1024 * 1024
    #: Records that have passed a gate (see Gates) and not ended. A draining worker runs them all;
    #: more would not make such tasks faster than a commit cycle of some 10 ms each.
    gated: int = 200


class Phase(Enum):
    RESTORING = "restoring"
    RUNNING = "running"
    SUSPENDED = "suspended"


class Counts:
    """What happened, counted; read by the metrics."""

    __slots__ = ("dropped", "duplicates", "recovered", "refetched", "rerouted", "superseded")

    def __init__(self) -> None:
        self.duplicates = 0
        #: Outcomes of a lost lease.
        self.dropped = 0
        #: Outcomes found committed after a commit whose answer was lost.
        self.recovered = 0
        #: Records delivered again to a kept partition.
        self.refetched = 0
        self.rerouted = 0
        #: Outcomes not marked: a newer generation or seq of the ID came while they ran.
        self.superseded = 0


class View(NamedTuple):
    """A held partition, for whoever looks: whether its table is complete, the next offset to be
    delivered, how many below it are not committed, and when the oldest of those that run, or wait
    to, was appended (UTC ms by the broker; None: there is none)."""

    lease: Lease
    is_running: bool
    next_offset: int
    open: int
    oldest: int | None


class Part:
    """One held partition index."""

    __slots__ = (
        "bytes",
        "claimed",
        "claiming",
        "dirty",
        "fetching",
        "kept",
        "lease",
        "live",
        "notes",
        "orders",
        "overtaken",
        "paused",
        "phase",
        "ready",
        "releasing",
        "suspect_until",
        "unknown",
        "window",
    )

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.phase = Phase.RESTORING
        self.window = Window(0)
        #: ID -> the newest record of that ID that runs or awaits its commit (the overlay).
        self.live: dict[bytes, Record] = {}
        #: Outcomes that await a transaction, in order of completion.
        self.ready: list[Outcome] = []
        #: Whether a newer record of an ID came while an older one was in flight.
        self.overtaken = False
        #: Whether the consumer fetches from `window.next_offset` on (rule 5).
        self.fetching = False
        self.paused = False
        self.bytes = 0
        #: What the transaction held whose answer was lost, until the restore.
        self.unknown: tuple[list[Outcome], list[Note]] | None = None
        #: By offset: notes that await a transaction; the last that went into one, of each live
        #: record.
        self.notes: dict[int, Note] = {}
        self.kept: dict[int, Note] = {}
        #: Records below this offset may have been in flight when their owner ended without a word.
        self.suspect_until = 0
        #: Whether the committed offset says "at work": without a word, this end would be sudden.
        self.dirty = False
        #: It is about to be let go: transactions say so, and nothing more starts.
        self.releasing = False
        #: Nothing runs before a transaction has said "at work": these records wait for it.
        self.claiming = False
        self.claimed: list[Record] = []
        self.orders = Orders()

    def awaits(self) -> bool:
        """Whether the next transaction has something of it to commit."""
        if self.phase is not Phase.RUNNING:
            return False
        if self.releasing:
            return bool(self.ready) or self.dirty
        return bool(self.ready or self.notes or self.claiming or self.orders.awaits)

    def take_ready(self, room: int, size: int, *, alone: bool) -> list[Outcome]:
        """What of `ready` goes into a transaction with room for so many outcomes and tasks that
        they enqueue, and `size` bytes; `alone`: it is empty, and takes one whatever its size."""
        taken = 0
        for outcome in self.ready[: max(room, 0)]:
            if outcome.is_weighty:
                size -= outcome.weight
            room -= 1 + len(outcome.children)
            if (room < 0 or size < 0) and not (alone and taken == 0):
                break
            taken += 1
        out, self.ready = self.ready[:taken], self.ready[taken:]
        return out

    def with_saved(self, outcome: Outcome) -> Outcome:
        """`outcome`, which is retrying, with what its handler kept last."""
        record = outcome.record
        note = self.notes.get(record.offset) or self.kept.get(record.offset)
        saved = record.saved if note is None or note.saved is None else note.saved
        return outcome if outcome.saved is not None else outcome._replace(saved=saved)

    def note(self, record: Record, started_at: int | None, saved: bytes | None) -> None:
        """`record` runs, and its handler keeps `saved` where that is not None."""
        if self.live.get(record.mark_key) is not record:
            return
        at = record.offset
        last = self.notes.get(at) or self.kept.get(at) or Note(record, saved=record.saved)
        self.notes[at] = Note(
            record,
            last.started_at if started_at is None else started_at,
            last.deliveries,
            last.saved if saved is None else saved,
        )

    def take_notes(self, outcomes: list[Outcome]) -> tuple[list[Note], list[Record]]:
        """The notes for a transaction with `outcomes`, and records that need not start any more:
        they have waited at a gate while a newer one of their ID came.

        An outcome says more than a note, and of one ID only the newest record is marked.
        """
        if not self.notes:
            return [], []
        done = {outcome.record.offset for outcome in (*outcomes, *self.ready)}
        notes, overtaken = [], []
        for at, note in self.notes.items():
            if self.live.get(note.record.mark_key) is not note.record:
                if note.gates:
                    overtaken.append(note.record)
            elif at not in done:
                notes.append(note)
                # What is noted from now on builds on it, whatever becomes of the transaction: if it
                # is not committed, the note is put back, unless a later one says more.
                self.kept[at] = note
        self.notes.clear()
        return notes, overtaken

    def put_back_notes(self, notes: list[Note]) -> None:
        """They were not committed; what was noted of a record since then says more."""
        for note in notes:
            self.notes.setdefault(note.record.offset, note)
