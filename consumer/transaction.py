"""What one Kafka transaction is to write, under which fence, and how to tell that it committed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from taskmill.consumer.record import Lease, Outcome
from taskmill.consumer.table import Entry


class Fence(NamedTuple):
    """Group metadata as the last rebalance callback saw it, with our assignment epoch."""

    epoch: int
    metadata: object


class Transaction(NamedTuple):
    """What one Kafka transaction writes: outcomes, and the offset of each partition they touch."""

    number: int
    fence: Fence
    outcomes: dict[int, list[Outcome]]
    offsets: dict[int, int]
    leases: dict[int, Lease]

    @property
    def size(self) -> int:
        return sum(map(len, self.outcomes.values()))


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
