"""How figures are judged, paired and shown."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("value", "better", "goal", "verdict"),
    [
        (9.0, "higher", None, "MISSED"),
        (10.0, "higher", None, "met"),
        (19.0, "higher", 20.0, "met"),
        (20.0, "higher", 20.0, "goal"),
        (11.0, "lower", None, "MISSED"),
        (10.0, "lower", None, "met"),
        (5.0, "lower", 5.0, "goal"),
    ],
)
def test_a_figure_is_judged_by_its_must_and_its_goal(
    measure: ModuleType, value: float, better: str, goal: float | None, verdict: str
) -> None:
    assert measure.Figure("f", value, "ms", better, 10.0, goal).verdict == verdict


def test_a_figure_without_a_must_is_not_judged(measure: ModuleType) -> None:
    assert measure.Figure("f", 1.0, "ms").verdict == ""


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 1))
def test_a_quantile_is_a_value_with_at_least_its_share_not_above_it(
    values: list[float], q: float
) -> None:
    import measure

    found = measure.quantile(values, q)
    assert found in values
    assert sum(v <= found for v in values) >= q * len(values) - 1e-6


def test_quantiles_of_a_hundred_values_are_the_ones_at_their_places(measure: ModuleType) -> None:
    values = [float(v) for v in range(100, 0, -1)]
    assert [measure.quantile(values, q) for q in (0.0, 0.5, 0.99, 1.0)] == [1, 51, 100, 100]


def test_the_sides_of_a_pair_take_turns_at_going_first(measure: ModuleType) -> None:
    orders = [measure.sides(pair, "ours", "theirs") for pair in range(4)]
    assert [first for first, _ in orders] == ["theirs", "ours", "theirs", "ours"]
    assert all(set(order) == {"ours", "theirs"} for order in orders)


@pytest.mark.parametrize(
    ("value", "text"),
    [(31_234.5, "31,234"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123")],
)
def test_a_value_is_shown_with_three_digits_that_count(
    measure: ModuleType, value: float, text: str
) -> None:
    assert measure.shown(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(25_000, "25,000"), (0.5, "0.5"), (3.0, "3"), (None, "")]
)
def test_a_bound_is_shown_as_it_was_asked(
    measure: ModuleType, value: float | None, text: str
) -> None:
    assert measure.bound(value) == text


def test_a_report_keeps_its_figures_and_tells_of_a_miss(
    measure: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measure, "HERE", tmp_path)
    good = measure.Figure("good", 2.0, "×", "higher", 1.0, None, 1.5)
    bad = measure.Figure("bad", 2.0, "ms", "lower", 1.0)
    assert measure.report("q", "A question?", [good], {"tasks": 1}) is True
    assert measure.report("q", "A question?", [good, bad], {"tasks": 1}) is False
    kept = json.loads((tmp_path / "results" / "q.json").read_text())
    assert kept["figures"][0] == {
        "name": "good", "value": 2.0, "unit": "×", "better": "higher",
        "must": 1.0, "goal": None, "reference": 1.5,
    }  # fmt: skip
    assert {"date", "machine", "versions", "settings", "question"} <= kept.keys()
