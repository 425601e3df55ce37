"""What waits in a partition of a retry tier: never early, in order, bounded, fetched in time."""

from __future__ import annotations

import pytest

from taskmill.scheduler.waiting import AHEAD_MS, MAX_BYTES, MAX_RECORDS, Waiting


class Fetcher:
    """What a consumer is told; it is not ready to resume the first `unready` times."""

    def __init__(self, unready: int = 0) -> None:
        self.told: list[object] = []
        self._unready = unready

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self, offset: int) -> bool:
        self.told.append(offset)
        self._unready -= 1
        return self._unready < 0


@pytest.fixture
def waiting() -> Waiting[str]:
    return Waiting(1_000)


def offsets(waiting: Waiting[str], now_ms: int, limit: int = 100) -> list[int]:
    return [one.offset for one in waiting.due(now_ms, limit)]


def test_nothing_is_due_early(waiting: Waiting[str]) -> None:
    waiting.add(0, 5_000, 1, "a")
    assert offsets(waiting, 5_999) == []
    assert offsets(waiting, 6_000) == [0]
    assert waiting.due_at == 6_000


def test_what_is_due_stays_until_it_has_been_passed_on(waiting: Waiting[str]) -> None:
    for offset in range(5):
        waiting.add(offset, 0, 1, "a")
    assert offsets(waiting, 9_000, limit=3) == [0, 1, 2]
    assert offsets(waiting, 9_000) == [0, 1, 2, 3, 4]
    waiting.passed_on(3)
    assert offsets(waiting, 9_000) == [3, 4]


def test_a_clock_that_went_back_changes_no_order(waiting: Waiting[str]) -> None:
    waiting.add(0, 5_000, 1, "a")
    waiting.add(1, 3_000, 1, "b")
    assert offsets(waiting, 5_999) == []
    assert offsets(waiting, 6_000) == [0, 1]


def test_a_fetch_that_starts_over_brings_nothing_twice(waiting: Waiting[str]) -> None:
    for offset in (3, 4, 6, 3, 4, 5, 6, 7):  # offsets have gaps, of markers
        waiting.add(offset, 0, 1, "a")
    assert offsets(waiting, 1_000) == [3, 4, 6, 7]


def test_it_is_paused_while_nothing_is_due_soon_and_resumed_in_time() -> None:
    waiting: Waiting[str] = Waiting(60_000)
    fetcher = Fetcher()
    waiting.turn(0, fetcher.pause, fetcher.resume)
    assert fetcher.told == []  # it holds nothing yet
    waiting.add(10, 0, 1, "a")
    for now in (0, 60_000 - AHEAD_MS - 1):
        waiting.turn(now, fetcher.pause, fetcher.resume)
    assert fetcher.told == ["pause"]
    waiting.turn(60_000 - AHEAD_MS, fetcher.pause, fetcher.resume)
    assert fetcher.told == ["pause", 11]
    waiting.turn(60_000, fetcher.pause, fetcher.resume)
    assert fetcher.told == ["pause", 11]


def test_a_consumer_that_is_not_ready_is_asked_again(waiting: Waiting[str]) -> None:
    fetcher = Fetcher(unready=1)
    waiting.delay_ms = 60_000
    waiting.add(0, 0, 1, "a")
    waiting.turn(0, fetcher.pause, fetcher.resume)
    for _ in range(3):
        waiting.turn(60_000, fetcher.pause, fetcher.resume)
    assert fetcher.told == ["pause", 1, 1]


@pytest.mark.parametrize("size", [1, MAX_BYTES // 100])
def test_what_is_held_is_bounded_and_fetched_again_at_half(
    waiting: Waiting[str], size: int
) -> None:
    fetcher, offset = Fetcher(), 0
    while not fetcher.told:
        waiting.add(offset, 0, size, "a")
        offset += 1
        waiting.turn(1_000, fetcher.pause, fetcher.resume)
    assert len(waiting) == (MAX_RECORDS if size == 1 else 101)
    waiting.passed_on(len(waiting) // 2 - 1)
    waiting.turn(1_000, fetcher.pause, fetcher.resume)
    assert fetcher.told == ["pause"]
    waiting.passed_on(3)
    waiting.turn(1_000, fetcher.pause, fetcher.resume)
    assert fetcher.told == ["pause", offset]
