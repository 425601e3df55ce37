"""What one Kafka transaction is to write, under which fence, and how to tell that it committed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from taskmill.consumer.record import Lease, Note, Outcome
from taskmill.consumer.table import Entry


class Fence(NamedTuple):
    """Group metadata as the last rebalance callback saw it, with our assignment epoch."""

    epoch: int
    metadata: object


class Taken(NamedTuple):
    """Of one partition's Orders: outcomes without a record of `tasks`, and the offset of `control`
    that is committed with them, if it is known."""

    marks: list[Outcome]
    offset: int | None


#: By partition.
Expired = Mapping[int, list[tuple[bytes, Entry]]]


class Transaction(NamedTuple):
    """What one Kafka transaction writes: outcomes, notes, and the offset of each partition that
    they touch. `released` are those whose owner lets go of them in order."""

    number: int
    fence: Fence
    outcomes: dict[int, list[Outcome]]
    offsets: dict[int, int]
    leases: dict[int, Lease]
    notes: dict[int, list[Note]]
    released: frozenset[int] = frozenset()
    #: IDs whose result on `results` has outlived its time, and their entries.
    expired: Expired = {}  # noqa: RUF012  (never changed)
    #: What was asked for on `control`, by partition.
    orders: Mapping[int, Taken] = {}

    @property
    def size(self) -> int:
        return sum(map(len, self.outcomes.values()))

    @property
    def all_outcomes(self) -> list[Outcome]:
        """What is told of once it is committed."""
        marked = [mark for told in self.orders.values() for mark in told.marks]
        return marked + [outcome for batch in self.outcomes.values() for outcome in batch]


def is_committed(outcomes: list[Outcome], entries: Mapping[bytes, Entry]) -> bool:
    """A transaction is all or nothing: one mark of it in the table tells for all of it.

    Where it left no mark at all (only duplicates and re-routed records) it counts as not
    committed: doing it again changes nothing, their IDs are deduplicated.
    """
    for outcome in outcomes:
        if outcome.status is None:
            continue
        record = outcome.record
        entry = entries.get(record.mark_key)
        if entry is None:
            return False
        # Rule 6 excludes a greater one from before; equal and still `running` is from before.
        ours, found = (record.generation, record.seq), (entry.generation, entry.seq)
        return found == ours and entry.status is outcome.status
    return False
