"""Durations as people write them: "30s", "5m", "1h", "1d", "250ms"."""

from __future__ import annotations

import re

from taskmill.runtime.errors import ConfigError

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_FORM = re.compile(r"(?P<number>\d{1,12}(?:\.\d{1,9})?)(?P<unit>ms|s|m|h|d)", re.ASCII)

FORM = 'a number and one of ms, s, m, h, d, such as "30s" or "250ms"'


def parse_duration(text: str) -> float:
    """The seconds that `text` names, zero or more. Raises ConfigError for any other form.

    A bare number is refused: "30" has been read as seconds, minutes and milliseconds before.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"duration {text[:40]!r}: expected {FORM}")
    return float(match["number"]) * _SECONDS[match["unit"]]
