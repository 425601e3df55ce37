"""The changelog store: an ordered bytes-to-bytes map of one partition of one compacted topic.

It is a cache. The topic is the truth, the store knows the offset that it reaches, and wiping it
costs a restore. The durable one is in store_lmdb.py, opened through store_open.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

#: A key and its value; None deletes.
Put = tuple[bytes, bytes | None]

#: Entries that an iteration reads at a time, unless told otherwise.
CHUNK = 1000


class Store(Protocol):
    """What a table needs of its local copy. Safe to hand from thread to thread."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, in order; None where there is none."""
        ...

    def apply(self, puts: Iterable[Put], offset: int) -> None:
        """Write `puts` (key of 1 byte or more, value or None to delete; the last of equal keys
        wins) and the checkpoint `offset` in one local transaction: all of it, or nothing.

        The checkpoint never goes back. An empty `puts` records that nothing changed up to there.
        """
        ...

    def checkpoint(self) -> int:
        """The next changelog offset to read; 0 when new."""
        ...

    def items(
        self, start: bytes = b"", end: bytes | None = None, chunk: int = CHUNK
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries whose key is at least `start`, and less than `end` (at most 479 bytes; None: no
        bound), in key order; so many are read at a time, or fewer where they are large.

        The order is exact for keys up to 510 bytes; longer ones stand where their first 479 do.
        Writing while iterating is allowed: what was written since may or may not show.
        """
        ...

    def count(self) -> int:
        """Number of entries."""
        ...

    def close(self, clean: bool) -> None:
        """Release it; `clean` also makes it durable, so that it survives a machine's crash."""
        ...


class MemoryStore:
    """The contract in a dict, for the test harness and the simulator."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._order: list[bytes] | None = []
        self._checkpoint = 0

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [*map(self._values.get, keys)]

    def apply(self, puts: Iterable[Put], offset: int) -> None:
        batch = list(puts)
        if any(not key for key, _ in batch):
            raise ValueError("a store's key has at least one byte")
        for key, value in batch:
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value
        if batch:
            self._order = None
        self._checkpoint = max(self._checkpoint, offset)

    def checkpoint(self) -> int:
        return self._checkpoint

    def items(
        self, start: bytes = b"", end: bytes | None = None, chunk: int = CHUNK
    ) -> Iterator[tuple[bytes, bytes]]:
        if self._order is None:
            self._order = sorted(self._values)
        order = self._order
        stop = len(order) if end is None else bisect_left(order, end)
        for index in range(bisect_left(order, start), stop):
            value = self._values.get(order[index])
            if value is not None:
                yield order[index], value

    def count(self) -> int:
        return len(self._values)

    def close(self, clean: bool) -> None:
        self._values.clear()
        self._order = []
