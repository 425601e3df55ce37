"""When schedules are due, against a count of seconds that knows neither croniter nor our search."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from taskmill.runtime.errors import ConfigError
from taskmill.scheduler.calendar import LAST_MS, Every, cron_rule, zone_of
from taskmill.scheduler.cron import cron_line

ZONES = (
    "Europe/Paris",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "Asia/Kolkata",
    "America/Santiago",  # at midnight
    "Africa/Casablanca",
    "Asia/Beirut",
    "UTC",
)
NAMES = {3: ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]}
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
MINUTE_S = 60

#: A field as text, and the values that it means.
Field = tuple[str, frozenset[int]]


@st.composite
def fields(draw: st.DrawFn, place: int) -> Field:
    """A field as people write one: a star, a step, a range, a list, names."""
    low, high = RANGES[place]
    kind = draw(st.sampled_from(("star", "star", "value", "list", "range", "step", "stepped")))
    if kind == "star":
        return "*", frozenset(range(low, high + 1))
    if kind == "step":
        step = draw(st.integers(2, max(2, (high - low) // 2)))
        return f"*/{step}", frozenset(range(low, high + 1, step))
    if kind in ("value", "list"):
        values = draw(st.lists(st.integers(low, high), min_size=1, max_size=3, unique=True))
        texts = [str(value) for value in values]
        if place == 3 and draw(st.booleans()):
            texts = [NAMES[3][value - 1] for value in values]
        if place == 4 and draw(st.booleans()):
            texts = [WEEKDAYS[value] for value in values]
        return ",".join(texts), frozenset(values)
    first = draw(st.integers(low, high - 1))
    last = draw(st.integers(first + 1, high))
    step = draw(st.integers(1, 4)) if kind == "stepped" else 1
    text = f"{first}-{last}" + (f"/{step}" if kind == "stepped" else "")
    return text, frozenset(range(first, last + 1, step))


@st.composite
def lines(draw: st.DrawFn) -> list[Field]:
    return [draw(fields(place)) for place in range(5)]


def names(line: list[Field], wall: datetime) -> bool:
    """Whether the line names that minute of a wall's clock."""
    minute, hour, day, month, weekday = (values for _, values in line)
    if wall.minute not in minute or wall.hour not in hour or wall.month not in month:
        return False
    is_day, is_weekday = wall.day in day, wall.isoweekday() % 7 in weekday
    # One that names all of them, however it is written, is as good as none.
    if len(day) < 31 and len(weekday) < 7:
        return is_day or is_weekday
    return is_day and is_weekday


@cache
def clock(zone: str, start: int, end: int) -> list[tuple[int, datetime, list[datetime]]]:
    """Each minute in [start, end), Unix seconds: what the clock shows, and the times of the day
    that come with it for the first time, those that were skipped among them."""
    found = []
    seen: set[datetime] = set()
    before: datetime | None = None
    for at in range(start, end, MINUTE_S):
        wall = datetime.fromtimestamp(at, ZoneInfo(zone)).replace(tzinfo=None, fold=0)
        new = [wall]
        if before is not None:
            skipped = (wall - before) // timedelta(minutes=1)
            new += [before + timedelta(minutes=n) for n in range(1, skipped)]
        new = [one for one in new if one not in seen]
        seen.update(new)
        found.append((at, wall, new))
        before = wall
    return found


def due_minutes(line: list[Field], zone: str, middle: int, start: int, end: int) -> list[int]:
    """What is due in [start, end), found by looking at every minute around `middle`."""
    is_hourly = len(line[1][1]) == 24
    return [
        at
        for at, wall, new in clock(zone, middle - 3 * 86_400, middle + 3 * 86_400)
        if start <= at < end and any(names(line, one) for one in ([wall] if is_hourly else new))
    ]


