"""A protocol that owns partitions, and the records that go through it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from taskmill.consumer.protocol import Limits, Protocol, Transaction
from taskmill.consumer.record import Lease, Outcome, Reason, Record, Source
from taskmill.consumer.table import Entry, position_key
from taskmill.schemas.models import JSON, Task
from taskmill.schemas.states import Status

#: The name of tasks declared `delivery="at_most_once"`.
ONCE = "once"


def record(
    lease: Lease,
    offset: int,
    key: str | None = None,
    generation: int = 0,
    seq: int = 0,
    name: str = "work",
    belongs_to: int | None = None,
) -> Record:
    """A record of 10 bytes; its ID is its offset, where none is given."""
    task = Task(key or f"id-{offset}", name, b"{}", JSON, 0, generation=generation, seq=seq)
    source = Source("tasks", lease.partition, offset, 0, task.id.encode(), bytes(10), ())
    key_bytes = task.id.encode()
    return Record(lease, offset, key_bytes, generation, seq, task, source, belongs_to=belongs_to)


def garbage(lease: Lease, offset: int, key: str) -> Record:
    """Bytes that are no task, under the key of one."""
    p = lease.partition
    source = Source("tasks", p, offset, 0, key.encode(), b"garbage", ())
    mark_key = position_key("tasks", p, offset)
    fault = (Reason.UNDECODABLE, "it starts with 6761")
    return Record(lease, offset, mark_key, 0, 0, None, source, fault)


def succeeded(one: Record) -> Outcome:
    return Outcome(one, Status.SUCCEEDED)


def owner(*partitions: int, limits: Limits | None = None, at: int = 0) -> Protocol:
    """A protocol that owns `partitions`, restored and fetched from offset `at` on."""
    protocol = Protocol(limits, frozenset({ONCE}))
    for lease in protocol.assigned(partitions, "generation 1").restore:
        protocol.restored(lease, at, {})
        protocol.fetching(lease)
    claim(protocol)
    return protocol


def claim(protocol: Protocol) -> None:
    """Commit that it is at work on what it owns."""
    transaction = protocol.begin()
    if transaction is not None:
        assert not transaction.size
        assert protocol.committed(transaction) == []


def held(protocol: Protocol, p: int = 0) -> Lease:
    lease = protocol.lease(p)
    assert lease is not None
    return lease


def deliver(
    protocol: Protocol, records: Sequence[Record], table: dict[bytes, Entry] | None = None
) -> list[Record]:
    """Deliver `records` of one partition; `table` is what its idempotency table holds."""
    entries = [(table or {}).get(one.mark_key) for one in records]
    return protocol.deliver(records[0].lease.partition, records, entries)


def started(protocol: Protocol, p: int, offsets: Iterable[int]) -> list[Record]:
    """Records at `offsets` of `p`, delivered and running."""
    lease = held(protocol, p)
    return deliver(protocol, [record(lease, offset) for offset in offsets])


def begun(protocol: Protocol) -> Transaction:
    transaction = protocol.begin()
    assert transaction is not None
    return transaction


def entry(one: Record, status: Status = Status.SUCCEEDED) -> Entry:
    return Entry(one.generation, one.seq, status, 0)


def marks(transaction: Transaction, p: int = 0) -> list[tuple[bytes, Status | None]]:
    return [(o.record.mark_key, o.status) for o in transaction.outcomes[p]]
