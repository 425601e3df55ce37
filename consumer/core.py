"""What a queue's threads share: the protocol and the tables, behind one lock.

poll thread ────── records ──────┐              ┌── outcomes ─── executors
(owns the consumer)              ▼              ▼
                           Core: Protocol + Table per partition
                                 ▲              ▲
restore thread ── table ready ───┘              └── transactions ── commit thread
(owns the changelog reader)                         (owns the producer)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from taskmill.consumer.orders import Order, entry_of
from taskmill.consumer.protocol import Protocol, Transaction
from taskmill.consumer.record import Lease, Note, Outcome, Record
from taskmill.consumer.state import is_large
from taskmill.consumer.table import Entry, Table
from taskmill.consumer.transaction import Expired, Taken
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.errors import StoreDamaged
from taskmill.schemas.states import Status

#: So many entries of one table are looked at for what is over: 5 million take an hour and a half,
#: of a window of days, and a millisecond of each second.
SWEEP_EVERY_S, SWEEP_ENTRIES = 1.0, 1_000
#: How often gathering looks for what must not wait. It is not woken by each outcome: that would
#: take the interpreter from the handlers a thousand times a second.
GATHER_STEP_S = 0.005


class Core:
    """One lock, one condition ("something changed"), and the few steps that need both parts."""

    def __init__(self, protocol: Protocol, clock: Clock, window_ms: int) -> None:
        """`window_ms`: how long a finished ID is remembered."""
        self._window_ms = window_ms
        self._swept_at = clock.monotonic()
        self.protocol = protocol
        self.clock = clock
        self.changed = threading.Condition(threading.Lock())
        self.tables: dict[int, Table] = {}
        #: Outcomes on their way to the commit thread; an empty list is a nudge, an event is set
        #: once all that came before it has arrived.
        self.outcomes: SimpleQueue[list[Outcome] | threading.Event] = SimpleQueue()
        #: Transactions committed so far.
        self.committed = 0
        #: Runs records; set by whoever has the executors. It does not block.
        self.start: Callable[[list[Record]], None] = lambda records: None
        #: Tells the handlers of records to end, or the executors not to start them. As `start`.
        self.interrupt: Callable[[list[Record]], None] = lambda records: None
        #: Keeps back outcomes that no transaction could write now; asked by the commit thread.
        self.vet: Callable[[list[Outcome]], list[Outcome]] = lambda outcomes: outcomes
        #: Nothing more is taken in; then, once the group is left, nothing more is committed.
        self.stopping = threading.Event()
        self.closed = threading.Event()

    def nudge(self) -> None:
        """Make the commit thread look for a transaction."""
        self.outcomes.put([])

    def deliver(self, lease: Lease, records: list[Record]) -> list[Record]:
        """Look up and hand over `records` of `lease`'s partition; returns those to run.

        Look-up and overlay are asked under one lock, as are applying a mark and leaving the
        overlay: an ID in between would be in neither, and run twice. Raises StoreDamaged where
        the table cannot be read: then the lease is to be restored, and these come again.
        """
        p = lease.partition
        with self.changed:
            if self.protocol.lease(p) is not lease:
                return []
            entries = self._look_up(lease, [r.mark_key for r in records])
            run = self.protocol.deliver(p, records, entries)
        if len(run) != len(records):
            self.nudge()
        return run

    def obey(self, lease: Lease, orders: list[Order]) -> bool:
        """Carry out `orders`, read from `lease`'s partition of `control`; False where that cannot
        be done now: they are to be read again. Raises StoreDamaged as `deliver` does."""
        p = lease.partition
        with self.changed:
            if not self.protocol.takes_orders(lease) or p not in self.tables:
                return False
            entries = self._look_up(lease, [order.mark_key for order in orders])
            self.protocol.obey(lease, orders, entries)
            self._interrupt()
        self.nudge()
        return True

    def told_before(
        self, lease: Lease, offset: int, orders: list[Order], entries: list[Entry | None]
    ) -> None:
        """`orders`, from the group's `offset` on, were there when `lease`'s partition was restored;
        `entries` is what the table holds of them. The caller holds the lock."""
        self.protocol.control_from(lease, offset)
        if self.protocol.takes_orders(lease):
            self.protocol.obey(lease, orders, entries)
            self._interrupt()

    def _interrupt(self) -> None:
        if self.protocol.to_stop:
            stop, self.protocol.to_stop = self.protocol.to_stop, []
            self.interrupt(stop)

    def _look_up(self, lease: Lease, keys: list[bytes]) -> list[Entry | None]:
        try:
            return self.tables[lease.partition].lookup(keys)
        except StoreDamaged:
            # What its open transaction wrote lies behind the end that a restore would ask for.
            while self.protocol.has_open(lease):
                self.changed.wait()
            self.protocol.unreadable(lease)
            raise

    def begin(self) -> Transaction | None:
        """The next transaction. A step of the sweep is made here, now and then, so that what it
        finds cannot change before it is written."""
        with self.changed:
            return self.protocol.begin(self._sweep())

    def _sweep(self) -> Expired:
        now = self.clock.monotonic()
        if not self.tables or now < self._swept_at + SWEEP_EVERY_S:
            return {}
        self._swept_at = now
        # Another one each time: what was just looked at goes to the end.
        p = next(iter(self.tables))
        table = self.tables[p] = self.tables.pop(p)
        try:
            swept = table.sweep(self.clock.now_ms(), self._window_ms, SWEEP_ENTRIES)
        except StoreDamaged:
            return {}  # whoever looks a record up in there sees to it
        return {p: swept.expired} if swept.expired else {}

    def collect(self, timeout: float) -> None:
        """Feed the outcomes that executors handed in; waits for the first."""
        try:
            item = self.outcomes.get(timeout=timeout) if timeout else self.outcomes.get_nowait()
            while True:
                if isinstance(item, threading.Event):
                    item.set()
                elif item:
                    item = self.vet(item)
                    with self.changed:
                        self.protocol.complete(item)
                item = self.outcomes.get_nowait()
        except Empty:
            return

    def gather(self, until: float) -> None:
        """Collect until `until` (monotonic seconds), as long as the next transaction may wait."""
        while (left := until - self.clock.monotonic()) > 0:
            with self.changed:
                if not self.protocol.may_gather():
                    return
            self.clock.sleep(min(left, GATHER_STEP_S))
            self.collect(0)

    def commit_marks(self, transaction: Transaction, reached: dict[int, int]) -> None:
        """`transaction` committed: its marks enter the tables, then the protocol is told."""
        with self.changed:
            now = self.clock.now_ms()
            for p, outcomes in transaction.outcomes.items():
                if not transaction.leases[p].held or p not in self.tables:
                    continue
                marks = [] if (told := transaction.orders.get(p)) is None else _ended(told, now)
                marks += [
                    (note.record.mark_key, _running(note, now))
                    for note in transaction.notes.get(p, ())
                ]
                marks += [
                    (
                        r.mark_key,
                        Entry(
                            r.generation, r.seq, o.status, now, saved=o.saved, expires_at=_expiry(o)
                        ),
                    )
                    for o in outcomes
                    if o.status is not None
                    for r in (o.record,)
                ]
                marks += [
                    (key, entry._replace(expires_at=None))
                    for key, entry in transaction.expired.get(p, ())
                ]
                if marks:
                    # Where nothing was written but a deletion on `results`, it goes no further.
                    table = self.tables[p]
                    table.apply(marks, reached.get(p, table.store.checkpoint()))
            # Under the lock: whoever waits for the answer finds them running.
            self.start(self.protocol.committed(transaction))
            self._interrupt()
            self.committed += 1
            self.changed.notify_all()

    def note(
        self, record: Record, started_at: int | None = None, saved: bytes | None = None
    ) -> None:
        """`record` runs since `started_at` (UTC ms); its handler keeps `saved`; None: as before."""
        with self.changed:
            self.protocol.note(record, started_at, saved)
        self.nudge()

    def let_next_suspect(self) -> None:
        """Asked at intervals: a suspect that has survived a whole one is not waited for."""
        with self.changed:
            self.protocol.let_next_suspect()
            ready = self.protocol.is_ready()
        if ready:
            self.nudge()

    def close_gates(self, deadline: Deadline) -> None:
        """Nothing passes a gate any more; what is about to has passed on return, or in time."""
        with self.changed:
            self.protocol.close_gates()
            while self.protocol.open is not None and not deadline.over():
                self.changed.wait(deadline.left())

    def abort(self, transaction: Transaction) -> None:
        with self.changed:
            self.protocol.aborted(transaction)
            self.changed.notify_all()

    def unknown(self, transaction: Transaction) -> list[Lease]:
        with self.changed:
            leases = self.protocol.unknown(transaction)
            self.changed.notify_all()
            return leases

    def take_recovered(self) -> list[Outcome]:
        """Outcomes that turned out to be committed after an unknown answer; each is told once."""
        protocol = self.protocol
        if not protocol.recovered:
            return []
        with self.changed:
            recovered, protocol.recovered = protocol.recovered, []
        return recovered

    def close_tables(self, leases: list[Lease]) -> None:
        """Close the stores of ended leases. The caller holds the lock."""
        for lease in leases:
            table = self.tables.pop(lease.partition, None)
            if table is not None:
                # A clean close waits for the disk, under the lock: for the end of the process only.
                table.close(clean=self.stopping.is_set())

    def is_settled(self) -> bool:
        """Whether every outcome that has arrived is committed. The caller holds the lock."""
        return self.protocol.open is None and not self.protocol.is_ready()

    def await_commit(self, partitions: Sequence[int], seconds: float) -> bool:
        """Wait until what is done now on `partitions` is committed; False: not in time.

        The caller holds the lock.
        """
        deadline = Deadline(seconds, self.clock)
        protocol = self.protocol
        # What is done by now, not what its handlers go on to do: those many transactions.
        target = self.committed + (protocol.open is not None) + protocol.transactions_due()
        while protocol.is_open(partitions) or (
            protocol.is_ready(partitions) and self.committed < target
        ):
            if deadline.over():
                return False
            self.changed.wait(deadline.left())
        return True


def _expiry(outcome: Outcome) -> int | None:
    """When the outcome's result is to be deleted from `results`, where it lies there."""
    if outcome.expires_at is None or not is_large(outcome.result):
        return None
    return outcome.expires_at


def _ended(told: Taken, now_ms: int) -> list[tuple[bytes, Entry]]:
    return [(m.record.mark_key, entry_of(m)._replace(time_ms=now_ms)) for m in told.marks]


def _running(note: Note, now_ms: int) -> Entry:
    record = note.record
    place = record.generation, record.seq
    return Entry(*place, Status.RUNNING, now_ms, note.deliveries, note.saved)
