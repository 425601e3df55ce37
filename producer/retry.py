"""What becomes of an attempt that failed, as pure values: when to try again, when to give up."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from taskmill.runtime.duration import FORM, parse_duration
from taskmill.runtime.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidResult,
    Reject,
    RetryAfter,
)

#: What is remembered of a task that waits must outlast the wait; a week is within every window.
LONGEST_S = 7 * 86_400.0
MAX_ATTEMPTS = 1_000_000

Exceptions = tuple[type[BaseException], ...]

#: Whatever the policy says: another attempt would fail of the same.
NEVER: Exceptions = (Reject, DeadlineExceeded, InvalidResult)


@dataclass(frozen=True, slots=True)
class Retry:
    """How a task is tried again: at most `max_attempts` in all, the first one included, the second
    `base` after the first has failed, each later one after `factor` times the wait before it, but
    none after more than `max`.

    `on`: exceptions (their subclasses too) that are worth another attempt; `give_up_on`: those of
    them that are not. Durations are text, such as "30s". Raises ConfigError.
    """

    max_attempts: int = 5
    base: str = "1s"
    factor: float = 4
    max: str = "1h"
    on: Exceptions = (Exception,)
    give_up_on: Exceptions = ()
    _base_s: float = field(init=False, repr=False, compare=False, default=0.0)
    _max_s: float = field(init=False, repr=False, compare=False, default=0.0)

    def __post_init__(self) -> None:
        check_max_attempts("Retry: ", self.max_attempts)
        is_number = isinstance(self.factor, int | float) and not isinstance(self.factor, bool)
        if not is_number or not 1 <= self.factor <= 1_000:
            raise ConfigError(f"Retry: factor={self.factor!r:.40}: allowed are 1 to 1000")
        object.__setattr__(self, "_base_s", _seconds("base", self.base))
        object.__setattr__(self, "_max_s", _seconds("max", self.max))
        for name in ("on", "give_up_on"):
            object.__setattr__(self, name, _exceptions(name, getattr(self, name)))

    @staticmethod
    def after(wait: str, why: str = "") -> RetryAfter:
        """`raise Retry.after("10s")`: try again then, whatever the policy says of the wait; it
        counts as an attempt. Raises ConfigError for what is no duration up to seven days."""
        return RetryAfter(_seconds("after", wait), why)

    def wait_s(self, attempt: int) -> float:
        """Seconds between the failure of attempt number `attempt` (from 1) and the next one."""
        # A power beyond what a float holds is beyond `max` too.
        power = min(attempt - 1, 10_000)
        try:
            return min(self._base_s * float(self.factor) ** power, self._max_s)
        except OverflowError:
            return self._max_s

    def next_after(
        self, attempt: int, error: BaseException, max_attempts: int | None = None
    ) -> float | None:
        """Seconds until the next attempt, where number `attempt` failed of `error`; None: give up.

        `max_attempts` is the call's own, in place of the policy's. `retry_after` of an exception,
        in seconds, is heeded, as RetryAfter is: both outdo the policy's wait.
        """
        if attempt >= (self.max_attempts if max_attempts is None else max_attempts):
            return None
        if isinstance(error, RetryAfter):
            return error.seconds
        if isinstance(error, (*NEVER, *self.give_up_on)):
            return None
        if not isinstance(error, self.on):
            return None
        asked = _retry_after(error)
        return self.wait_s(attempt) if asked is None else asked


def says_when(error: BaseException) -> bool:
    """Whether `error` itself says when to come back: that time is exact, and not rounded up."""
    return isinstance(error, RetryAfter) or _retry_after(error) is not None


def _retry_after(error: BaseException) -> float | None:
    """What `error` says of when to come back, as the exceptions of many HTTP clients do: seconds,
    as a number or its text, or a timedelta. None where it says nothing that can be read."""
    asked: Any = getattr(error, "retry_after", None)
    if isinstance(asked, timedelta):
        asked = asked.total_seconds()
    elif isinstance(asked, str):
        try:
            asked = float(asked)
        except ValueError:
            return None
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not asked >= 0:
        return None
    return min(float(asked), LONGEST_S)


def check_max_attempts(what: str, given: int) -> None:
    """Raise ConfigError, which starts with `what`, for a number of attempts that is none."""
    if not isinstance(given, int) or not 1 <= given <= MAX_ATTEMPTS:
        raise ConfigError(f"{what}max_attempts={given!r:.40}: allowed are 1 to {MAX_ATTEMPTS}")


def _seconds(name: str, text: str) -> float:
    if not isinstance(text, str):
        raise ConfigError(f"Retry: {name}={text!r:.40}: expected {FORM}")
    try:
        seconds = parse_duration(text)
    except ConfigError as error:
        raise ConfigError(f"Retry: {name}: {error}") from None
    if seconds > LONGEST_S:
        raise ConfigError(f"Retry: {name}={text!r}: at most 7d")
    return seconds


def _exceptions(name: str, given: Any) -> Exceptions:
    listed = given if isinstance(given, tuple | list) else (given,)
    for one in listed:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise ConfigError(f"Retry: {name}: {one!r:.60} is no exception class")
    return tuple(listed)


#: One attempt and no more.
ONCE = Retry(max_attempts=1)
