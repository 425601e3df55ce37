"""Kafka's logs and its transaction coordinator, as far as readers and fences can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from taskmill.consumer.protocol import Transaction as Work


class Refused(Exception):
    """The coordinator refused a request for good: fenced, or not a member of the group."""


class Busy(Exception):
    """CONCURRENT_TRANSACTIONS: the markers of the one before are not all written; try again."""


class Part:
    """Who writes: a transaction of a worker's protocol, and how many records it is to write."""

    __slots__ = ("records", "slot", "work")

    def __init__(self, slot: int, work: Work, records: int) -> None:
        self.slot = slot
        self.work = work
        self.records = records


class Transaction:
    """One transaction as the broker sees it: whatever its producer's epoch wrote until the end.

    `decision` is durable before the markers are; readers see the records of a log, and group
    members the offsets, only after the marker there.
    """

    __slots__ = (
        "controls",
        "decision",
        "offsets",
        "offsets_marked",
        "parts",
        "producer",
        "records",
        "unmarked",
    )

    def __init__(self, producer: str) -> None:
        self.producer = producer
        self.decision: bool | None = None
        #: (log, offset, key, value) in order.
        self.records: list[tuple[Log, int, bytes, Any]] = []
        self.offsets: dict[int, int] = {}
        #: Offsets of `control`, which come with some of `tasks`.
        self.controls: dict[int, int] = {}
        self.offsets_marked = False
        #: The protocol's transactions that wrote into this one: exactly one, if all is well.
        self.parts: dict[Part, None] = {}
        #: Logs without a marker yet.
        self.unmarked: dict[Log, None] = {}


class Item(NamedTuple):
    """A record in a log; `transaction` None: written by a plain producer."""

    key: bytes
    value: Any
    transaction: Transaction | None


