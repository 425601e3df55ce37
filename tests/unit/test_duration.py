from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.runtime.duration import parse_duration
from taskmill.runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("5m", 300), ("1h", 3600), ("1d", 86400), (" 1.5h ", 5400)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1 s", "1w", "1h30m", "1e3s", "٣s", "∞"])
def test_any_other_form_is_refused_in_one_line_that_says_what_is_allowed(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a number and one of ms, s, m, h, d") as caught:
        parse_duration(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except ConfigError:
        pass
