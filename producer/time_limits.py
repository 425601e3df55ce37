"""How long a task may take: each attempt, until its start, and all in all."""

from __future__ import annotations

from typing import NamedTuple

from taskmill.runtime.duration import FORM, parse_duration
from taskmill.runtime.errors import ConfigError

#: Ten years: beyond any use, and far from where sums of milliseconds would no longer fit a record.
MAX_S = 3650 * 86_400.0


class TimeLimits(NamedTuple):
    """Milliseconds; None: as the task declares, or without a limit where the task itself says so.

    `timeout_ms` is an attempt's, from its start. `expires_ms` and `deadline_ms` count from enqueue:
    a task that has not started by the first expires; nothing of it runs beyond the second.
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


def _milliseconds(what: str, name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise ConfigError(f"{what}{name}={text!r:.40}: expected {FORM}")
    try:
        seconds = parse_duration(text)
    except ConfigError as error:
        raise ConfigError(f"{what}{name}: {error}") from None
    if not 0.001 <= seconds <= MAX_S:
        raise ConfigError(f"{what}{name}={text!r}: allowed are 1ms to 3650d")
    return round(seconds * 1000)