def walk(line: list[Field], zone: str, start: int, end: int) -> list[int]:
    rule = cron_rule(" ".join(text for text, _ in line), zone)
    found, at = [], rule.after(start * 1000 - 1)
    while at is not None and at < end * 1000:
        found.append(at // 1000)
        at = rule.after(at)
    return found


#: Instants around which clocks change, in those zones, and one of no change.
CHANGES = (
    (2026, 3, 29, 1),  # Paris forward
    (2026, 10, 25, 1),  # Paris back
    (2026, 3, 8, 7),  # New York forward
    (2026, 11, 1, 6),  # New York back
    (2026, 4, 4, 15),  # Lord Howe back
    (2026, 10, 3, 15),  # Lord Howe forward
    (2026, 9, 6, 4),  # Santiago forward, at midnight
    (2026, 4, 5, 3),  # Santiago back
    (2026, 3, 28, 22),  # Beirut forward, at midnight
    (2026, 2, 15, 2),  # Casablanca, before Ramadan
    (2028, 2, 29, 0),
)


#: An example is a minute by minute count of three days: `make quick` takes fewer.
EXAMPLES = 150 if os.environ.get("TASKMILL_TEST_QUICK") else 400


@settings(max_examples=EXAMPLES, deadline=None)
@given(lines(), st.sampled_from(ZONES), st.sampled_from(CHANGES), st.integers(0, 36 * 60))
def test_every_line_is_due_when_a_count_of_minutes_says(
    line: list[Field], zone: str, change: tuple[int, int, int, int], before: int
) -> None:
    middle = int(datetime(*change, tzinfo=UTC).timestamp())
    start = middle - before * MINUTE_S
    end = start + 2 * 86_400
    expected = due_minutes(line, zone, middle, start, end)
    if not expected and is_impossible(line):
        return
    assert walk(line, zone, start, end) == expected


def is_impossible(line: list[Field]) -> bool:
    """Whether it names no day of any year, such as the thirtieth of February."""
    month, day = line[3][1], line[2][1]
    longest = max(29 if m == 2 else 30 if m in (4, 6, 9, 11) else 31 for m in month)
    return min(day) > longest and len(line[4][1]) == 7


@settings(max_examples=300, deadline=None)
@given(lines(), st.integers(0, 4_000_000_000))
def test_without_changes_of_the_clock_croniter_agrees(line: list[Field], start: int) -> None:
    text = " ".join(text for text, _ in line)
    # It has its own mind where all days are named, and no star is written.
    assume(line[2][0] == "*" or len(line[2][1]) < 31)
    assume(line[4][0] == "*" or len(line[4][1]) < 7)
    if is_impossible(line):
        with pytest.raises(ConfigError, match="no such day ever comes"):
            cron_rule(text, "UTC")
        return
    ours = cron_rule(text, "UTC").after(start * 1000)
    assert ours == croniter(text, float(start)).get_next(float) * 1000


def local(zone: str, text: str, start: str, count: int) -> list[str]:
    """The next times of a line after a moment in UTC, as the zone's clock shows them."""
    at: int | None = round(datetime.fromisoformat(f"{start}+00:00").timestamp() * 1000)
    rule, found = cron_rule(text, zone), []
    for _ in range(count):
        assert at is not None
        at = rule.after(at)
        assert at is not None
        shown = datetime.fromtimestamp(at / 1000, ZoneInfo(zone))
        found.append(f"{shown:%d %H:%M%z}")
    return found


@pytest.mark.parametrize(
    ("zone", "line", "start", "expected"),
    [
        # 02:00 to 03:00 is skipped.
        ("Europe/Paris", "30 2 * * *", "2026-03-28T00", ["28 02:30+0100", "29 03:00+0200"]),
        ("Europe/Paris", "0,30 2,3 * * *", "2026-03-29T00", ["29 03:00+0200", "29 03:30+0200"]),
        ("Europe/Paris", "0 */2 * * *", "2026-03-28T23", ["29 03:00+0200", "29 04:00+0200"]),
        ("Europe/Paris", "30 * * * *", "2026-03-29T00", ["29 01:30+0100", "29 03:30+0200"]),
        ("America/New_York", "30 2 8 3 *", "2026-03-01T00", ["08 03:00-0400"]),
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T00", ["04 02:30+1100", "05 02:15+1100"]),
        # 02:00 to 03:00 comes twice.
        ("Europe/Paris", "30 2 * * *", "2026-10-24T12", ["25 02:30+0200", "26 02:30+0100"]),
        ("Europe/Paris", "0 */2 * * *", "2026-10-24T23", ["25 02:00+0200", "25 04:00+0100"]),
        ("Europe/Paris", "30 * * * *", "2026-10-25T00", ["25 02:30+0200", "25 02:30+0100"]),
        ("America/New_York", "30 1 * * *", "2026-11-01T00", ["01 01:30-0400", "02 01:30-0500"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12", ["05 01:45+1100", "06 01:45+1030"]),
        ("Australia/Lord_Howe", "45 * * * *", "2026-04-04T14", ["05 01:45+1100", "05 01:45+1030"]),
        # The thirtieth of December 2011 was left out whole.
        ("Pacific/Apia", "0 12 * * *", "2011-12-29T21", ["29 12:00-1000", "31 00:00+1400"]),
    ],
)
def test_what_a_change_of_the_clock_means(
    zone: str, line: str, start: str, expected: list[str]
) -> None:
    assert local(zone, line, start, len(expected)) == expected


@pytest.mark.parametrize(
    ("line", "start", "expected"),
    [
        ("* * * * * */20", "2026-01-01T00", ["01 00:00:20", "01 00:00:40", "01 00:01:00"]),
        ("5 4 * * * 7,9", "2026-01-01T00", ["01 04:05:07", "01 04:05:09", "02 04:05:07"]),
        ("0 12 */2 * 0-6", "2026-01-30T00", ["31 12:00:00", "01 12:00:00", "03 12:00:00"]),
        ("0 12 1 * sun-sat", "2026-01-30T00", ["01 12:00:00", "01 12:00:00"]),
        ("0 12 1-31 * mon", "2026-01-30T00", ["02 12:00:00", "09 12:00:00"]),
        ("@hourly", "2026-01-01T00", ["01 01:00:00", "01 02:00:00"]),
        ("0 0 L * *", "2026-02-01T00", ["28 00:00:00", "31 00:00:00"]),
        ("0 0 * * fri#2", "2026-05-01T00", ["08 00:00:00", "12 00:00:00"]),
        ("0 0 * * L5", "2026-05-01T00", ["29 00:00:00", "26 00:00:00"]),
        ("0 0 1 * mon", "2026-06-01T00", ["08 00:00:00", "15 00:00:00"]),
        ("0 12 29 FEB *", "2026-01-01T00", ["29 12:00:00"]),
        ("0 0 * * 7", "2026-06-01T00", ["07 00:00:00"]),
    ],
)
def test_what_lines_name(line: str, start: str, expected: list[str]) -> None:
    at: int | None = round(datetime.fromisoformat(f"{start}+00:00").timestamp() * 1000)
    found = []
    for _ in expected:
        at = cron_rule(line, "UTC").after(at or 0)
        found.append(f"{datetime.fromtimestamp((at or 0) / 1000, UTC):%d %H:%M:%S}")
    assert found == expected


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0 0 30 2 *", "no such day ever comes"),
        ("0 0 31 2,4,6 *", "no such day ever comes"),
        ("0 25 * * *", "out of range"),
        ("* * * *", "expected minute, hour"),
        ("* * * * * * 2030", "expected minute, hour"),
        ("", "expected minute, hour"),
        ("@reboot", "columns"),
        ("H * * * *", "H, R and W are not taken"),
        ("R(0-9) * * * *", "H, R and W are not taken"),
        ("0 0 15W * *", "H, R and W are not taken"),
        ("0 0 * * mon#6", "mon#6"),
        ("é * * * *", "expected minute, hour"),
    ],
)
def test_a_line_that_is_none_is_refused_in_one_line(line: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        cron_line(line)
    assert "\n" not in str(refused.value)
    assert repr(line)[:20] in str(refused.value)


@pytest.mark.parametrize("name", ["Europe/Pariss", "", "../etc/passwd", "Europe", "\0"])
def test_a_zone_that_is_unknown_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is unknown; expected an IANA name"):
        zone_of(name)


@given(st.integers(1_000, 10**10), st.integers(-(10**12), 2 * 10**12), st.integers(0, 2 * 10**12))
def test_a_period_is_anchored(period: int, anchor: int, at: int) -> None:
    found = Every(period, anchor).after(at)
    assert found is not None
    assert at < found <= at + period
    assert (found - anchor) % period == 0


def test_nothing_is_due_beyond_the_end_of_dates() -> None:
    assert Every(1_000).after(LAST_MS) is None
    assert cron_rule("* * * * *", "Europe/Paris").after(LAST_MS) is None
    assert cron_rule("0 3 * * *", "Europe/Paris").after(LAST_MS - 1) is None
