"""Planted mistakes: each is one rule broken, and must be seen.

`Bug` is what is right; everything that a mistake may touch goes through it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from simulation.broker import Log
from taskmill.consumer.protocol import Limits, Phase, Protocol
from taskmill.consumer.protocol import Transaction as Work
from taskmill.consumer.record import Lease, Outcome, Record
from taskmill.consumer.table import Decision, Entry
from taskmill.schemas.states import TERMINAL, Status

Metadata = tuple[int, int]
Head = tuple[int | None, int | None, int | None, int | None]

if TYPE_CHECKING:
    from simulation.committer import Committer, Send
    from simulation.worker import Worker


class Bug:
    """No mistake: the protocol as it is, driven as the worker drives it."""

    rules: type[Protocol] = Protocol
    #: Bytes of a schedule's head (see world.World) with which it shows sooner; None: any.
    head: Head = (None, None, None, None)

    def protocol(self, limits: Limits, at_most_once: frozenset[str]) -> Protocol:
        return self.rules(limits, at_most_once)

    def lease(self, protocol: Protocol, p: int) -> Lease | None:
        return protocol.lease(p)

    def begun(self, worker: Worker, work: Work) -> None:
        """A transaction has been taken."""

    def sends(self, sends: list[Send]) -> list[Send]:
        return sends

    def metadata(self, worker: Worker, work: Work) -> Any:
        return work.fence.metadata

    def is_held(self, work: Work) -> bool:
        """Asked once the offsets are accepted: KIP-848 accepts a lost partition's too, as long as
        the member epoch has not moved (more is to be revoked)."""
        return all(lease.held for lease in work.leases.values())

    def transactional_id(self, worker: Worker) -> str:
        return f"slot-{worker.slot}"

    def changelog_end(self, log: Log, early: int) -> int:
        """Where a restore ends; `early` was the log's end before the stable offset was read."""
        return log.end

    def follows(self, before: Metadata | None, now: Metadata) -> bool:
        """Whether `now` is the same member's next generation."""
        return before is not None and now == (before[0] + 1, before[1])

    def destroy(self, committer: Committer) -> None:
        """The outcome of its commit is unknown."""
        committer.producer = None

    def unknown(self, worker: Worker, work: Work) -> list[Lease]:
        return worker.protocol.unknown(work)


# ---- of the worker ------------------------------------------------------------------------------


class MarkBeforeCommit(Bug):
    """Marks enter the local table when their transaction begins."""

    def begun(self, worker: Worker, work: Work) -> None:
        reached = {p: worker.tables[p].checkpoint for p in work.outcomes}
        worker.apply(work, reached)


class OffsetsWithoutMarks(Bug):
    """The transaction moves offsets, and writes no state."""

    def sends(self, sends: list[Send]) -> list[Send]:
        return [send for send in sends if send[3] is None]


class LostLeaseCommitted(Bug):
    """A transaction goes on though one of its leases has ended since it began. Too rare a thing for
    random schedules: test_simulation.py writes it out."""

    def is_held(self, work: Work) -> bool:
        return True


class FreshMetadata(LostLeaseCommitted):
    """Group metadata is asked for at commit time; nor is there a second look at the leases."""

    head = (None, None, 1, 2)

    def metadata(self, worker: Worker, work: Work) -> Any:
        return worker.world.group.fresh(worker.client)


class RestoreToStableEnd(Bug):
    """A restore ends at the last stable offset: what a read_committed consumer's watermark says."""

    head = (None, None, 1, 2)

    def changelog_end(self, log: Log, early: int) -> int:
        return log.stable_end


class EndBeforeOffset(Bug):
    """A restore asks for the changelog's end first, then for the stable offset."""

    head = (None, None, 1, 2)

    def changelog_end(self, log: Log, early: int) -> int:
        return early


class ProducerReused(Bug):
    """After a commit without answer the same producer does it again."""

    def destroy(self, committer: Committer) -> None:
        """It is kept."""

    def unknown(self, worker: Worker, work: Work) -> list[Lease]:
        worker.protocol.aborted(work)
        return []


