"""The ledger of offsets, against a plain model."""

from __future__ import annotations

from itertools import accumulate
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from taskmill.consumer.window import Window


def test_an_empty_window_commits_where_it_starts() -> None:
    window = Window(7)
    assert window.watermark == window.next_offset == 7
    assert window.take([], 1) == 7


def test_an_offset_is_delivered_once() -> None:
    window = Window(5)
    assert window.deliver(5)
    assert not window.deliver(5)
    assert not window.deliver(4)
    assert window.next_offset == 6


def test_the_watermark_is_the_lowest_unfinished_offset() -> None:
    window = Window(0)
    for offset in (0, 1, 2, 5, 6):  # gaps are transaction markers
        window.deliver(offset)
    assert window.take([0, 2, 6], 1) == 1
    window.settle([0, 2, 6])
    assert window.take([1, 5], 2) == 7
    window.settle([1, 5])
    assert window.watermark == 7
    assert len(window) == 0


def test_what_is_put_back_holds_the_watermark_again() -> None:
    window = Window(0)
    for offset in range(3):
        window.deliver(offset)
    assert window.take([0, 1], 1) == 2
    window.put_back([0, 1])
    assert window.take([2], 2) == 0
    window.settle([2])
    assert window.watermark == 0
    assert window.span == 3


@given(st.lists(st.integers(1, 3), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_any_order_of_completion_commits_only_what_is_finished_below(
    gaps: list[int], random: Random
) -> None:
    offsets = list(accumulate(gaps))
    window = Window(offsets[0])
    for offset in offsets:
        assert window.deliver(offset)
    unfinished, number, last = set(offsets), 0, window.watermark
    while unfinished:
        number += 1
        taken = random.sample(sorted(unfinished), random.randint(1, len(unfinished)))
        expected = min(unfinished - set(taken), default=offsets[-1] + 1)
        assert window.take(taken, number) == expected
        if random.random() < 0.6:
            window.settle(taken)
            unfinished -= set(taken)
            assert window.watermark == min(unfinished, default=offsets[-1] + 1)
        else:
            window.put_back(taken)
        assert window.watermark >= last, "a watermark never regresses"
        last = window.watermark
