"""Planted mistakes of the protocol itself: its rules, each broken in a subclass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from simulation.bug import Bug
from taskmill.consumer.part import Part
from taskmill.consumer.protocol import Protocol
from taskmill.consumer.protocol import Transaction as Work
from taskmill.consumer.record import Lease, Outcome, Record
from taskmill.consumer.table import Decision, Entry
from taskmill.schemas.states import TERMINAL, Status

if TYPE_CHECKING:
    from simulation.committer import Send


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
    def restored(self, lease: Lease, committed: int, *args: Any, **named: Any) -> list[Record]:
        known = self.next_offset(lease.partition) is not None
        return super().restored(lease, 0 if known else committed, *args, **named)


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


class _PassesOrders(Protocol):
    def _cancel_record(self, part: Part, record: Record, offsets: list[int], read_at: int) -> None:
        super()._cancel_record(part, record, [], read_at)
        part.orders.done += offsets


class OrderPassedEarly(Bug):
    """The offset of `control` moves once a handler was told to end, not once its task has."""

    rules = _PassesOrders
