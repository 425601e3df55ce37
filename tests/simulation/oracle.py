"""What must hold: checked whenever a transaction is decided, a handler starts, a table changes.

1. One committed outcome an (ID, generation, seq), one terminal one an (ID, generation), one dead
   letter an outcome; each accepted ID ends in a terminal outcome of its greatest generation.
2. Committed offsets never regress and never pass a record without a committed outcome, and never
   the last stable offset.
3. What one transaction of the protocol writes is in one transaction of Kafka, all of it.
4. The local table holds committed marks only; once restored it is the fold of all of them.
5. A handler never starts again while its first run may still count, nor after its outcome.
6. What is in flight stays within the limits, and comes to nothing.
7. What is gated starts behind its committed `running` mark; what is to run at most once starts
   once, stale owners counted; what a handler kept is there at its next start.
8. What was asked for on `control` is passed once that generation of its ID has ended, or a newer
   one has come; its offset never goes back.
9. Nothing starts before its partition says "at work", nor after as many sudden ends as the limit;
   who is taken for a killer, or for abandoned, was running by the mark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from simulation.broker import Transaction, controls_of
from simulation.message import AT_MOST_ONCE, TOPIC, Message
from taskmill.consumer.intake import CRASH_LIMIT
from taskmill.consumer.record import Lease, Reason, Record
from taskmill.consumer.table import Decision, Entry, decide, fold, position_key
from taskmill.schemas.states import TERMINAL, Status

if TYPE_CHECKING:
    from simulation.worker import Worker
    from simulation.world import World


class Violation(AssertionError):
    """A promise broken."""


Place = tuple[bytes, int, int]


def _is_noted(entry: Entry | None, record: Record) -> bool:
    """Whether the table says that `record` runs."""
    return entry is not None and entry[:3] == (record.generation, record.seq, Status.RUNNING)


class Oracle:
    """Knows everything that was decided, in the order of decision."""

    def __init__(self, world: World, partitions: int) -> None:
        self._world = world
        self.folded: list[dict[bytes, Entry]] = [{} for _ in range(partitions)]
        self.outcomes: dict[Place, Status] = {}
        #: Committed `running` marks, and what has started of at-most-once tasks.
        self._noted: set[tuple[bytes, Entry]] = set()
        self._once: set[Place] = set()
        #: What an ID's entry was when its outcome was committed.
        self._before: dict[Place, Entry | None] = {}
        #: How many dead letters were written, by their reason.
        self.reasons: Counter[Reason] = Counter()
        #: How often a worker died while it ran something.
        self._crashes: Counter[Place] = Counter()
        self._ended: set[tuple[bytes, int]] = set()
        self._letters: set[Place] = set()
        #: Serials of misrouted messages that lie on their home partition for good.
        self._rerouted: set[int] = set()
        self.offsets = [0] * partitions
        #: Of `control`.
        self.controls = [0] * partitions
        #: All that was ever committed of a place: a next attempt may be cancelled behind its mark.
        self._said: set[tuple[Place, Status]] = set()
        #: The greatest generation accepted of each ID.
        self.accepted: dict[bytes, int] = {}
        self._runs: dict[Place, tuple[Worker, Lease]] = {}

    def accept(self, message: Message) -> None:
        """A client was told that `message` is stored."""
        if not message.is_garbage:
            known = self.accepted.get(message.key, 0)
            self.accepted[message.key] = max(known, message.generation)

    # ---- transactions ---------------------------------------------------------------------------

    def committing(self, transaction: Transaction) -> None:
        """`transaction` is about to be committed."""
        self._is_whole(transaction)
        world = self._world
        for log, _, key, value in transaction.records:
            if log in world.state_logs:
                self._mark(world.state_logs[log], key, value)
            elif log is world.dlq:
                self._letter((key, *value[:2]), value[2])
            elif isinstance(value, Message):
                self._rerouted.add(value.serial)
        for p, offset in transaction.offsets.items():
            self._moves(p, offset, transaction)
        for p, offset in transaction.controls.items():
            self._passes(p, offset)

    def _letter(self, place: Place, reason: Reason) -> None:
        if place in self._letters:
            raise Violation(f"a second dead letter of {place}")
        self._letters.add(place)
        self.reasons[reason] += 1
        before = self._before.get(place)
        is_running = before is not None and before[:3] == (*place[1:], Status.RUNNING)
        if reason is Reason.ABANDONED and not is_running:
            raise Violation(f"{place} is abandoned, and has not run: {before}")
        if reason is Reason.CRASH_LOOP and not (
            is_running and before is not None and before.deliveries >= CRASH_LIMIT - 1
        ):
            raise Violation(f"{place} is taken for a killer, and its mark says {before}")

    def _is_whole(self, transaction: Transaction) -> None:
        if len(transaction.parts) != 1:
            raise Violation(f"one Kafka transaction holds {len(transaction.parts)} of ours")
        (part,) = transaction.parts
        if transaction.offsets != part.work.offsets:
            raise Violation(f"offsets {transaction.offsets} instead of {part.work.offsets}")
        if transaction.controls != controls_of(part.work):
            raise Violation(f"offsets of control {transaction.controls}")
        if len(transaction.records) != part.records:
            raise Violation(f"{len(transaction.records)} of {part.records} records are committed")

    def _mark(self, p: int, key: bytes, entry: Entry) -> None:
        place = (key, entry.generation, entry.seq)
        is_stopped = entry.status is Status.CANCELLED and self.outcomes.get(place) not in TERMINAL
        if place in self.outcomes and not is_stopped:
            raise Violation(f"a second outcome of {place}: {self.outcomes[place]}, {entry.status}")
        if (key, entry.generation) in self._ended:
            raise Violation(f"{place} ends after its generation has ended")
        known = self.folded[p].get(key)
        if known is not None and known[:2] > entry[:2]:
            raise Violation(f"{place} is marked behind {known}: compaction leaves only that")
        if entry.status is Status.RUNNING:
            self._noted.add((key, entry))
            self.folded[p][key] = fold(known, entry)
            return
        self.outcomes[place] = entry.status
        self._said.add((place, entry.status))
        self._before[place] = known
        if entry.status in TERMINAL:
            self._ended.add((key, entry.generation))
        self.folded[p][key] = fold(known, entry)

    def _moves(self, p: int, offset: int, transaction: Transaction) -> None:
        before, log = self.offsets[p], self._world.tasks[p]
        if offset < before:
            raise Violation(f"the offset of {p} goes back from {before} to {offset}")
        if offset > log.stable_end:
            raise Violation(f"the offset {offset} of {p} is beyond the last stable one")
        for position in range(before, offset):
            item = log.items[position]
            if item is None or (item.transaction is not None and not item.transaction.decision):
                continue
            if not self._is_done(item.value, p, position):
                raise Violation(f"the offset {offset} of {p} passes {item.value!r} at {position}")
        self.offsets[p] = offset

    def _passes(self, p: int, offset: int) -> None:
        """The group's offset of `control` moves."""
        before = self.controls[p]
        if offset < before:
            raise Violation(f"the offset of control {p} goes back from {before} to {offset}")
        for item in self._world.control[p].items[before:offset]:
            assert item is not None
            asked = item.value.generation or 0
            newest = self.accepted.get(item.key, 0)
            if not any((item.key, g) in self._ended for g in range(asked, 3)) and newest <= asked:
                raise Violation(f"{item.value} is passed, and nothing of it has ended")
        self.controls[p] = offset

    def _is_done(self, message: Message, p: int, position: int) -> bool:
        if message.home != p:
            return message.serial in self._rerouted
        if message.is_garbage:
            place = (position_key(TOPIC, p, position), 0, 0)
            return place in self.outcomes and place in self._letters
        entry = self.folded[p].get(message.key)
        if decide(entry, message.generation, message.seq) is Decision.DUPLICATE:
            return True
        # Superseded: a newer one behind it speaks for the ID, and holds the offset in its turn.
        behind = islice(self._world.tasks[p].items, position + 1, None)
        return any(
            item is not None
            and item.key == message.key
            and item.value.generation > message.generation
            and not item.value.is_garbage
            for item in behind
        )

    # ---- workers --------------------------------------------------------------------------------

    def is_stale(self, lease: Lease, tenure: int) -> bool:
        """Whether the partition has had another owner since, whatever the holder believes."""
        return not lease.held or self._world.group.tenure[lease.partition] != tenure

    def starts(self, worker: Worker, record: Record) -> None:
        """A handler starts for `record`."""
        place = (record.mark_key, record.generation, record.seq)
        lease = record.lease
        is_once = record.task is not None and record.task.name == AT_MOST_ONCE
        if is_once:
            if place in self._once:
                raise Violation(f"{place} starts once more, and is to run at most once")
            self._once.add(place)
        if self.is_stale(lease, worker.tenures[lease]):
            return  # it does not know yet; its fence will tell it
        if not self._world.coordinator.says_at_work(lease.partition):
            raise Violation(f"{place} starts, and nobody would know of a sudden end")
        if self._crashes[place] >= CRASH_LIMIT:
            raise Violation(f"{place} starts again after {self._crashes[place]} sudden ends")
        earlier = self._runs.get(place)
        self._runs[place] = (worker, lease)
        if earlier is not None:
            other, other_lease = earlier
            if other.alive and not self.is_stale(other_lease, other.tenures[other_lease]):
                raise Violation(f"{place} starts while its run under {other_lease} may yet count")
        entry = self.folded[lease.partition].get(record.mark_key)
        if (record.is_gated or is_once) and not _is_noted(entry, record):
            raise Violation(f"{place} starts before its running mark is committed: {entry}")
        if _is_noted(entry, record) and entry is not None and record.saved != entry.saved:
            raise Violation(f"{place} starts with {record.saved!r}, and has kept {entry.saved!r}")
        if decide(entry, record.generation, record.seq) is not Decision.RUN:
            raise Violation(f"{place} starts again; its outcome is committed: {entry}")

    def crashed(self, worker: Worker, record: Record) -> None:
        """Its worker ends without a word while a handler runs for `record`."""
        if self.is_stale(record.lease, worker.tenures[record.lease]):
            return
        # In a classic rebalance a partition is let go and taken back while its handlers run on; an
        # end in between is not told from one in order.
        if self._world.coordinator.says_at_work(record.lease.partition):
            self._crashes[record.mark_key, record.generation, record.seq] += 1

    def opened(self, worker: Worker) -> None:
        """A producer was made: a transaction of its slot's predecessor must not be open."""
        for transaction in self._world.coordinator.current.values():
            for part in transaction.parts:
                if part.slot == worker.slot and transaction.decision is None:
                    raise Violation(f"{worker} leaves {transaction.producer}'s transaction open")

    def applied(self, p: int, marks: Iterable[tuple[bytes, Entry]]) -> None:
        """Marks entered a local table."""
        for key, entry in marks:
            if entry.status is Status.RUNNING:
                committed = (key, entry) in self._noted
            else:
                committed = ((key, *entry[:2]), entry.status) in self._said
            if not committed:
                raise Violation(f"a mark in the table of {p} is not committed: {key!r} {entry}")

    def restored(self, worker: Worker, lease: Lease, table: dict[bytes, Entry]) -> None:
        """A restore ended; `table` is what records of the lease's partition are judged by."""
        folded = self.folded[lease.partition]
        if not self.is_stale(lease, worker.tenures[lease]) and table != folded:
            differ = {
                k: (table.get(k), folded.get(k))
                for k in table.keys() | folded.keys()
                if table.get(k) != folded.get(k)
            }
            raise Violation(f"the restored table of {lease} is not what is committed: {differ}")

    def bounded(self, worker: Worker) -> None:
        """After each poll."""
        held, limits = worker.protocol.in_flight, worker.protocol.limits
        if not 0 <= held < limits.in_flight + worker.BATCH:
            raise Violation(f"{held} records in flight")

    # ---- the end --------------------------------------------------------------------------------

    def finished(self) -> None:
        """Nothing is left to do."""
        for key, generation in self.accepted.items():
            p = self._world.home(int(key))
            entry = self.folded[p].get(key)
            if entry is None or entry.generation != generation or entry.status not in TERMINAL:
                raise Violation(f"{key!r}, accepted in generation {generation}, ends as {entry}")
        dead = {place for place, status in self.outcomes.items() if status is Status.DEAD}
        if dead != self._letters:
            raise Violation(f"dead, and dead letters, differ in {dead ^ self._letters}")
        for worker in self._world.workers:
            protocol = worker.protocol
            parts = protocol._parts.values()
            if (
                protocol.open is not None
                or protocol.in_flight
                or protocol._bytes
                or any(part.window or part.live or part.ready or part.bytes for part in parts)
                or any(part.orders.pending or part.lease.cancelled for part in parts)
                or any(part.orders.awaits or part.orders.marked for part in parts)
            ):
                raise Violation(f"{worker} is done, and still holds something")
