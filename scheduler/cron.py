"""Cron lines: what they name, as wall-clock times without a zone. No I/O.

croniter reads the line (fields, names, steps, `@hourly`); the search is ours: over sorted values,
some microseconds a time, where croniter's own walks field by field. A local time here is the count
of seconds since 1970-01-01T00:00:00 on the wall's clock.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from datetime import date, timedelta
from functools import lru_cache

from croniter import croniter

from taskmill.runtime.errors import ConfigError

DAY_S = 86_400
#: 29 February on a given weekday comes at most 40 years after the last one (over 2100).
_YEARS = 41
_LAST_YEAR = 9_000
_EPOCH = date(1970, 1, 1)
#: What croniter would make something random of, or read as if it were not there.
_UNUSABLE = re.compile(r"(?<![a-z])[hrw](?![a-z])|\dw", re.IGNORECASE | re.ASCII)

FORM = (
    "minute, hour, day of month, month, day of week, and seconds as a sixth, "
    'or one of @hourly, @daily, @weekly, @monthly, @yearly, such as "0 3 * * mon-fri"'
)


class CronLine:
    """A line of five or six fields, the sixth being seconds. Made by `cron_line`."""

    def __init__(self, text: str) -> None:
        """Raises ConfigError for what is no cron line, or names no time at all."""
        self.text = text
        if not isinstance(text, str) or not text.isascii() or len(text) > 500:
            raise ConfigError(f"cron {text!r:.80}: expected {FORM}")
        fields = text.split()
        if len(fields) not in (5, 6) and not (len(fields) == 1 and text.strip()[0] == "@"):
            raise ConfigError(f"cron {text!r:.80}: expected {FORM}")
        if _UNUSABLE.search(text):
            raise ConfigError(f"cron {text!r:.80}: H, R and W are not taken; expected {FORM}")
        try:
            expanded, nth = croniter.expand(" ".join(fields))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"cron {text!r:.80}: {' '.join(str(error).split())}") from None
        minutes, hours, days, months, weekdays = expanded[:5]
        seconds = expanded[5] if len(expanded) > 5 else [0]
        #: All hours are named: such a line goes by what the clock shows, every real hour.
        self.is_hourly = "*" in hours
        self._hours = _values(hours, range(24))
        self._minutes = _values(minutes, range(60))
        self._seconds = _values(seconds, range(60))
        self._months = frozenset(_values(months, range(1, 13)))
        # One that names all days is as good as none, however it is written; croniter would have it
        # so for some ways of writing it, and not for others.
        self._days = None if "*" in days or set(range(1, 32)) <= set(days) else frozenset(days)
        is_every_day = "*" in weekdays or set(range(7)) <= set(weekdays)
        self._weekdays = None if is_every_day and not nth else frozenset(weekdays)
        #: By weekday (Sunday is 0): which of the month, "l" for the last.
        self._nth: dict[int, set[int | str]] = dict(nth)
        if self._next_day(date(2000, 1, 1)) is None:
            raise ConfigError(f"cron {text!r:.80}: no such day ever comes")

    def after(self, local: int) -> int | None:
        """The first time that it names after `local`; None: none before the year 9000."""
        day, second = divmod(local + 1, DAY_S)
        try:
            here = _EPOCH + timedelta(days=day)
        except OverflowError:
            return None
        if self._is_day(here):
            time = self._time_from(second)
            if time is not None:
                return day * DAY_S + time
        found = self._next_day(here + timedelta(days=1))
        if found is None:
            return None
        time = self._time_from(0)
        assert time is not None, "every field has a value"
        return (found - _EPOCH).days * DAY_S + time

    def _time_from(self, second: int) -> int | None:
        """The first time of a day that is not before `second` of it."""
        hour, rest = divmod(second, 3600)
        at = bisect_left(self._hours, hour)
        if at < len(self._hours) and self._hours[at] == hour:
            minute, left = divmod(rest, 60)
            m = bisect_left(self._minutes, minute)
            if m < len(self._minutes) and self._minutes[m] == minute:
                s = bisect_left(self._seconds, left)
                if s < len(self._seconds):
                    return hour * 3600 + minute * 60 + self._seconds[s]
                m += 1
            if m < len(self._minutes):
                return hour * 3600 + self._minutes[m] * 60 + self._seconds[0]
            at += 1
        if at < len(self._hours):
            return self._hours[at] * 3600 + self._minutes[0] * 60 + self._seconds[0]
        return None

    def _next_day(self, day: date) -> date | None:
        """The first day that it names, from `day` on."""
        last = min(day.year + _YEARS, _LAST_YEAR)
        while day.year <= last:
            if day.month not in self._months:
                day = date(day.year + day.month // 12, day.month % 12 + 1, 1)
            elif self._is_day(day):
                return day
            else:
                day += timedelta(days=1)
        return None

    def _is_day(self, day: date) -> bool:
        if day.month not in self._months:
            return False
        if self._days is None:
            return self._weekdays is None or self._is_weekday(day)
        is_last = "l" in self._days and (day + timedelta(days=1)).day == 1
        is_numbered = is_last or day.day in self._days
        # Both given: either will do (crontab(5)).
        if self._weekdays is None or is_numbered:
            return is_numbered
        return self._is_weekday(day)

    def _is_weekday(self, day: date) -> bool:
        assert self._weekdays is not None, "asked for lines that name some"
        weekday = day.isoweekday() % 7
        if weekday not in self._weekdays:
            return False
        wanted = self._nth.get(weekday)
        if wanted is None:
            return True
        return (day.day - 1) // 7 + 1 in wanted or (
            "l" in wanted and (day + timedelta(days=7)).month != day.month
        )

    def __repr__(self) -> str:
        return f"<cron {self.text!r}>"


@lru_cache(maxsize=4096)
def cron_line(text: str) -> CronLine:
    """The line, read once. Raises ConfigError, one line that says what is wrong with it."""
    return CronLine(text)


def _values(field: list[int | str], all_of: range) -> list[int]:
    return list(all_of) if "*" in field else sorted(int(value) for value in field)
