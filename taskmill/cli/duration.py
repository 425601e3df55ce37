"""Times as values of options: "30s" and "250ms" long, "1h" ago, 50 a second."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import click

from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.duration import parse_duration
from taskmill.runtime.errors import ConfigError

if TYPE_CHECKING:
    _Floats = click.ParamType[float]
    _Moments = click.ParamType["Moment"]
else:
    _Floats = click.ParamType  # generic from click 8.4 on only
    _Moments = click.ParamType


class Duration(_Floats):
    """An option's duration; the command gets seconds."""

    name = "duration"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if not isinstance(value, str):
            return value
        try:
            return parse_duration(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class Moment(NamedTuple):
    """A point in time: as it was given, and in UTC milliseconds."""

    text: str
    ms: int


class MomentType(_Moments):
    """An option's point in time: a duration ago, or ISO 8601, in UTC where it does not say."""

    name = "time"

    def convert(
        self, value: str | Moment, param: click.Parameter | None, ctx: click.Context | None
    ) -> Moment:
        if isinstance(value, Moment):
            return value
        try:
            ago = parse_duration(value)
        except ConfigError:
            pass
        else:
            # As far back as there is anything.
            return Moment(value, max(SYSTEM_CLOCK.now_ms() - round(ago * 1000), 0))
        try:
            time = datetime.fromisoformat(value)
            if time.tzinfo is None:
                time = time.replace(tzinfo=UTC)
            return Moment(value, max(round(time.timestamp() * 1000), 0))
        except (ValueError, OverflowError):
            self.fail(
                f"{value[:40]!r}: expected a time ago, such as 1h, or one in ISO 8601, such as "
                "2026-11-26T14:00 (in UTC) or 2026-11-26T15:00+01:00",
                param,
                ctx,
            )


_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(?:/([smh]))?", re.ASCII)
_PERIOD_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


class Rate(_Floats):
    """An option's rate, "50/s", "30/m"; the command gets how many a second."""

    name = "rate"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if not isinstance(value, str):
            return value
        match = _RATE.fullmatch(value)
        if match is None or float(match[1]) == 0:
            self.fail(f"{value[:40]!r}: expected a number above 0 and /s, /m or /h", param, ctx)
        return float(match[1]) / _PERIOD_S[match[2] or "s"]


_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)%", re.ASCII)


class Percent(_Floats):
    """An option's share, "20%"; the command gets 0.2."""

    name = "percent"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if not isinstance(value, str):
            return value
        match = _PERCENT.fullmatch(value)
        if match is None or float(match[1]) > 100:
            self.fail(f"{value[:40]!r}: expected 0% to 100%", param, ctx)
        return float(match[1]) / 100
