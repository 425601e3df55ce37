"""What a worker takes in: which records run, at once or behind a gate, and within which bounds.

The half of the protocol that knows no transactions; see protocol.py for its rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from taskmill.consumer.gates import Gates
from taskmill.consumer.part import Counts, Limits, Part, Phase, View
from taskmill.consumer.record import Failure, Lease, Note, Outcome, Reason, Record, is_heavy
from taskmill.consumer.table import Decision, Entry, decide
from taskmill.schemas.models import TaskError
from taskmill.schemas.states import Status

#: DESIGN §5: a task that kills its worker three times goes to the DLQ.
CRASH_LIMIT = 3


class Intake:
    """The held partitions, and what is in flight of each."""

    def __init__(
        self,
        limits: Limits | None = None,
        at_most_once: frozenset[str] = frozenset(),
        queue: str = "",
        crash_limit: int = CRASH_LIMIT,
    ) -> None:
        self._queue = queue
        self.limits = limits or Limits()
        self.counts = Counts()
        self._at_most_once = at_most_once
        self._crash_limit = crash_limit
        self._gates = Gates(self.limits.gated)
        self._parts: dict[int, Part] = {}
        self._in_flight = 0
        self._bytes = 0
        self._full = False

    def lease(self, p: int) -> Lease | None:
        """The lease of `p` where its records may be delivered."""
        part = self._parts.get(p)
        if part is None or part.phase is not Phase.RUNNING or not part.fetching:
            return None
        return part.lease

    def fetching(self, lease: Lease) -> None:
        """The consumer fetches `lease`'s partition from `next_offset` on, and is not paused.

        Nothing happens while it is restored: what that fetch brings is dropped, and the restore's
        end asks for a fetch of its own.
        """
        part = self._parts.get(lease.partition)
        if part is not None and part.lease is lease and part.phase is Phase.RUNNING:
            part.fetching, part.paused = True, False

    def phase(self, p: int) -> Phase | None:
        part = self._parts.get(p)
        return part.phase if part else None

    @property
    def partitions(self) -> list[int]:
        """Held partition indexes, whatever their phase."""
        return list(self._parts)

    def next_offset(self, p: int) -> int | None:
        """Where a kept partition's fetch goes on; None where a restore must tell."""
        part = self._parts.get(p)
        if part is None or (part.phase is Phase.RESTORING and part.unknown is None):
            return None
        return part.window.next_offset

    def views(self) -> list[View]:
        """What is known of each held partition."""
        found = []
        for part in self._parts.values():
            first = next(iter(part.live.values()), None)
            oldest = None if first is None else first.source.timestamp
            running = part.phase is Phase.RUNNING
            found.append(
                View(part.lease, running, part.window.next_offset, len(part.window), oldest)
            )
        return found

    # ---- records and outcomes -----------------------------------------------------------------

    def deliver(
        self, p: int, records: Sequence[Record], entries: Sequence[Entry | None]
    ) -> list[Record]:
        """Records of `tasks[p]` in order, with their table entries; returns those to run now."""
        part = self._parts[p]
        window, live, ready = part.window, part.live, part.ready
        once, suspect_until = self._at_most_once, part.suspect_until
        run: list[Record] = []
        size, before = 0, len(window)
        for record, entry in zip(records, entries, strict=True):
            if not window.deliver(record.offset):
                self.counts.refetched += 1
                continue
            size += record.size
            decision = self._decide(live.get(record.mark_key), entry, record)
            if record.belongs_to is not None:
                self.counts.rerouted += 1
                ready.append(Outcome(record, None))
            elif decision is Decision.DUPLICATE:
                self.counts.duplicates += 1
                ready.append(Outcome(record, None))
            else:
                part.overtaken |= record.mark_key in live
                live[record.mark_key] = record
                if record.fault is not None:
                    ready.append(_dead(record, *record.fault))
                elif decision is Decision.ABANDONED:
                    ready.append(_dead(record, Reason.ABANDONED, _ABANDONED))
                elif record.due_at is not None:
                    ready.append(_scheduled(record, entry))
                elif entry is None and not once and record.offset >= suspect_until:
                    (part.claimed if part.claiming else run).append(record)
                else:
                    run += self._admit(part, record, entry)
        self._open_gates()
        part.bytes += size
        self._bytes += size
        self._in_flight += len(window) - before
        return run

    def _decide(self, live: Record | None, entry: Entry | None, record: Record) -> Decision:
        """The table's rule, behind the overlay: a twin in flight is a duplicate too."""
        if live is not None and (record.generation, record.seq) <= (live.generation, live.seq):
            return Decision.DUPLICATE
        if entry is None:
            return Decision.RUN
        name = record.task.name if record.task else ""
        return decide(entry, record.generation, record.seq, at_most_once=name in self._at_most_once)

    def _admit(self, part: Part, record: Record, entry: Entry | None) -> list[Record]:
        """`record` runs: at once, it is returned then, or behind a gate, or not once more."""
        known = entry if entry is not None and entry.generation == record.generation else None
        saved = known.saved if known is not None else None
        # What the table holds of this very record is a `running` mark, or it would not run.
        deliveries = known.deliveries if known is not None and known.seq == record.seq else 0
        if record.offset < part.suspect_until:
            deliveries += 1
            if deliveries >= self._crash_limit:
                part.ready.append(_dead(record, Reason.CRASH_LOOP, _CRASH_LOOP.format(deliveries)))
                return []
        # Whoever has been in flight at a sudden end stays a suspect, also for an owner to whom the
        # partition was handed in order.
        once = record.task is not None and record.task.name in self._at_most_once
        gated = once or deliveries > 0
        if saved is not None or gated:
            record = record._replace(saved=saved, is_gated=gated)
            part.live[record.mark_key] = record
        if gated:
            # Alone where one more end would condemn it.
            note = Note(record, None, deliveries, saved, gates=True)
            alone = 0 < self._crash_limit - 1 <= deliveries
            if alone and record.offset >= part.suspect_until:
                # Its mark is of an owner who let it go in order. Our own sudden end, before it has
                # had its turn, would count one more for it, and condemn it for its neighbour.
                part.notes[record.offset] = Note(record, None, deliveries - 1, saved)
            self._gates.wait(note, alone=alone)
            return []
        if part.claiming:
            part.claimed.append(record)
            return []
        return [record]

    def _open_gates(self) -> None:
        if self._gates.busy:
            for note in self._gates.next():
                self._parts[note.record.lease.partition].notes[note.record.offset] = note

    def let_next_suspect(self) -> None:
        """Asked at intervals: a suspect that has survived a whole one is not waited for."""
        self._gates.let_next()
        self._open_gates()

    def close_gates(self) -> None:
        """Records that wait for their `running` mark are left to the next owner."""
        self._gates.closed = True

    def hold_gates(self, held: bool) -> None:
        """Whether records that wait for their `running` mark wait on, until this is False."""
        self._gates.held = held
        self._open_gates()

    def note(
        self, record: Record, started_at: int | None = None, saved: bytes | None = None
    ) -> None:
        """`record` runs since `started_at` (UTC ms); its handler keeps `saved`; None: as before."""
        if record.lease.held:
            self._parts[record.lease.partition].note(record, started_at, saved)

    def complete(self, outcomes: Iterable[Outcome]) -> None:
        """Handlers ended; outcomes of a lost lease are dropped."""
        gates = self._gates if self._gates.busy else None
        for outcome in outcomes:
            lease = outcome.record.lease
            if lease.held:
                part = self._parts[lease.partition]
                part.ready.append(outcome)
                if outcome.children or is_heavy(outcome.result):
                    part.bytes += outcome.held_bytes
                    self._bytes += outcome.held_bytes
                if gates is not None:
                    gates.ended(outcome.record)
            else:
                self.counts.dropped += 1
        if gates is not None:
            self._open_gates()

    # ---- bounds ---------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Records delivered and not settled."""
        return self._in_flight

    def is_ready(self, partitions: Iterable[int] | None = None) -> bool:
        """Whether `begin` would return a transaction, for one of `partitions` (all)."""
        if partitions is None:
            return any(part.awaits() for part in self._parts.values())
        return any(p in self._parts and self._parts[p].awaits() for p in partitions)

    def transactions_due(self) -> int:
        """So many transactions have room for what is ready now, and say what is to be said."""
        ready = [outcome for part in self._parts.values() for outcome in part.ready]
        count = len(ready) + sum(len(outcome.children) for outcome in ready)
        count += sum(len(part.orders.marks) for part in self._parts.values())
        size = sum(outcome.weight for outcome in ready)
        limits = self.limits
        # One that is cut short by its size may be half empty.
        return 1 + count // limits.per_transaction + 2 * size // limits.transaction_bytes

    def may_gather(self) -> bool:
        """Whether the next transaction may wait for more outcomes: more is under way than done, and
        nothing waits for its commit but outcomes and what handlers save."""
        ready = 0
        for part in self._parts.values():
            if part.claiming or part.releasing or part.phase is Phase.SUSPENDED:
                return False
            if any(note.gates for note in part.notes.values()):
                return False
            ready += len(part.ready)
        return ready < self.limits.per_transaction and 2 * ready < self._in_flight

    def is_full(self) -> bool:
        """Whether more than the limits is held; stays so until it is down to half of them."""
        limits = self.limits
        divisor = 2 if self._full else 1
        self._full = (
            self._in_flight * divisor >= limits.in_flight
            or self._bytes * divisor >= limits.in_flight_bytes
        )
        return self._full

    def flow(self, *, hold: bool = False) -> tuple[list[int], list[int]]:
        """Partitions to pause and to resume now; `hold` pauses all (the worker is full)."""
        pause, resume = [], []
        for p, part in self._parts.items():
            if part.phase is not Phase.RUNNING or not part.fetching:
                continue
            span = part.window.span
            limit = self.limits.span // 2 if part.paused else self.limits.span
            want = hold or span >= limit
            if want and not part.paused:
                pause.append(p)
            elif part.paused and not want:
                resume.append(p)
            part.paused = want
        return pause, resume


_CRASH_LOOP = "in flight at {} sudden ends of its worker"
_ABANDONED = "it was running when its worker ended, and it is declared at-most-once"


def _scheduled(record: Record, entry: Entry | None) -> Outcome:
    """`record` has a time that has not come; what an earlier attempt saved waits with it."""
    known = entry is not None and entry.generation == record.generation
    saved = entry.saved if entry is not None and known else None
    return Outcome(record, Status.SCHEDULED, saved=saved, due_at=record.due_at)


def _dead(record: Record, reason: Reason, message: str) -> Outcome:
    error = TaskError(reason.value, message, reason.value)
    return Outcome(record, Status.DEAD, failure=Failure(reason, error))
