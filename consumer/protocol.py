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
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from taskmill.consumer.part import Counts, Limits, Part, Phase
from taskmill.consumer.record import Failure, Lease, Outcome, Reason, Record
from taskmill.consumer.table import Decision, Entry, decide
from taskmill.consumer.transaction import Fence, Transaction, is_committed
from taskmill.consumer.window import Window
from taskmill.schemas.models import TaskError
from taskmill.schemas.states import Status

__all__ = ["Assignment", "Fence", "Limits", "Phase", "Protocol", "Transaction"]


class Assignment(NamedTuple):
    """What a rebalance asks for: leases to restore, and leases that ended."""

    restore: list[Lease]
    ended: list[Lease]


class Protocol:
    """See the module. `limits` bounds what is held; `at_most_once` names tasks declared so."""

    def __init__(
        self,
        limits: Limits | None = None,
        at_most_once: frozenset[str] = frozenset(),
        queue: str = "",
    ) -> None:
        self._queue = queue
        self.limits = limits or Limits()
        self.counts = Counts()
        self._at_most_once = at_most_once
        self._parts: dict[int, Part] = {}
        self._fence: Fence | None = None
        self._epoch = 0
        self._numbers = 0
        self._open: Transaction | None = None
        self._in_flight = 0
        self._bytes = 0
        self._full = False
        self._next_first = 0

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
                if part.unknown:
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
            self._in_flight -= len(part.window)
            self._bytes -= part.bytes
            self.counts.dropped += len(part.ready)
            ended.append(part.lease)
        return ended

    def restored(self, lease: Lease, committed: int, entries: Mapping[bytes, Entry]) -> None:
        """The table of `lease`'s partition is complete; records start at offset `committed`.

        `entries` answers, for the marks of `unknown_marks`, what the table now holds.
        """
        part = self._parts.get(lease.partition)
        if part is None or part.lease is not lease or part.phase is not Phase.RESTORING:
            return
        part.phase = Phase.RUNNING
        if not part.unknown:
            part.window = Window(committed)
            return
        unknown, part.unknown = part.unknown, []
        all_done = is_committed(unknown, entries)
        # Where no mark tells, the offset may: a transaction without marks moved it alone.
        done = [o for o in unknown if all_done or o.record.offset < committed]
        self.counts.recovered += len(done)
        self._settle(part, done)
        self._put_back(part, [o for o in unknown if not all_done and o.record.offset >= committed])

    def unknown_marks(self, lease: Lease) -> list[bytes]:
        """Keys whose entries `restored` must be told; empty after a plain assignment."""
        part = self._parts.get(lease.partition)
        if part is None or part.lease is not lease:
            return []
        return [o.record.mark_key for o in part.unknown if o.status is not None]

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
        if part is None or (part.phase is Phase.RESTORING and not part.unknown):
            return None
        return part.window.next_offset

    # ---- records and outcomes -----------------------------------------------------------------

    def deliver(
        self, p: int, records: Sequence[Record], entries: Sequence[Entry | None]
    ) -> list[Record]:
        """Records of `tasks[p]` in order, with their table entries; returns those to run now."""
        part = self._parts[p]
        window, live, ready = part.window, part.live, part.ready
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
                else:
                    run.append(record)
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

    def complete(self, outcomes: Iterable[Outcome]) -> None:
        """Handlers ended; outcomes of a lost lease are dropped."""
        for outcome in outcomes:
            lease = outcome.record.lease
            if lease.held:
                self._parts[lease.partition].ready.append(outcome)
            else:
                self.counts.dropped += 1

    # ---- transactions ---------------------------------------------------------------------------

    def begin(self) -> Transaction | None:
        """The next transaction, or None where nothing awaits one. One is open at a time."""
        assert self._open is None, "the open transaction has not been answered"
        outcomes: dict[int, list[Outcome]] = {}
        offsets: dict[int, int] = {}
        leases: dict[int, Lease] = {}
        room = self.limits.per_transaction
        number = self._numbers + 1
        for p, part in self._rotated():
            if not part.ready or part.phase is not Phase.RUNNING:
                continue
            taken, part.ready = part.ready[:room], part.ready[room:]
            if part.overtaken:
                taken = [self._newest(part, outcome) for outcome in taken]
            outcomes[p] = taken
            offsets[p] = part.window.take([o.record.offset for o in taken], number)
            leases[p] = part.lease
            room -= len(taken)
            if not room:
                break
        if not outcomes:
            return None
        assert self._fence is not None, "a held partition has come with a fence"
        self._numbers = number
        self._open = Transaction(number, self._fence, outcomes, offsets, leases)
        return self._open

    def _newest(self, part: Part, outcome: Outcome) -> Outcome:
        """`outcome`, or one without a mark where a newer record of its ID is in flight (rule 6)."""
        record = outcome.record
        if outcome.status is None or part.live.get(record.mark_key) is record:
            return outcome
        self.counts.superseded += 1
        return Outcome(record, None)

    def _rotated(self) -> list[tuple[int, Part]]:
        """All partitions, another one first each time, so that a full one starves none."""
        parts = list(self._parts.items())
        if parts:
            self._next_first = (self._next_first + 1) % len(parts)
        return parts[self._next_first :] + parts[: self._next_first]

    def committed(self, transaction: Transaction) -> None:
        """It committed, and its marks are in the local table (rule 3)."""
        for part, outcomes in self._answered(transaction):
            self._settle(part, outcomes)

    def aborted(self, transaction: Transaction) -> None:
        """It surely did not commit: its outcomes go into the next one."""
        for part, outcomes in self._answered(transaction):
            self._put_back(part, outcomes)

    def unknown(self, transaction: Transaction) -> list[Lease]:
        """Nobody knows whether it committed: returns the leases to restore (rule 4)."""
        leases = []
        for part, outcomes in self._answered(transaction):
            part.unknown = outcomes
            if part.phase is Phase.RUNNING:
                part.phase, part.fetching = Phase.RESTORING, False
                leases.append(part.lease)
            else:
                # Suspended meanwhile: it must be restored in the next generation, or go.
                assert part.phase is Phase.SUSPENDED
        return leases

    def _answered(self, transaction: Transaction) -> list[tuple[Part, list[Outcome]]]:
        """Closes the open transaction; its partitions that are still under the same lease."""
        assert self._open is transaction, "an answer to another transaction than the open one"
        self._open = None
        held = []
        for p, outcomes in transaction.outcomes.items():
            part = self._parts.get(p)
            if part is not None and part.lease is transaction.leases[p]:
                held.append((part, outcomes))
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
            if live.get(record.mark_key) is record:
                del live[record.mark_key]
        if not part.window:
            part.overtaken = False
        part.bytes -= size
        self._bytes -= size
        self._in_flight -= len(outcomes)

    def _put_back(self, part: Part, outcomes: list[Outcome]) -> None:
        part.window.put_back([o.record.offset for o in outcomes])
        part.ready[:0] = outcomes

    # ---- bounds ---------------------------------------------------------------------------------

    @property
    def open(self) -> Transaction | None:
        return self._open

    @property
    def in_flight(self) -> int:
        """Records delivered and not settled."""
        return self._in_flight

    def is_ready(self) -> bool:
        """Whether `begin` would return a transaction."""
        return any(part.ready and part.phase is Phase.RUNNING for part in self._parts.values())

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


_ABANDONED = "it was running when its worker ended, and it is declared at-most-once"


def _dead(record: Record, reason: Reason, message: str) -> Outcome:
    error = TaskError(reason.value, message, reason.value)
    return Outcome(record, Status.DEAD, failure=Failure(reason, error))
