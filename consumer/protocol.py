"""The commit protocol: one class without I/O that decides what runs and what is committed.

In go assignments, records, outcomes and the answers of transactions; out come the records to run,
the next transaction, and what to do with its answer. The worker, the simulation and the test
harness drive the same class. It holds no lock and starts no thread: whoever drives it from more
than one thread serialises the calls.

A partition index p (`tasks[p]`, `state[p]`) goes through:

    (absent) ──assigned──> RESTORING ──restored──> RUNNING ──revoked, may return──> SUSPENDED
                               ▲                    │  ▲                               │
                               └──outcome unknown───┘  └──assigned, next generation────┘
    any ──lost──> (absent): the lease ends, handlers are cancelled, outcomes are dropped

Rules that do not show in the code:
1. The group metadata of a transaction (the *fence*) is what the last rebalance callback saw, taken
   at `begin`, never read afresh: metadata read at commit time lets a lost partition be committed.
2. A transaction lists the offset of every partition it marks, even an unmoved one: without an
   offset of p in it, nothing fences p's marks.
3. Marks enter the local table only after the transaction committed (`committed`).
4. After a commit whose outcome is unknown, its partitions are restored before they commit again;
   what the table then shows as done is settled, everything else is committed anew.
5. Records are taken only from where a fetch was started on purpose (`fetching`): what was dropped
   while a partition was restored must come again before anything behind it.
6. Of one ID only the newest record in flight is marked. `state` is compacted: an older
   generation's mark behind a newer one's would be all that is left of the ID.
7. A `running` mark (a *note*) never follows its record's outcome: it is dropped when that is there.
8. The committed offset says whether its owner is at work or has let go in order: nothing runs
   before it does, and after a sudden end the records that may have been in flight are suspects (see
   Gates).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from taskmill.consumer.cancel import Cancelling
from taskmill.consumer.intake import CRASH_LIMIT
from taskmill.consumer.part import Limits, Part, Phase
from taskmill.consumer.record import Lease, Note, Outcome, Record, is_heavy
from taskmill.consumer.table import Entry
from taskmill.consumer.transaction import Expired, Fence, Taken, Transaction, is_committed
from taskmill.consumer.window import Window
from taskmill.schemas.states import Status

__all__ = ["Assignment", "Fence", "Limits", "Phase", "Protocol", "Transaction"]


_NONE: Expired = {}
#: A partition is paused between two polls; by then it may be so many offsets beyond its limit.
_BEYOND = 1_000


class Assignment(NamedTuple):
    """What a rebalance asks for: leases to restore, and leases that ended."""

    restore: list[Lease]
    ended: list[Lease]


class Protocol(Cancelling):
    """See the module. `limits` bounds what is held; `at_most_once` names tasks declared so; a
    record in flight at `crash_limit` sudden ends of its worker is dead-lettered."""

    def __init__(
        self,
        limits: Limits | None = None,
        at_most_once: frozenset[str] = frozenset(),
        queue: str = "",
        crash_limit: int = CRASH_LIMIT,
    ) -> None:
        super().__init__(limits, at_most_once, queue, crash_limit)
        self.to_stop = []
        self._fence: Fence | None = None
        self._epoch = 0
        self._numbers = 0
        self._open: Transaction | None = None
        self._next_first = 0
        #: Outcomes found committed after an unknown answer, for whoever is told of what committed.
        self.recovered: list[Outcome] = []

    # ---- assignment -------------------------------------------------------------------------

    def assigned(
        self, partitions: Iterable[int], metadata: object, *, follows: bool = False
    ) -> Assignment:
        """Partitions that came; `metadata` as the rebalance callback reads it.

        `follows`: this generation comes right after the one that suspended, with the same member,
        so that a suspended partition among `partitions` had no other owner in between: its
        window, its running handlers and its table go on. Every other suspended one is lost.
        """
        wanted = list(partitions)
        kept = set(wanted) if follows else set()
        suspended = [p for p, part in self._parts.items() if part.phase is Phase.SUSPENDED]
        ended = self.lost([p for p in suspended if p not in kept])
        self._epoch += 1
        self._fence = Fence(self._epoch, metadata)
        restore = []
        for p in wanted:
            part = self._parts.get(p)
            if part is None:
                part = self._parts[p] = Part(Lease(p, self._epoch, self._queue))
                restore.append(part.lease)
            elif part.phase is Phase.SUSPENDED:
                # The assignment itself says from where it is fetched.
                part.phase, part.fetching, part.paused = Phase.RUNNING, True, False
                # Where it was let go, that is to be taken back before more starts.
                let_go = self._open is not None and p in self._open.released
                part.releasing, part.claiming = False, part.claiming or let_go or not part.dirty
                if part.unknown is not None:
                    part.phase, part.fetching = Phase.RESTORING, False
                    restore.append(part.lease)
        return Assignment(restore, ended)

    def suspend(self, partitions: Iterable[int]) -> list[Lease]:
        """Revoked by a protocol that revokes everything first: they may come back at once.

        A partition that is not restored yet has nothing to keep: it is lost. Returns those.
        """
        unready = []
        for p in partitions:
            part = self._parts.get(p)
            if part is not None and part.phase is Phase.RUNNING:
                part.phase = Phase.SUSPENDED
            elif part is not None:
                unready.append(p)
        return self.lost(unready)

    def lost(self, partitions: Iterable[int]) -> list[Lease]:
        """They belong to another now: leases end, outcomes are dropped. Returns ended leases."""
        ended = []
        for p in list(partitions):
            part = self._parts.pop(p, None)
            if part is None:
                continue
            part.lease.held = False
            self._gates.drop(part.lease)
            self._in_flight -= len(part.window)
            self._bytes -= part.bytes
            self.counts.dropped += len(part.ready)
            ended.append(part.lease)
        self._open_gates()
        return ended

    def release(self, partitions: Iterable[int]) -> None:
        """They are about to go, in order: the next transaction says so."""
        for p in partitions:
            part = self._parts.get(p)
            if part is not None and part.phase is Phase.RUNNING:
                part.releasing = True

    def restored(
        self,
        lease: Lease,
        committed: int,
        entries: Mapping[bytes, Entry],
        *,
        unclean: bool = False,
        end: int | None = None,
    ) -> list[Record]:
        """The table of `lease`'s partition is complete; records start at offset `committed`.

        `entries` answers, for the marks of `unknown_marks`, what the table now holds. `unclean`:
        the offset says that its last owner has not let go of it; `end`: no record lies at this
        offset or beyond yet, so that none of those can have been in flight. Returns records to run
        now.
        """
        part = self._parts.get(lease.partition)
        if part is None or part.lease is not lease or part.phase is not Phase.RESTORING:
            return []
        part.phase = Phase.RUNNING
        if part.unknown is None:
            part.window = Window(committed)
            part.dirty = unclean
            part.claiming = not unclean
            if unclean:
                reach = committed + self.limits.span + _BEYOND
                part.suspect_until = reach if end is None else min(reach, end)
            return []
        (unknown, notes), part.unknown = part.unknown, None
        marks = part.orders.taken
        # One that moves a task leaves what the table holds as it was, and tells nothing.
        told = [mark for mark in marks if mark.status is Status.CANCELLED]
        all_done = is_committed([*told, *unknown], entries)
        self.recovered += marks if all_done else []
        part.orders.settle() if all_done else part.orders.put_back()
        # Noted again, whatever the table shows: such a mark may be another owner's, who has started
        # the record (we may have lost the partition unheard), and a gate opens only behind a
        # transaction that our own fence let pass.
        part.put_back_notes(notes)
        # Where no mark tells, the offset may: a transaction without marks moved it alone.
        done = [o for o in unknown if all_done or o.record.offset < committed]
        self.counts.recovered += len(done)
        self.recovered += done
        self._settle(part, done)
        self._put_back(part, [o for o in unknown if not all_done and o.record.offset >= committed])
        return self._claimed(part, dirty=unclean)

    def unreadable(self, lease: Lease) -> None:
        """The table of `lease`'s partition cannot be read: it is to be restored before more is
        delivered or committed."""
        part = self._parts.get(lease.partition)
        if part is not None and part.lease is lease and part.phase is Phase.RUNNING:
            assert not self.has_open(lease), "its transaction is answered first"
            part.phase, part.fetching, part.unknown = Phase.RESTORING, False, ([], [])

    def is_open(self, partitions: Iterable[int]) -> bool:
        """Whether the open transaction touches one of `partitions`."""
        return self._open is not None and any(p in self._open.leases for p in partitions)

    def has_open(self, lease: Lease) -> bool:
        """Whether the open transaction touches `lease`'s partition."""
        return self._open is not None and self._open.leases.get(lease.partition) is lease

    def unknown_marks(self, lease: Lease) -> list[bytes]:
        """Keys whose entries `restored` must be told; empty after a plain assignment."""
        part = self._parts.get(lease.partition)
        if part is None or part.lease is not lease or part.unknown is None:
            return []
        outcomes, _ = part.unknown
        told = [*part.orders.taken, *outcomes]
        return [o.record.mark_key for o in told if o.status is not None]

    # ---- transactions ---------------------------------------------------------------------------

    def begin(self, expired: Expired = _NONE) -> Transaction | None:
        """The next transaction, or None where nothing awaits one. One is open at a time.

        `expired`: results that may be deleted in it, as the tables have them now.
        """
        assert self._open is None, "the open transaction has not been answered"
        outcomes: dict[int, list[Outcome]] = {}
        offsets: dict[int, int] = {}
        leases: dict[int, Lease] = {}
        notes: dict[int, list[Note]] = {}
        released: list[int] = []
        over: dict[int, list[tuple[bytes, Entry]]] = {}
        orders: dict[int, Taken] = {}
        room, size = self.limits.per_transaction, self.limits.transaction_bytes
        number = self._numbers + 1
        for p, part in self._rotated():
            old = [one for one in expired.get(p, ()) if one[0] not in part.live]
            if not part.awaits() and not (old and part.phase is Phase.RUNNING):
                continue
            told = part.orders.take(room, number)
            if told:
                orders[p] = told
                room -= len(told.marks)
            # Behind all marks: what is a duplicate of one must not pass before it.
            taken = part.take_ready(0 if part.orders.marks else room, size, alone=not outcomes)
            taken = [part.with_saved(o) if o.retry_ms is not None else o for o in taken]
            noted, overtaken = ([], []) if part.releasing else part.take_notes(taken)
            if self._gates.closed:
                noted = [note for note in noted if not note.gates]
            taken += [self._overtaken(record) for record in overtaken]
            going = part.dirty if part.releasing else part.claiming
            if not (taken or noted or old or going or told):
                continue
            if part.overtaken:
                taken = [self._newest(part, outcome) for outcome in taken]
            if part.releasing and not part.ready:
                released.append(p)
            if noted:
                notes[p] = noted
            if old:
                over[p] = old
            outcomes[p] = taken
            room -= len(taken) + sum(len(o.children) for o in taken if o.children)
            size -= sum(o.weight for o in taken if o.is_weighty)
            offsets[p] = part.window.take([o.record.offset for o in taken], number)
            leases[p] = part.lease
            if room <= 0 or size <= 0:
                break
        if not outcomes:
            return None
        assert self._fence is not None, "a held partition has come with a fence"
        self._numbers = number
        self._open = Transaction(
            number, self._fence, outcomes, offsets, leases, notes, frozenset(released), over, orders
        )
        return self._open

    def _newest(self, part: Part, outcome: Outcome) -> Outcome:
        """`outcome`, or one without a mark where a newer record of its ID is in flight (rule 6)."""
        record = outcome.record
        if outcome.status is None or part.live.get(record.mark_key) is record:
            return outcome
        self.counts.superseded += 1
        part.bytes -= outcome.held_bytes
        self._bytes -= outcome.held_bytes
        return Outcome(record, None, is_superseded=True)

    def _rotated(self) -> list[tuple[int, Part]]:
        """All partitions, another one first each time, so that a full one starves none."""
        parts = list(self._parts.items())
        if parts:
            self._next_first = (self._next_first + 1) % len(parts)
        return parts[self._next_first :] + parts[: self._next_first]

    def committed(self, transaction: Transaction) -> list[Record]:
        """It committed, and its marks are in the local table (rule 3): returns records to run."""
        start: list[Record] = []
        for part, outcomes, notes in self._answered(transaction):
            part.orders.settle()
            self._settle(part, outcomes)
            start += self._noted(part, notes)
            start += self._claimed(part, dirty=part.lease.partition not in transaction.released)
        return start

    def _claimed(self, part: Part, *, dirty: bool) -> list[Record]:
        """The committed offset says whether we are at work: returns the records that may run."""
        part.dirty, part.claiming = dirty, part.claiming or not dirty
        if not dirty or not part.claiming:
            return []
        part.claiming = False
        claimed, part.claimed = part.claimed, []
        return claimed

    def _noted(self, part: Part, notes: list[Note]) -> list[Record]:
        """`notes` are committed: returns the records that waited for theirs."""
        start = []
        for note in notes:
            record = note.record
            if part.live.get(record.mark_key) is record:
                part.kept[record.offset] = note
                if note.gates and self._starts(part, record):
                    start.append(record)
            elif note.gates:
                part.ready.append(self._overtaken(record))
        return start

    def aborted(self, transaction: Transaction) -> None:
        """It surely did not commit: its outcomes go into the next one."""
        for part, outcomes, notes in self._answered(transaction):
            part.orders.put_back()
            self._put_back(part, outcomes)
            part.put_back_notes(notes)

    def unknown(self, transaction: Transaction) -> list[Lease]:
        """Nobody knows whether it committed: returns the leases to restore (rule 4)."""
        leases = []
        for part, outcomes, notes in self._answered(transaction):
            part.unknown = outcomes, notes
            if part.phase is Phase.RUNNING:
                part.phase, part.fetching = Phase.RESTORING, False
                leases.append(part.lease)
            else:
                # Suspended meanwhile: it must be restored in the next generation, or go.
                assert part.phase is Phase.SUSPENDED
        return leases

    def _answered(self, transaction: Transaction) -> list[tuple[Part, list[Outcome], list[Note]]]:
        """Closes the open transaction; its partitions that are still under the same lease."""
        assert self._open is transaction, "an answer to another transaction than the open one"
        self._open = None
        held = []
        for p, outcomes in transaction.outcomes.items():
            part = self._parts.get(p)
            if part is not None and part.lease is transaction.leases[p]:
                held.append((part, outcomes, transaction.notes.get(p, [])))
            else:
                self.counts.dropped += len(outcomes)
        return held

    def _settle(self, part: Part, outcomes: list[Outcome]) -> None:
        live = part.live
        part.window.settle([o.record.offset for o in outcomes])
        size = 0
        for outcome in outcomes:
            record = outcome.record
            size += record.size
            if outcome.children or is_heavy(outcome.result):
                size += outcome.held_bytes
            if live.get(record.mark_key) is record:
                del live[record.mark_key]
            if part.kept:
                part.kept.pop(record.offset, None)
        if not part.window:
            part.overtaken = False
        part.bytes -= size
        self._bytes -= size
        self._in_flight -= len(outcomes)
        if part.orders.pending:
            self._resolve(part, outcomes)

    def _put_back(self, part: Part, outcomes: list[Outcome]) -> None:
        part.window.put_back([o.record.offset for o in outcomes])
        if part.orders.pending:
            outcomes = self._judged_again(part, outcomes)
        part.ready[:0] = outcomes

    @property
    def open(self) -> Transaction | None:
        return self._open
