"""How tasks are cancelled, and moved: the part of the protocol that takes orders. See orders.py.

queued here, not begun         CANCELLED, and never started
running                        its handler is told to end (`to_stop`); CANCELLED unless it
                               returns first
ended, not committed           a next attempt is not made: CANCELLED; an end stands
not in flight                  a mark: what comes of its ID and generation is a duplicate

A task that waits for its time is moved by a mark too, with a word to whoever passes it on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from taskmill.consumer.intake import Intake
from taskmill.consumer.orders import (
    NOWHERE,
    Order,
    Pending,
    entry_of,
    is_open,
    mark_of,
    may_move,
    place_of,
)
from taskmill.consumer.part import Part, Phase
from taskmill.consumer.record import Lease, Outcome, Record, is_heavy
from taskmill.consumer.table import Entry
from taskmill.consumer.window import Window
from taskmill.schemas.models import RESCHEDULE, Control
from taskmill.schemas.states import Status

#: What stands, though it was to be cancelled.
_STANDS = frozenset({None, Status.SUCCEEDED, Status.EXPIRED, Status.CANCELLED})


class Cancelling(Intake):
    """Orders, and the outcomes of what they are about.

    `stored` names tasks whose outcome is committed elsewhere first (PostgreSQL): whether one of
    those has ended is for whoever runs it to find out, so it is not cancelled unseen.
    """

    stored: frozenset[str] = frozenset()

    #: Records whose handlers are to be told to end; for whoever drives this to take.
    to_stop: list[Record]

    def control_places(self) -> dict[Lease, int | None]:
        """Where `control` is read, by lease: the next offset; None where the group's committed one
        must tell (`control_from`)."""
        return {
            part.lease: None if part.orders.window is None else part.orders.window.next_offset
            for part in self._parts.values()
            if self._takes_orders(part)
        }

    def control_from(self, lease: Lease, offset: int) -> None:
        """The group has committed `offset` of `control`."""
        part = self._parts.get(lease.partition)
        if part is not None and part.lease is lease and part.orders.window is None:
            part.orders.window = Window(offset)

    def forget_orders(self) -> None:
        """There is no `control` any more."""
        for part in self._parts.values():
            part.orders.forget()

    @property
    def orders_held(self) -> int:
        """Orders read whose offsets have not moved."""
        windows = [part.orders.window for part in self._parts.values()]
        return sum(len(window) for window in windows if window is not None)

    def takes_orders(self, lease: Lease) -> bool:
        """Whether `obey` may be called."""
        part = self._parts.get(lease.partition)
        if part is None or part.lease is not lease or part.orders.window is None:
            return False
        return self._takes_orders(part)

    def _takes_orders(self, part: Part) -> bool:
        return part.phase is Phase.RUNNING and not part.releasing

    def obey(self, lease: Lease, orders: Sequence[Order], entries: Sequence[Entry | None]) -> None:
        """Orders of `control[p]`, in order, with what the table holds of their IDs."""
        part = self._parts[lease.partition]
        window = part.orders.window
        assert window is not None, "read from where control_from says"
        for order, entry in zip(orders, entries, strict=True):
            if not window.deliver(order.offset):
                continue
            if order.control is None:
                part.orders.done.append(order.offset)
            elif order.control.action == RESCHEDULE:
                self._reschedule(part, order, order.control, entry)
            else:
                self._cancel(part, order, order.control.generation, entry)
        self._open_gates()

    def _cancel(
        self, part: Part, order: Order, generation: int | None, entry: Entry | None
    ) -> None:
        key, orders = order.mark_key, part.orders
        record = part.live.get(key)
        if record is not None and generation in (None, record.generation):
            self._cancel_record(part, record, [order.offset], order.read_at)
            return
        if record is not None and generation is not None:
            if generation < record.generation:
                orders.done.append(order.offset)
                return
            # A newer one of its ID is marked: this one is overtaken, as by a record.
            del part.live[key]
            part.overtaken = True
            if self._withdraw(part, record):
                part.ready.append(self._overtaken(record))
        marked = orders.marked.get(key)
        if marked is not None:
            entry = entry_of(marked)
        place = place_of(generation, entry)
        if place is None:
            orders.done.append(order.offset)
        else:
            orders.mark(mark_of(part.lease, order, place))

    def _reschedule(self, part: Part, order: Order, control: Control, entry: Entry | None) -> None:
        key, orders = order.mark_key, part.orders
        if (marked := orders.marked.get(key)) is not None:
            entry = entry_of(marked)
        # What is in flight has come to its time, or is about to be seen to wait.
        if key in part.live or not may_move(control, entry):
            orders.done.append(order.offset)
            return
        assert entry is not None, "that of a task that waits"
        mark = mark_of(part.lease, order, (entry.generation, entry.seq))
        orders.mark(
            mark._replace(
                status=Status.SCHEDULED,
                finished_at=None,
                due_at=control.not_before,
                saved=entry.saved,
            )
        )

    def _cancel_record(self, part: Part, record: Record, offsets: list[int], read_at: int) -> None:
        """`record` is in flight, or has an outcome that awaits its commit."""
        pending = part.orders.pending.get(record.offset)
        if pending is not None:
            pending.offsets += offsets
            return
        pending = part.orders.pending[record.offset] = Pending(record, offsets, read_at)
        if not self._is_stored(record) and self._withdraw(part, record):
            part.ready.append(pending.ended())
            return
        for at, outcome in enumerate(part.ready):
            if outcome.record is record:
                if is_open(outcome):
                    part.ready[at] = self._ended(part, pending, outcome)
                return
        part.lease.cancelled.add(record.offset)
        self.to_stop.append(record)

    def _is_stored(self, record: Record) -> bool:
        return record.task is not None and record.task.name in self.stored

    def _withdraw(self, part: Part, record: Record) -> bool:
        """Take back `record`, which waits to be started; False where it does not."""
        if any(claimed is record for claimed in part.claimed):
            # With it those of its ID that it has overtaken: nothing starts behind its end.
            same = [c for c in part.claimed if c.mark_key == record.mark_key]
            part.claimed = [c for c in part.claimed if c.mark_key != record.mark_key]
            part.ready += [self._overtaken(older) for older in same if older is not record]
            return True
        if not record.is_gated:
            return False
        note = part.notes.get(record.offset)
        if note is not None and note.gates:
            del part.notes[record.offset]
            self._gates.ended(record)
            return True
        return self._gates.withdraw(record)

    def _overtaken(self, record: Record) -> Outcome:
        """The end of `record`, which waited to be started until a newer one of its ID came."""
        self.counts.superseded += 1
        self._gates.ended(record)
        return Outcome(record, None, is_superseded=True)

    def _ended(self, part: Part, pending: Pending, outcome: Outcome) -> Outcome:
        """In place of `outcome`, which is held."""
        if outcome.children or is_heavy(outcome.result):
            part.bytes -= outcome.held_bytes
            self._bytes -= outcome.held_bytes
        return pending.ended(outcome)

    # ---- records and outcomes ----------------------------------------------------------------

    def deliver(
        self, p: int, records: Sequence[Record], entries: Sequence[Entry | None]
    ) -> list[Record]:
        orders = self._parts[p].orders
        if orders.marked:
            entries = orders.over(records, entries)
        return super().deliver(p, records, entries)

    def complete(self, outcomes: Iterable[Outcome]) -> None:
        if any(part.orders.pending for part in self._parts.values()):
            outcomes = [self._judged(outcome) for outcome in outcomes]
        super().complete(outcomes)

    def _judged(self, outcome: Outcome) -> Outcome:
        """What `outcome`, which has just come, is where its record is to be cancelled."""
        record = outcome.record
        if not record.lease.held or outcome.status in _STANDS:
            return outcome
        pending = self._parts[record.lease.partition].orders.pending.get(record.offset)
        return outcome if pending is None else pending.ended(outcome)

    def _judged_again(self, part: Part, outcomes: list[Outcome]) -> list[Outcome]:
        """Those of a transaction that did not commit: ends stand."""
        out = []
        for outcome in outcomes:
            pending = part.orders.pending.get(outcome.record.offset)
            is_changed = pending is not None and is_open(outcome)
            out.append(self._ended(part, pending, outcome) if is_changed and pending else outcome)
        return out

    def _starts(self, part: Part, record: Record) -> bool:
        """Whether `record`, whose gate has opened, is started; else it has ended."""
        pending = part.orders.pending.get(record.offset)
        if pending is None or self._is_stored(record):
            return True
        self._gates.ended(record)
        part.ready.append(pending.ended())
        return False

    def _resolve(self, part: Part, outcomes: Iterable[Outcome]) -> None:
        """`outcomes` are committed: what was asked of their records is done, or goes on."""
        for outcome in outcomes:
            record = outcome.record
            pending = part.orders.pending.pop(record.offset, None)
            if pending is None:
                continue
            part.lease.cancelled.discard(record.offset)
            offsets = pending.offsets
            newer = part.live.get(record.mark_key)
            if newer is not None and newer.generation == record.generation:
                self._cancel_record(part, newer, offsets, pending.read_at)
            elif newer is None and is_open(outcome):
                # It was on its way to Kafka when it was cancelled.
                at = offsets[0] if offsets else NOWHERE
                mark = Outcome(
                    record._replace(offset=at), Status.CANCELLED, finished_at=pending.read_at
                )
                part.orders.mark(mark)
                part.orders.done += offsets[1:]
            else:
                part.orders.done += offsets
