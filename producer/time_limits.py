"""When a task may start, and how long it may take: each attempt, until its start, all in all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from taskmill.runtime.duration import FORM, parse_duration
from taskmill.runtime.errors import ConfigError

#: Ten years: beyond any use, and far from where sums of milliseconds would no longer fit a record.
MAX_S = 3650 * 86_400.0
#: The end of the year 2199, in UTC milliseconds; likewise.
LATEST_MS = 7_258_118_400_000 - 1


class Start(NamedTuple):
    """When a call's task may start: so many milliseconds after it is enqueued, or at that time (UTC
    milliseconds); both None: at once."""

    delay_ms: int | None = None
    at_ms: int | None = None

    def not_before(self, now_ms: int) -> int | None:
        """The earliest start of a task that is enqueued at `now_ms`; None: at once."""
        return self.at_ms if self.delay_ms is None else now_ms + self.delay_ms


#: Shared by all that may start at once.
AT_ONCE = Start()


def start_of(delay: str | None, at: datetime | str | None) -> Start:
    """The start that `delay`, a duration, or `at`, a point in time, names. Raises ConfigError."""
    if delay is None and at is None:
        return AT_ONCE
    if at is None:
        return Start(delay_ms=_milliseconds("", "delay", delay, least_s=0.0))
    if delay is not None:
        raise ConfigError(f"delay={delay!r:.40} and at={str(at)!r:.40}: give one of them")
    return Start(at_ms=moment_ms("at", at))


def moment_ms(name: str, at: datetime | str) -> int:
    """`at`, a datetime with a time zone or its ISO 8601 text, in UTC milliseconds (rounded up: what
    starts then is never early). Raises ConfigError, which says what `name` allows."""
    moment = at
    if isinstance(at, str):
        try:
            moment = datetime.fromisoformat(at)
        except ValueError:
            raise ConfigError(
                f"{name}={at!r:.40}: expected a time in ISO 8601, such as 2027-01-31T08:00Z"
            ) from None
    if not isinstance(moment, datetime):
        raise ConfigError(f"{name}={at!r:.40}: expected a datetime, or a time in ISO 8601")
    if moment.tzinfo is None:
        raise ConfigError(
            f"{name}={str(at)!r:.40} has no time zone: say which, as in 2027-01-31T08:00Z, "
            "08:00+01:00, or tzinfo=ZoneInfo(…)"
        )
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    milliseconds = -(since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds)
    found = -(milliseconds // 1000)
    if not 0 <= found <= LATEST_MS:
        raise ConfigError(f"{name}={str(at)!r:.40}: allowed are the years 1970 to 2199")
    return found


class TimeLimits(NamedTuple):
    """Milliseconds; None: as the task declares, or without a limit where the task itself says so.

    `timeout_ms` is an attempt's, from its start. `expires_ms` and `deadline_ms` count from enqueue,
    of a delayed task from when it may start: one that has not started by the first expires; nothing
    of it runs beyond the second.
    """

    timeout_ms: int | None = None
    expires_ms: int | None = None
    deadline_ms: int | None = None


#: Shared by all that set none.
NO_LIMITS = TimeLimits()


def time_limits(
    what: str, timeout: str | None, expires: str | None, deadline: str | None
) -> TimeLimits:
    """The limits that these durations name; `what` (a task, an option) starts the ConfigError for
    one that is none."""
    if timeout is None and expires is None and deadline is None:
        return NO_LIMITS
    return TimeLimits(
        _milliseconds(what, "timeout", timeout),
        _milliseconds(what, "expires", expires),
        _milliseconds(what, "deadline", deadline),
    )


def _milliseconds(what: str, name: str, text: str | None, least_s: float = 0.001) -> int | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise ConfigError(f"{what}{name}={text!r:.40}: expected {FORM}")
    try:
        seconds = parse_duration(text)
    except ConfigError as error:
        raise ConfigError(f"{what}{name}: {error}") from None
    if not least_s <= seconds <= MAX_S:
        least = "1ms" if least_s else "0s"
        raise ConfigError(f"{what}{name}={text!r}: allowed are {least} to 3650d")
    return round(seconds * 1000)
