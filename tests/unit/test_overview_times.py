"""What the overview says of times, from counts by bucket and their sum."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.console.api.overview import quantile
from taskmill.console.store.rows import BOUNDS_MS, BUCKETS

TIMES = st.lists(st.integers(0, BOUNDS_MS[-1]), min_size=1, max_size=50)


def counted(times: Sequence[int]) -> tuple[list[list[int]], int]:
    buckets = [0] * BUCKETS
    for time in times:
        buckets[bisect_left(BOUNDS_MS, time)] += 1
    return [buckets], sum(times)


@given(TIMES, st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(times: list[int], share: float) -> None:
    found = quantile(*counted(times), share)
    at = min(len(times) - 1, int(len(times) * share))
    low = bisect_left(BOUNDS_MS, sorted(times)[max(0, at - 1)])
    high = bisect_left(BOUNDS_MS, sorted(times)[at])
    assert found is not None
    assert (0, *BOUNDS_MS)[low] <= found * 1000 <= BOUNDS_MS[high]


@given(TIMES)
def test_more_take_longer(times: list[int]) -> None:
    found = [quantile(*counted(times), share) or 0.0 for share in (0.1, 0.5, 0.9, 1.0)]
    assert found == sorted(found)


@pytest.mark.parametrize("time", [0, 61_000, 299_000])
def test_times_alike_at_the_ends_of_a_wide_bucket_are_told_as_they_are(time: int) -> None:
    (p50, p95) = (quantile(*counted([time] * 400), share) for share in (0.5, 0.95))
    assert p50 == pytest.approx(time / 1000, rel=0.45, abs=0.001)
    assert p95 == pytest.approx(time / 1000, rel=0.45, abs=0.001)


def test_what_was_not_counted_has_no_time_and_what_is_too_long_the_last_bound() -> None:
    assert quantile([], 0, 0.5) is None
    assert quantile([[0] * BUCKETS], 0, 0.5) is None
    assert quantile(*counted([BOUNDS_MS[-1] * 3]), 0.5) == BOUNDS_MS[-1] / 1000
