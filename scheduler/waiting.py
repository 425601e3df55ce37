"""What waits in one partition of a retry tier: in order, bounded, never early. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

#: Records of a partition that are held, and their bytes: enough to pass on 10,000 a second while
#: more are fetched, of each of many partitions.
MAX_RECORDS = 10_000
MAX_BYTES = 8 * 1024 * 1024
#: Nothing is fetched for a partition whose next record is due later than this.
AHEAD_MS = 5_000


class Held(NamedTuple, Generic[T]):
    """A record and when it is due, in UTC milliseconds."""

    offset: int
    due: int
    size: int
    record: T


class Waiting(Generic[T]):
    """One partition. `delay_ms` is the tier's, `next_offset` the lowest that has not come yet."""

    __slots__ = ("_bytes", "_held", "_last_due", "delay_ms", "is_paused", "next_offset")

    def __init__(self, delay_ms: int) -> None:
        self.delay_ms = delay_ms
        self.next_offset: int | None = None
        self.is_paused = False
        self._held: deque[Held[T]] = deque()
        self._bytes = 0
        self._last_due = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, offset: int, appended_at: int, size: int, record: T) -> None:
        """`record`, appended at `appended_at` (UTC ms by the broker). One that was here before is
        not taken twice: a fetch may start over."""
        if self.next_offset is not None and offset < self.next_offset:
            return
        self.next_offset = offset + 1
        # A new leader's clock may be behind the last one's; the order stays.
        self._last_due = max(self._last_due, appended_at + self.delay_ms)
        self._held.append(Held(offset, self._last_due, size, record))
        self._bytes += size

    @property
    def due_at(self) -> int | None:
        """When the next one is due; None: none is held."""
        return self._held[0].due if self._held else None

    def due(self, now_ms: int, limit: int) -> list[Held[T]]:
        """Those that are due, at most `limit`; they stay until `passed_on`."""
        found: list[Held[T]] = []
        for one in self._held:
            if one.due > now_ms or len(found) == limit:
                break
            found.append(one)
        return found

    def passed_on(self, count: int) -> None:
        """So many of the first are on their way, for good."""
        for _ in range(count):
            self._bytes -= self._held.popleft().size

    def turn(self, now_ms: int, pause: Callable[[], None], resume: Callable[[int], bool]) -> None:
        """Pause the partition where enough is held, or nothing is due soon; resume it in time, from
        the offset that is given, unless that returns False: then at the next turn."""
        held = self._held
        divisor = 2 if self.is_paused else 1
        is_full = len(held) * divisor >= MAX_RECORDS or self._bytes * divisor >= MAX_BYTES
        is_early = bool(held) and held[0].due - now_ms > AHEAD_MS
        if is_full or is_early:
            if not self.is_paused:
                pause()
                self.is_paused = True
        elif self.is_paused:
            assert self.next_offset is not None, "what was paused held something"
            self.is_paused = not resume(self.next_offset)
