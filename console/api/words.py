"""Times, durations and expressions as requests write them."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic_core import SchemaError, SchemaValidator, core_schema

from taskmill.console.api.problems import field
from taskmill.runtime.duration import FORM, parse_duration
from taskmill.runtime.errors import ConfigError

_TIME = 'a time ago, such as "1h", or one in ISO 8601, such as 2026-11-26T14:00Z'
#: Beyond any use, and far from where a database's integers end.
_LATEST_MS = 253_402_300_799_999


def seconds(name: str, text: str, most: float, kind: str = "malformed") -> float:
    """The seconds of a duration, 0 to `most`. Raises Refused."""
    try:
        found = parse_duration(text)
    except ConfigError as error:
        raise field(kind, name, str(error), FORM) from None
    if found > most:
        raise field(kind, name, f"{text[:40]!r} is too long", f"0s to {most:g}s")
    return found


def moment_ms(name: str, text: str | None, now_ms: int, kind: str = "malformed") -> int | None:
    """A point in time in UTC milliseconds: a duration ago, or ISO 8601 (in UTC where it does not
    say). Raises Refused."""
    if text is None:
        return None
    try:
        return max(now_ms - round(parse_duration(text) * 1000), 0)
    except ConfigError:
        pass
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        return min(max(round(time.timestamp() * 1000), 0), _LATEST_MS)
    except (ValueError, OverflowError):
        raise field(kind, name, f"{text[:40]!r} is no time", _TIME) from None


class Expression:
    """A regular expression whose time grows with the text alone: with `re`, one line of somebody's
    could hold up the console for ever."""

    __slots__ = ("_schema",)

    def __init__(self, text: str) -> None:
        """Raises ValueError for one that is none, or asks for look-around or back-references."""
        try:
            self._schema = SchemaValidator(core_schema.str_schema(pattern=text))
        except SchemaError as error:
            lines = [line.strip() for line in str(error).splitlines()]
            raise ValueError(lines[-1].removeprefix("error: ")) from None

    def search(self, text: str, /) -> object | None:
        """True where it matches anywhere in `text`, else None."""
        return self._schema.isinstance_python(text) or None
