"""One worker process: a real Protocol, and the threads of poll.py, engine.py and restorer.py.

Each thread is a generator that follows its original line by line; every `yield` is a place where
another thread, process or broker may come first. `fault` asks whether the schedule has planned for
something to go wrong there.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from simulation.client import Client
from simulation.committer import Committer, Running
from simulation.message import AT_MOST_ONCE
from simulation.store import Store, marks_of
from taskmill.consumer.orders import Order
from taskmill.consumer.protocol import Limits, Phase, Protocol
from taskmill.consumer.protocol import Transaction as Work
from taskmill.consumer.record import Lease, Outcome, Record
from taskmill.schemas.states import Status

if TYPE_CHECKING:
    from simulation.world import World

Thread = Generator[None, None, None]

#: Every bound is met within a few records.
SMALL = Limits(in_flight=6, in_flight_bytes=40, span=8, per_transaction=3)

_ENDED = object()


class Worker:
    """A process in `slot`, from its start to its end; a restart is a new Worker on its disk."""

    BATCH = 4
    #: A revocation waits this many steps of its thread (REVOKE_S of poll.py).
    PATIENCE = 30
    #: Steps that a thread stands still where it is told to.
    LONG = 50

    def __init__(self, world: World, slot: int, disk: dict[int, Store]) -> None:
        self.world = world
        self.slot = slot
        self.disk = disk
        #: Unlike `id`, the same in every run of a schedule.
        self.birth = world.birth()
        self.alive = True
        #: Stopped by the system beyond its session, or not: it does not know.
        self.frozen = False
        self.draining = False
        #: What goes wrong next, by kind: in which ways, from 1 on, one after the other.
        self.faults: dict[str, list[int]] = {}
        self.protocol: Protocol = world.bug.protocol(world.limits, frozenset({AT_MOST_ONCE}))
        self.client = Client(slot)
        self.tables: dict[int, Store] = {}
        self.tenures: dict[Lease, int] = {}
        self.running: list[Record] = []
        self.outcomes: list[Outcome] = []
        self.answered = 0
        self.committer = Committer(self)
        #: Transactions left behind without an answer.
        self.hanging: list[Running] = []
        self._to_restore: list[Lease] = []
        self._to_seek: list[Lease] = []
        self._generation: Any = None
        self._threads = [self._poll(), self._commit(), self._restore(), self._control()]

    def __repr__(self) -> str:
        return f"Worker({self.slot}, member {self.client.member})"

    def step(self, thread: int) -> None:
        if self.alive and not self.frozen:
            next(self._threads[thread])

    def fault(self, kind: str) -> int:
        """In which way the call goes wrong that asks; 0: it does not."""
        ways = self.faults.get(kind)
        return ways.pop(0) if ways else 0

    def stand(self, place: int) -> Thread:
        """The thread that comes here stands still for long, if the schedule says so."""
        ways = self.faults.get("stand")
        if ways and ways[0] == place:
            del ways[0]
            for _ in range(self.LONG):
                if self.world.is_settling:
                    return
                yield

    def stir(self) -> None:
        """A transaction that was left behind goes on a little."""
        if self.alive and not self.frozen and self.hanging:
            call = self.hanging[0]
            if next(call, _ENDED) is _ENDED:
                self.hanging.remove(call)

    def crash(self) -> None:
        """SIGKILL: memory is gone; the disk, and requests on their way, are not."""
        if self.alive:
            self.alive = False
            for record in self.running:
                self.world.oracle.crashed(self, record)

    # ---- handlers -------------------------------------------------------------------------------

    def submit(self, records: list[Record]) -> None:
        for record in records:
            self.world.oracle.starts(self, record)
        self.running += records

    def cancel(self, ended: list[Lease]) -> None:
        """Async handlers of ended leases stop at once; threads (odd offsets) run on."""
        if ended:
            self.running = [r for r in self.running if r.lease.held or r.offset % 2]

    def _stop(self) -> None:
        """Handlers that are to end: some do at once, others go on, or fail in their own way."""
        stop, self.protocol.to_stop = self.protocol.to_stop, []
        for record in stop:
            if record.offset % 3 and any(one is record for one in self.running):
                self.complete(record, Outcome(record, Status.CANCELLED))

    def complete(self, record: Record, outcome: Outcome) -> None:
        self.running.remove(record)
        self.outcomes.append(outcome)

    # ---- the poll thread ------------------------------------------------------------------------

    def _poll(self) -> Thread:
        protocol = self.protocol
        while True:
            self._take_commands()
            self._flow()
            yield
            yield from self.stand(1)
            yield from self._serve()
            batch = self._fetch({}, 1)
            if batch:
                if all(self.world.bug.lease(protocol, p) is None for p in batch):
                    batch = {}
                yield from self._serve()
                batch = self._fetch(batch, self.BATCH)
            for p, messages in batch.items():
                lease = self.world.bug.lease(protocol, p)
                if lease is None:
                    continue
                records = [message.decode(lease, offset) for offset, message in messages]
                yield
                yield from self.stand(2)
                if self.world.bug.lease(protocol, p) is lease:
                    table = self.tables[p].entries
                    entries = [table.get(record.mark_key) for record in records]
                    self.submit(protocol.deliver(p, records, entries))
                yield
            self.world.oracle.bounded(self)

    def _fetch(self, batch: dict[int, list[Any]], limit: int) -> dict[int, list[Any]]:
        """consume(limit): what is there, from where the partitions' fetchers are."""
        client = self.client
        taken = sum(map(len, batch.values()))
        for p in sorted(client.assigned):
            position = client.position.get(p)
            if position is None or p in client.paused or taken >= limit:
                continue
            found, client.position[p] = self.world.tasks[p].read(position, limit - taken)
            if found:
                taken += len(found)
                messages = batch.setdefault(p, [])
                messages += [(offset, item.value) for offset, item in found]
        return batch

    def _take_commands(self) -> None:
        waiting, self._to_seek = self._to_seek, []
        for lease in waiting:
            offset = self.protocol.next_offset(lease.partition)
            if not lease.held or offset is None:
                continue
            if self.fault("seek"):
                self._to_seek.append(lease)  # its fetcher has not started yet
                continue
            self.client.seek(lease.partition, offset)
            self.protocol.fetching(lease)

    def _flow(self) -> None:
        protocol, client = self.protocol, self.client
        pause, resume = protocol.flow(hold=self.draining or protocol.is_full())
        client.paused.update(pause)
        for p in resume:
            offset = protocol.next_offset(p)
            assert offset is not None
            client.seek(p, offset)

    def _serve(self) -> Thread:
        """Rebalance callbacks, inside consume()."""
        while (event := self.world.group.event(self.client)) is not None:
            if event.kind == "assign":
                self._on_assign(event.partitions, event.metadata)
            elif event.kind == "revoke":
                yield from self._on_revoke(event.partitions)
            else:
                self._generation = None
                self._drop(event.partitions)
                self.client.unassign(event.partitions)
            yield

    def _on_assign(self, indexes: list[int], metadata: Any) -> None:
        protocol, before = self.protocol, self._generation
        follows = self.world.bug.follows(before, metadata)
        assignment = protocol.assigned(indexes, metadata, follows=follows)
        self._close(assignment.ended)
        starts = {p: protocol.next_offset(p) for p in indexes}
        hold = self.draining or protocol.is_full()
        held = protocol.flow(hold=True)[0] if hold else []
        self._generation = metadata
        self.client.assign(indexes)
        for lease in assignment.restore:
            self.tenures.setdefault(lease, self.world.group.tenure[lease.partition])
        restoring = {lease.partition for lease in assignment.restore}
        for p, offset in starts.items():
            if p not in restoring and offset is not None:
                self.client.seek(p, offset)
        self.client.paused.update(held)
        self.cancel(assignment.ended)
        self._to_restore += assignment.restore

    def _on_revoke(self, indexes: list[int]) -> Thread:
        protocol, patience = self.protocol, self.PATIENCE
        protocol.release(indexes)
        target = self.answered + (protocol.open is not None) + protocol.transactions_due()
        while protocol.open is not None or (protocol.is_ready(indexes) and self.answered < target):
            patience -= 1
            if not patience or self.fault("patience"):
                break
            yield
        if self.world.group.incremental:
            self._drop(indexes)
        else:
            ended = protocol.suspend(indexes)
            self._close(ended)
            self.cancel(ended)
        self.world.group.revoked(self.client, indexes)

    def leave(self, *, is_told: bool) -> None:
        """The consumer failed for good: everything is dropped, a new one joins. The group is told
        at once, but for a static member, which may leave without a word."""
        self._drop(self.protocol.partitions)
        if self.client.member is not None and (is_told or self.world.group.incremental):
            self.world.group.expire(self.client.member)
        self.client = Client(self.slot)
        self._generation = None
        self._threads[0] = self._poll()

    def _drop(self, indexes: list[int]) -> None:
        ended = self.protocol.lost(indexes)
        self._close(ended)
        self.cancel(ended)

    def _close(self, ended: list[Lease]) -> None:
        for lease in ended:
            self.tables.pop(lease.partition, None)

    # ---- the commit thread ----------------------------------------------------------------------

    def _commit(self) -> Thread:
        protocol, committer = self.protocol, self.committer
        while True:
            yield from committer.open()
            self._collect()
            work = protocol.begin()
            if work is None:
                yield
                continue
            self.world.bug.begun(self, work)
            answer, reached = yield from committer.run(work)
            yield
            yield from self.stand(3)
            if answer == "committed":
                self.apply(work, reached)
                self.submit(protocol.committed(work))
                self._stop()
                self.answered += 1
            elif answer == "aborted":
                protocol.aborted(work)
                self.answered += 1
            else:
                leases = self.world.bug.unknown(self, work)
                self.answered += 1
                yield from committer.open()
                self._to_restore += leases
            yield

    def _collect(self) -> None:
        outcomes, self.outcomes = self.outcomes, []
        self.protocol.complete(outcomes)

    def apply(self, work: Work, reached: dict[int, int]) -> None:
        """The marks of `work` enter the tables, up to the changelog offsets `reached`."""
        for p, outcomes in work.outcomes.items():
            if not work.leases[p].held or p not in self.tables:
                continue
            marks = marks_of(work.orders.get(p), work.notes.get(p, []), outcomes)
            if marks:
                self.tables[p].apply(marks, reached.get(p, self.tables[p].checkpoint))
                self.world.oracle.applied(p, marks)

    # ---- the control thread ---------------------------------------------------------------------

    def _control(self) -> Thread:
        protocol, world = self.protocol, self.world
        while True:
            for lease, at in protocol.control_places().items():
                p = lease.partition
                if at is None:
                    while not world.coordinator.is_stable(p):
                        yield
                    at = world.coordinator.controls.get(p, 0)
                    yield
                    protocol.control_from(lease, at)
                found, _ = world.control[p].read(at, 2)
                orders = [Order(offset, item.value) for offset, item in found]
                yield
                if protocol.takes_orders(lease) and p in self.tables:
                    self._obey(lease, orders)
                    self._stop()
            yield

    def _obey(self, lease: Lease, orders: list[Order]) -> None:
        table = self.tables[lease.partition].entries
        self.protocol.obey(lease, orders, [table.get(order.mark_key) for order in orders])

    # ---- the restore thread ---------------------------------------------------------------------

    def _restore(self) -> Thread:
        while True:
            while not self._to_restore:
                yield
            yield from self._restore_one(self._to_restore.pop(0))

    def _restore_one(self, lease: Lease) -> Thread:
        p, world = lease.partition, self.world

        def stop() -> bool:
            return not lease.held

        if stop():
            return
        self.tables.pop(p, None)  # nothing is delivered meanwhile
        store = self.disk.setdefault(p, Store())
        log = world.state[p]
        early = log.end
        yield
        while not world.coordinator.is_stable(p):
            yield
            if stop():
                return
        committed = world.coordinator.committed[p]
        controls = world.coordinator.controls.get(p, 0)
        asked = world.control[p].read(controls, 100)[0]
        yield
        end = world.bug.changelog_end(log, early)
        position = store.checkpoint
        while position < end:
            yield
            if stop():
                return
            found, position = log.read(position, self.fault("read") or 100)
            store.apply([(item.key, item.value) for _, item in found], position)
        yield
        if stop() or self.protocol.phase(p) is not Phase.RESTORING:
            return
        world.oracle.restored(self, lease, store.entries)
        self.tables[p] = store
        entries = store.entries
        unknown = self.protocol.unknown_marks(lease)
        start = self.protocol.restored(
            lease,
            committed or 0,
            {k: entries[k] for k in unknown if k in entries},
            unclean=p in world.coordinator.at_work,
            end=world.tasks[p].end,
        )
        if not world.bug.reads_later(lease):
            self.protocol.control_from(lease, controls)
            self._obey(lease, [Order(offset, item.value) for offset, item in asked])
            self._stop()
        self.submit(start)
        self._to_seek.append(lease)