class UnknownIsAborted(Bug):
    """After a commit without answer a new producer does it again, without a look at the state."""

    def unknown(self, worker: Worker, work: Work) -> list[Lease]:
        worker.protocol.aborted(work)
        return []


class UnknownIsCommitted(Bug):
    """A commit without answer is taken for one that happened."""

    def unknown(self, worker: Worker, work: Work) -> list[Lease]:
        worker.protocol.committed(work)
        return []


class RandomTransactionalId(Bug):
    """Each process has a transactional.id of its own."""

    def transactional_id(self, worker: Worker) -> str:
        return f"random-{worker.birth}"


class DeliverBeforeSeek(Bug):
    """A partition's records are taken as soon as it is restored, from wherever they come."""

    head = (None, 0, None, 1)

    def lease(self, protocol: Protocol, p: int) -> Lease | None:
        part = protocol._parts.get(p)
        return part.lease if part is not None and part.phase is Phase.RUNNING else None


class AlwaysFollows(Bug):
    """A partition that comes back is kept, whoever had it in between."""

    head = (1, None, 1, 2)

    def follows(self, before: Metadata | None, now: Metadata) -> bool:
        return True


# ---- of the protocol ----------------------------------------------------------------------------


class _KeepsLost(Protocol):
    def complete(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            part = self._parts.get(outcome.record.lease.partition)
            if part is not None:
                part.ready.append(outcome)


class LostOutcomesKept(Bug):
    """An outcome counts though its lease ended, where the partition came back."""

    rules = _KeepsLost


class _OffByOne(Protocol):
    def begin(self) -> Work | None:
        work = super().begin()
        if work is not None:
            work = work._replace(offsets={p: o + 1 for p, o in work.offsets.items()})
            self._open = work
        return work


class WatermarkOffByOne(Bug):
    """The watermark is the lowest unfinished offset plus one."""

    rules = _OffByOne


class _OnlyMoved(Protocol):
    def begin(self) -> Work | None:
        work = super().begin()
        if work is not None:
            moved = {p: o for p, o in work.offsets.items() if o > self._parts[p].window.watermark}
            work = work._replace(offsets=moved)
            self._open = work
        return work


class UnmovedOffsetsLeftOut(Bug):
    """A transaction lists only offsets that move: nothing fences the marks of the others."""

    head = (None, None, 1, 2)

    rules = _OnlyMoved


class _NoOverlay(Protocol):
    def _decide(self, live: Record | None, entry: Entry | None, record: Record) -> Decision:
        return super()._decide(None, entry, record)


class OverlapIgnored(Bug):
    """Twins in flight are not noticed."""

    rules = _NoOverlay


class _RunsTwice(Protocol):
    def _decide(self, live: Record | None, entry: Entry | None, record: Record) -> Decision:
        if entry is not None and entry.status in TERMINAL:
            entry = None
        return super()._decide(live, entry, record)


class TerminalIgnored(Bug):
    """What has ended runs again."""

    rules = _RunsTwice


class _MarksOld(Protocol):
    def _newest(self, part: Any, outcome: Outcome) -> Outcome:
        return outcome


class _FetchesUnrestored(Protocol):
    def fetching(self, lease: Lease) -> None:
        part = self._parts.get(lease.partition)
        if part is not None and part.lease is lease:
            part.fetching, part.paused = True, False


class FetchBeforeRestored(Bug):
    """The seek after one restore counts for the next one, which drops what it fetches."""

    rules = _FetchesUnrestored
    head = (None, 0, None, 1)


class _StaysPaused(Protocol):
    def fetching(self, lease: Lease) -> None:
        part = self._parts.get(lease.partition)
        paused = part is not None and part.paused
        super().fetching(lease)
        if part is not None:
            part.paused = paused


class PausedInNameOnly(Bug):
    """A fetch that starts anew is taken for as paused as it was before."""

    rules = _StaysPaused


class _ForgetsOffset(Protocol):
    def restored(self, lease: Lease, committed: int, entries: Mapping[bytes, Entry]) -> None:
        known = self.next_offset(lease.partition) is not None
        super().restored(lease, 0 if known else committed, entries)


class UnmarkedIsUncommitted(Bug):
    """A commit without answer that has left no mark is taken for one that did not happen."""

    rules = _ForgetsOffset
    head = (None, 4, 0, 1)


class _Impatient(Protocol):
    def deliver(
        self, p: int, records: Sequence[Record], entries: Sequence[Entry | None]
    ) -> list[Record]:
        run = super().deliver(p, records, entries)
        notes = self._parts[p].notes
        early = [note for note in notes.values() if note.gates]
        for note in early:
            notes[note.record.offset] = note._replace(gates=False)
        return run + [note.record for note in early]


class StartBeforeMark(Bug):
    """What waits at a gate starts as soon as its `running` mark is on its way."""

    rules = _Impatient


class RunningBehindTerminal(Bug):
    """A `running` mark that was noted goes out once more, behind the outcome."""

    def sends(self, sends: list[Send]) -> list[Send]:
        ended = [
            (log, key, value._replace(status=Status.RUNNING), marks)
            for log, key, value, marks in sends
            if isinstance(value, Entry) and value.status in TERMINAL
        ]
        return sends + ended


class _Uncounted(Protocol):
    def begin(self, *args: Any) -> Work | None:
        work = super().begin(*args)
        if work is not None:
            for notes in work.notes.values():
                notes[:] = [note._replace(deliveries=0) for note in notes]
        return work


class CrashesUncounted(Bug):
    """Marks do not say how often their record was in flight at a sudden end."""

    rules = _Uncounted
    head = (None, None, None, 3)


class _Unclaimed(Protocol):
    def restored(self, lease: Lease, *args: Any, **named: Any) -> list[Record]:
        run = super().restored(lease, *args, **named)
        part = self._parts.get(lease.partition)
        if part is not None:
            part.claiming = False
        return run


class AtWorkUnsaid(Bug):
    """Handlers start before the committed offset says that its owner is at work."""

    rules = _Unclaimed


class _RunsOnceMore(Protocol):
    def _decide(self, live: Record | None, entry: Entry | None, record: Record) -> Decision:
        decision = super()._decide(live, entry, record)
        return Decision.RUN if decision is Decision.ABANDONED else decision


class AbandonedRunsAgain(Bug):
    """What is to run at most once runs again where a crash has left it running."""

    rules = _RunsOnceMore


class OldMarkBehindNew(Bug):
    """An older generation is marked though a newer one is in flight, or marked already."""

    rules = _MarksOld


#: The ten that a proof is not without, by the names that its table has them under.
TEN: dict[str, type[Bug]] = {
    "mark before commit": MarkBeforeCommit,
    "offsets without marks": OffsetsWithoutMarks,
    "fresh metadata at commit": FreshMetadata,
    "random transactional.id": RandomTransactionalId,
    "restore to the LSO": RestoreToStableEnd,
    "outcome of a lost epoch kept": LostOutcomesKept,
    "watermark off by one": WatermarkOffByOne,
    "overlap ignored": OverlapIgnored,
    "terminal entry ignored": TerminalIgnored,
    "producer reused after an unknown outcome": ProducerReused,
}

PLANTED: dict[str, type[Bug]] = {
    bug.__name__: bug
    for bug in (
        MarkBeforeCommit,
        OffsetsWithoutMarks,
        FreshMetadata,
        RestoreToStableEnd,
        EndBeforeOffset,
        ProducerReused,
        UnknownIsAborted,
        UnknownIsCommitted,
        RandomTransactionalId,
        DeliverBeforeSeek,
        AlwaysFollows,
        LostOutcomesKept,
        WatermarkOffByOne,
        UnmovedOffsetsLeftOut,
        OverlapIgnored,
        TerminalIgnored,
        FetchBeforeRestored,
        PausedInNameOnly,
        UnmarkedIsUncommitted,
        OldMarkBehindNew,
        StartBeforeMark,
        RunningBehindTerminal,
        CrashesUncounted,
        AtWorkUnsaid,
        AbandonedRunsAgain,
    )
}


def named(bug: type[Bug]) -> str:
    """`bug` in the words of the proof's table."""
    told = {known: name for name, known in TEN.items()}
    return told.get(bug) or re.sub(r"(?<!^)(?=[A-Z])", " ", bug.__name__).lower()
