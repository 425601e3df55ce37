"""The ledger of one partition's offsets: what is delivered, taken into a transaction, settled.

Completions come out of order. The *watermark* is the lowest offset that is not settled; it is what
a transaction commits. What is settled above it has its mark in the idempotency table, so that a
crash runs only the unfinished again.

    delivered ──> taken (by the open transaction) ──> settled (committed)
        ▲                      │
        └──── put back ────────┘  (aborted)
"""

from __future__ import annotations

from collections.abc import Iterable


class Window:
    """Offsets of one partition in delivery order. `next_offset` is the lowest not yet delivered."""

    __slots__ = ("_open", "next_offset")

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        # Offset -> number of the transaction that took it, 0 for none. Dicts keep their order,
        # which is the order of delivery, which is the order of offsets.
        self._open: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def deliver(self, offset: int) -> bool:
        """Enter `offset`; False where it was delivered before (a fetch started over)."""
        if offset < self.next_offset:
            return False
        self._open[offset] = 0
        self.next_offset = offset + 1
        return True

    def take(self, offsets: Iterable[int], transaction: int) -> int:
        """Count `offsets` as done by `transaction` (> 0); returns the watermark it commits."""
        entries = self._open
        for offset in offsets:
            entries[offset] = transaction
        for offset, taken_by in entries.items():
            if taken_by != transaction:
                return offset
        return self.next_offset

    def put_back(self, offsets: Iterable[int]) -> None:
        """The transaction did not happen: `offsets` are unfinished again."""
        for offset in offsets:
            self._open[offset] = 0

    def settle(self, offsets: Iterable[int]) -> None:
        """The transaction committed: `offsets` are done for good."""
        entries = self._open
        for offset in offsets:
            del entries[offset]

    @property
    def watermark(self) -> int:
        """The lowest offset not settled; where a new owner would start."""
        return next(iter(self._open), self.next_offset)

    @property
    def span(self) -> int:
        """Offsets from the watermark to the next one to deliver: what a slow task holds up."""
        return self.next_offset - self.watermark
