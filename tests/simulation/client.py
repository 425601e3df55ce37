"""One process's consumer client: positions, pauses, and what it knows of its group."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple


class Event(NamedTuple):
    """A rebalance callback that is due."""

    kind: Literal["assign", "revoke", "lost"]
    partitions: list[int]
    #: Group metadata as the callback reads it: (generation or member epoch, member ID).
    metadata: Any = None


class Client:
    """`slot` is its static instance ID; `member` what the group knows it by, None: not joined."""

    __slots__ = ("assigned", "generation", "member", "paused", "position", "slot")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.member: int | None = None
        self.generation = -1
        self.assigned: set[int] = set()
        #: Where the next fetch of a partition starts; none before the first seek.
        self.position: dict[int, int] = {}
        self.paused: set[int] = set()

    def assign(self, partitions: list[int]) -> None:
        self.assigned.update(partitions)
        for p in partitions:
            self.position.pop(p, None)
            self.paused.discard(p)

    def unassign(self, partitions: list[int]) -> None:
        self.assigned.difference_update(partitions)
        for p in partitions:
            self.position.pop(p, None)
            self.paused.discard(p)

    def seek(self, partition: int, offset: int) -> None:
        """Resume and seek."""
        self.paused.discard(partition)
        self.position[partition] = offset
