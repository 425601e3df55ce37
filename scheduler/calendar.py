"""When a schedule is due: cron lines in a zone, and fixed periods, as instants in UTC. No I/O.

What a cron line means where the clock is changed (the rule of cron(8)):

- A line that names some hours means times of the day. One that is skipped is due at the instant in
  which the gap ends, once, whatever else is due then; one that comes twice is due the first time.
- A line that names all 24 hours means the clock: it is due whenever that shows a time which it
  names, in both of a repeated hour's rounds, and not at all for times that are skipped.

It does not matter how the hours are written: `*`, `*/1` and `0-23` are all hours, `*/2` is some.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from taskmill.runtime.errors import ConfigError
from taskmill.scheduler.cron import CronLine, cron_line

#: No zone has changed its clock twice within so few seconds.
_STEP_S = 6 * 3600
#: Beyond any use, and far from where dates end.
LAST_MS = 253_000_000_000_000
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  (a wall's clock)
_UTC_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Rule(Protocol):
    """What says when a schedule is due."""

    def after(self, ms: int) -> int | None:
        """The first nominal time after `ms`, both in UTC milliseconds; None: there is none."""
        ...


class Every:
    """Every `period_ms` from an anchor on, in both directions."""

    def __init__(self, period_ms: int, anchor_ms: int = 0) -> None:
        self.period_ms = period_ms
        self._anchor_ms = anchor_ms % period_ms

    def after(self, ms: int) -> int | None:
        count = (ms - self._anchor_ms) // self.period_ms + 1
        found = self._anchor_ms + count * self.period_ms
        return found if found <= LAST_MS else None


class Cron:
    """A cron line in an IANA zone."""

    def __init__(self, line: CronLine, zone: ZoneInfo) -> None:
        self._line = line
        self._zone = zone
        self._after = self._shown_after if line.is_hourly else self._named_after

    def after(self, ms: int) -> int | None:
        if ms >= LAST_MS:
            return None
        found = self._after(ms // 1000)
        return None if found is None or found * 1000 > LAST_MS else found * 1000

    def _shown_after(self, at: int) -> int | None:
        """The first second after `at` in which the zone's clock shows a time of the line."""
        offset = self._offset(at)
        local = at + offset
        while (found := self._line.after(local)) is not None:
            due = found - offset
            change = self._change(at, due)
            if change is None:
                return due
            # Up to the change there is none; from it on the clock shows other times.
            at, offset = change, self._offset(change)
            local = at + offset - 1
        return None

    def _named_after(self, at: int) -> int | None:
        """The first instant after `at` to which a time of the line belongs. Later times belong to
        later instants, or to the same (a gap's end)."""
        local = at + self._offset(at)
        while (found := self._line.after(local)) is not None:
            due = self._instant(found)
            if due > at:
                return due
            local = found
        return None

    def _offset(self, at: int) -> int:
        """The zone's offset from UTC at an instant, both in seconds."""
        moment = (_UTC_EPOCH + timedelta(seconds=at)).astimezone(self._zone)
        offset = moment.utcoffset()
        assert offset is not None, "a zone has one"
        return offset.days * 86_400 + offset.seconds

    def _change(self, after: int, until: int) -> int | None:
        """The first instant in (after, until] at which the offset is another one than before."""
        offset, low = self._offset(after), after
        while low < until:
            high = min(low + _STEP_S, until)
            if self._offset(high) != offset:
                return self._narrow(low, high)
            low = high
        return None

    def _narrow(self, low: int, high: int) -> int:
        """The instant of the one change in (low, high]."""
        before = self._offset(low)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == before:
                low = middle
            else:
                high = middle
        return high

    def _instant(self, local: int) -> int:
        """The first instant at which the clock shows `local`; the end of the gap that skips it."""
        wall = (_EPOCH + timedelta(seconds=local)).replace(tzinfo=self._zone)
        # PEP 495: of a time that is skipped or repeated, fold=0 has the offset from before.
        first, second = wall.utcoffset(), wall.replace(fold=1).utcoffset()
        assert first is not None, "a zone has one"
        assert second is not None, "a zone has one"
        due = local - round(first.total_seconds())
        if second <= first:
            return due
        return self._narrow(local - round(second.total_seconds()), due)


@lru_cache(maxsize=512)
def zone_of(name: str) -> ZoneInfo:
    """The IANA zone of that name. Raises ConfigError."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        raise ConfigError(
            f"zone {name!r:.80} is unknown; expected an IANA name, such as Europe/Paris"
        ) from None


def cron_rule(text: str, tz: str) -> Rule:
    """The times of a cron line in a zone. Raises ConfigError."""
    return Cron(cron_line(text), zone_of(tz))
