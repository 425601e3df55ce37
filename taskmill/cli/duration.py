"""Durations as values of options: "30s", "250ms", in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from taskmill.runtime.duration import parse_duration
from taskmill.runtime.errors import ConfigError

if TYPE_CHECKING:
    _Floats = click.ParamType[float]
else:
    _Floats = click.ParamType  # generic from click 8.4 on only


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
