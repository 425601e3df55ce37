"""What came by the minute: counted once for minutes that are over, for each caller its queues."""

from __future__ import annotations

import asyncio
from typing import Any

from taskmill.console.api.arrivals import Arrivals

MINUTE = 60_000


class Reads:
    """A store of two queues, in which as many tasks come each minute as its number says."""

    def __init__(self) -> None:
        self.store = self
        self.asked: list[tuple[int, int]] = []

    def arrivals(self, since: int, until: int) -> list[tuple[str, int, int]]:
        minutes = range(since, until, MINUTE)
        return [(queue, at, at // MINUTE) for at in minutes for queue in ("a", "b") if at]

    async def ask(self, read: Any, since: int, until: int) -> Any:
        self.asked.append((since // MINUTE, until // MINUTE))
        return read(since, until)


def seen(arrivals: Arrivals, since: int, until: int, queues: str) -> list[int]:
    asked = arrivals.by_minute(since * MINUTE, until * MINUTE, lambda queue: queue in queues)
    found = asyncio.run(asked)
    return [found[at * MINUTE] for at in range(since, until)]


def test_minutes_that_are_over_are_counted_once() -> None:
    reads = Reads()
    arrivals = Arrivals(reads)  # type: ignore[arg-type]
    assert seen(arrivals, 0, 10, "ab") == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert seen(arrivals, 1, 11, "a") == list(range(1, 11))
    assert seen(arrivals, 0, 11, "")[-1] == 0
    # The last three may still grow; what is further back than anybody asked for is read.
    assert reads.asked == [(0, 10), (8, 11), (8, 11)]


def test_a_longer_look_back_reads_what_it_lacks() -> None:
    reads = Reads()
    arrivals = Arrivals(reads)  # type: ignore[arg-type]
    assert seen(arrivals, 5, 10, "a") == [5, 6, 7, 8, 9]
    assert seen(arrivals, 2, 10, "a") == list(range(2, 10))
    assert reads.asked == [(5, 10), (2, 10)]


def test_only_so_many_minutes_are_kept() -> None:
    reads = Reads()
    arrivals = Arrivals(reads)  # type: ignore[arg-type]
    for back in range(0, 2_000, 180):
        assert seen(arrivals, back, back + 180, "a")[-1] == back + 179
    assert len(arrivals._known) <= 400