class Log:
    """One partition. Markers take offsets, compaction leaves gaps: both are None."""

    __slots__ = ("_open", "items", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: list[Item | None] = []
        # Transaction -> its first offset here, until its marker. In order of offsets.
        self._open: dict[Transaction, int] = {}

    def append(self, key: bytes, value: Any, transaction: Transaction | None = None) -> int:
        offset = len(self.items)
        self.items.append(Item(key, value, transaction))
        if transaction is not None and transaction not in self._open:
            self._open[transaction] = offset
        return offset

    def mark(self, transaction: Transaction) -> None:
        self.items.append(None)
        del self._open[transaction]

    @property
    def end(self) -> int:
        """The log end offset, which a READ_UNCOMMITTED list_offsets gives."""
        return len(self.items)

    @property
    def stable_end(self) -> int:
        """The last stable offset: a read_committed reader gets no further."""
        return next(iter(self._open.values()), len(self.items))

    def read(self, position: int, limit: int) -> tuple[list[tuple[int, Item]], int]:
        """Up to `limit` committed records from `position`, and the position after them."""
        found: list[tuple[int, Item]] = []
        items, end = self.items, self.stable_end
        while position < end and len(found) < limit:
            item = items[position]
            if item is not None and (item.transaction is None or item.transaction.decision):
                found.append((position, item))
            position += 1
        return found, position

    def compact(self) -> None:
        """Keep the last committed record of each key, below the last stable offset."""
        seen: set[bytes] = set()
        for offset in range(self.stable_end - 1, -1, -1):
            item = self.items[offset]
            if item is None or (item.transaction is not None and not item.transaction.decision):
                continue
            if item.key in seen:
                self.items[offset] = None
            seen.add(item.key)


def controls_of(work: Work) -> dict[int, int]:
    """The offsets of `control` that `work` commits."""
    return {p: told.offset for p, told in work.orders.items() if told.offset is not None}


#: The group's answer to a TxnOffsetCommit: None, or why it is refused.
Refusal = Callable[[Any, Iterable[int]], str | None]


class Coordinator:
    """The transaction coordinator, and the group's committed offsets."""

    def __init__(
        self, partitions: int, refusal: Refusal, committing: Callable[[Transaction], None]
    ) -> None:
        self._refusal = refusal
        self._committing = committing
        self._epochs: dict[str, int] = {}
        #: transactional.id -> its transaction, until the last marker.
        self.current: dict[str, Transaction] = {}
        self.committed: dict[int, int | None] = dict.fromkeys(range(partitions))
        self.controls: dict[int, int] = {}
        #: Whose offset says so in its metadata.
        self.at_work: set[int] = set()

    def says_at_work(self, partition: int) -> bool:
        """What the stable offset says, to whoever waits for the markers that are due."""
        for transaction in self.current.values():
            due = transaction.decision and not transaction.offsets_marked
            if due and partition in transaction.offsets:
                return all(partition not in part.work.released for part in transaction.parts)
        return partition in self.at_work

    def init(self, producer: str) -> int | None:
        """init_transactions: the new epoch; None while the predecessor's transaction is ending."""
        transaction = self.current.get(producer)
        if transaction is None or transaction.decision is None:
            self._epochs[producer] = self._epochs.get(producer, -1) + 1
        if transaction is None:
            return self._epochs[producer]
        if transaction.decision is None:
            self._decide(transaction, commit=False)
        return None

    def _running(self, producer: str, epoch: int) -> Transaction:
        """The open transaction, begun where there is none."""
        if epoch != self._epochs[producer]:
            raise Refused("PRODUCER_FENCED")
        transaction = self.current.get(producer)
        if transaction is None:
            transaction = self.current[producer] = Transaction(producer)
        elif transaction.decision is not None:
            raise Busy
        return transaction

    def produce(
        self, producer: str, epoch: int, log: Log, key: bytes, value: Any, part: Part
    ) -> int:
        """Returns the record's offset. Raises Refused, Busy."""
        transaction = self._running(producer, epoch)
        offset = log.append(key, value, transaction)
        transaction.records.append((log, offset, key, value))
        transaction.unmarked[log] = None
        transaction.parts[part] = None
        return offset

    def send_offsets(
        self, producer: str, epoch: int, offsets: dict[int, int], metadata: Any, part: Part
    ) -> None:
        """Raises Refused, Busy."""
        transaction = self._running(producer, epoch)
        refusal = self._refusal(metadata, offsets)
        if refusal is not None:
            raise Refused(refusal)
        transaction.offsets.update(offsets)
        transaction.controls.update(controls_of(part.work))
        transaction.parts[part] = None

    def end(self, producer: str, epoch: int, *, commit: bool) -> Transaction:
        """EndTxn names the producer and its epoch only: it ends what is open *when it arrives*."""
        transaction = self.current.get(producer)
        if epoch != self._epochs[producer]:
            raise Refused("PRODUCER_FENCED")
        if transaction is None or transaction.decision is not None:
            raise Refused("INVALID_TXN_STATE")
        self._decide(transaction, commit=commit)
        return transaction

    def time_out(self, producer: str) -> None:
        """The broker aborts an open transaction by itself, and fences its producer."""
        transaction = self.current.get(producer)
        if transaction is not None and transaction.decision is None:
            self._epochs[producer] += 1
            self._decide(transaction, commit=False)

    def _decide(self, transaction: Transaction, *, commit: bool) -> None:
        if commit:
            self._committing(transaction)
        transaction.decision = commit
        self._finish(transaction)

    def mark(self, transaction: Transaction, choice: int) -> None:
        """Write one of the markers that are due, the `choice`-th (modulo)."""
        due: list[Log | None] = list(transaction.unmarked)
        if not transaction.offsets_marked:
            due.append(None)
        log = due[choice % len(due)]
        if log is not None:
            log.mark(transaction)
            del transaction.unmarked[log]
        else:
            transaction.offsets_marked = True
            if transaction.decision:
                self.committed.update(transaction.offsets)
                self.controls.update(transaction.controls)
                # What the offsets' metadata says: whether their owner is at work there.
                self.at_work |= transaction.offsets.keys()
                for part in transaction.parts:
                    self.at_work -= part.work.released
        self._finish(transaction)

    def _finish(self, transaction: Transaction) -> None:
        if not transaction.offsets:
            transaction.offsets_marked = True
        if transaction.offsets_marked and not transaction.unmarked:
            del self.current[transaction.producer]

    def mark_all(self, transaction: Transaction) -> None:
        while self.current.get(transaction.producer) is transaction:
            self.mark(transaction, 0)

    def is_stable(self, partition: int) -> bool:
        """Whether no pending transaction may yet move `partition`'s committed offset."""
        return not any(
            partition in transaction.offsets and not transaction.offsets_marked
            for transaction in self.current.values()
        )
