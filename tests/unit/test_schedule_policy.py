"""What is due of a schedule at one moment, by its policies; and the words that make one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.runtime.errors import ConfigError
from taskmill.scheduler.policy import (
    GRACE_MS,
    MOST_HELD,
    Look,
    begin,
    delay_ms,
    look,
    next_times,
)
from taskmill.scheduler.schedule import (
    ScheduleForm,
    check,
    check_run,
    check_schedule_id,
    source_of,
    task_id,
)
from taskmill.schemas.models import Schedule, ScheduleState

#: 2026-01-02T00:00:00Z
NOW = 1_767_312_000_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def make(**said: Any) -> Schedule:
    """A schedule made at NOW, every minute where nothing else is said."""
    said = {"task": "work", **said}
    if "cron" not in said:
        said.setdefault("every", "1m")
    return ScheduleForm.of("s", said).record("s", b"{}", "hand", NOW)


def at(
    schedule: Schedule, now: int, state: ScheduleState | None = None, over: bool | None = None
) -> Look:
    return look(schedule, check(schedule), begin(schedule, state), now, over)


def fired(seen: Look) -> ScheduleState:
    """The state as who fires writes it."""
    if not seen.fire:
        return seen.state
    last = seen.fire[-1]
    return seen.state._replace(last_nominal=last, last_task_id=task_id("s", last))


def minutes(*numbers: int) -> list[int]:
    return [NOW + number * MINUTE for number in numbers]


def test_nothing_is_due_before_its_time_and_a_new_one_makes_up_for_nothing() -> None:
    seen = at(make(), NOW)
    assert (seen.fire, seen.next_at) == ([], NOW + MINUTE)
    assert at(make(), NOW + MINUTE - 1).fire == []
    assert at(make(), NOW + MINUTE).fire == minutes(1)
    assert at(make(), NOW + MINUTE).next_at == NOW + 2 * MINUTE


def test_a_time_in_time_is_no_misfire_and_one_a_minute_late_is() -> None:
    one = make(misfire="skip", every="1h")
    assert at(one, NOW + HOUR + GRACE_MS).fire == [NOW + HOUR]
    late = at(one, NOW + HOUR + GRACE_MS + 1)
    assert (late.fire, late.state.missed, late.state.decided_until) == ([], 1, NOW + HOUR)


@pytest.mark.parametrize(
    ("said", "expected", "missed"),
    [
        ({"misfire": "skip"}, minutes(599, 600), 598),
        ({"misfire": "fire_once"}, minutes(598, 599, 600), 597),
        ({"misfire": "fire_all"}, minutes(*range(589, 601)), 588),
        ({"misfire": "fire_all", "misfire_max": 2}, minutes(597, 598, 599, 600), 596),
        ({"misfire": "fire_all", "catch_up": "3m"}, minutes(597, 598, 599, 600), 596),
        ({"misfire": "fire_once", "catch_up": "0s"}, minutes(599, 600), 598),
    ],
)
def test_misfires_go_by_their_policy(
    said: dict[str, Any], expected: list[int], missed: int
) -> None:
    seen = at(make(overlap="allow", **said), NOW + 600 * MINUTE)
    assert seen.fire == expected
    assert seen.state.missed == missed
    assert seen.state.runs == len(expected)
    assert seen.next_at == NOW + 601 * MINUTE


def test_after_a_long_time_the_latest_counts_and_the_look_is_short() -> None:
    one = make(every="1s", overlap="allow")._replace(since=0)
    seen = at(one, NOW)
    assert seen.fire == [NOW - GRACE_MS - 1000, *range(NOW - GRACE_MS, NOW + 1, 1000)]
    assert seen.next_at == NOW + 1000
    assert seen.state.decided_until == NOW


def test_after_a_long_time_what_came_in_a_cluster_counts_once() -> None:
    one = make(cron="* 3 * * * *", misfire="fire_once", overlap="allow")
    seen = at(one, NOW + 20 * HOUR)
    assert seen.fire == [NOW + 4 * HOUR - 1000]
    old = make(cron="* 3 * 1 * *", misfire="fire_once", overlap="allow", catch_up="1h")
    seen = at(old, NOW + 27 * DAY)
    assert (seen.fire, seen.next_at) == ([], NOW + 27 * DAY + 3 * HOUR)
    assert at(old, NOW + 27 * DAY, seen.state) == Look([], seen.state, seen.next_at)


def test_while_the_last_run_goes_on_times_are_skipped() -> None:
    one = make(overlap="skip")
    first = at(one, NOW + MINUTE)
    assert first.fire == minutes(1)
    asked = at(one, NOW + 2 * MINUTE, fired(first))
    assert asked.asks
    assert asked.state == fired(first)
    during = at(one, NOW + 2 * MINUTE, fired(first), False)
    assert (during.fire, during.state.skipped) == ([], 1)
    after = at(one, NOW + 3 * MINUTE, fired(during), True)
    assert (after.fire, after.state.skipped) == (minutes(3), 1)


def test_of_several_at_once_one_runs_where_they_would_overlap() -> None:
    seen = at(make(every="1s"), NOW + 5_000)
    assert (seen.fire, seen.state.skipped, seen.state.runs) == ([NOW + 1_000], 4, 1)


def test_what_is_queued_waits_for_the_last_run_in_order() -> None:
    one = make(overlap="queue")
    state = fired(at(one, NOW + MINUTE))
    for minute in (2, 3):
        seen = at(one, NOW + minute * MINUTE, state, False)
        assert seen.fire == []
        state = fired(seen)
    assert state.held == minutes(2, 3)
    for minute, left in ((2, minutes(3)), (3, [])):
        seen = at(one, NOW + 3 * MINUTE + 500, state, True)
        assert (seen.fire, seen.state.held) == (minutes(minute), left)
        state = fired(seen)
    assert (state.missed, state.skipped, state.runs) == (0, 0, 3)


def test_what_waits_in_the_queue_is_no_misfire_but_ends_with_the_catch_up_window() -> None:
    one = make(overlap="queue", misfire="skip", catch_up="10m", every="5m")
    state = fired(at(one, NOW + 5 * MINUTE))
    for minute in (10, 15, 20):
        state = fired(at(one, NOW + minute * MINUTE, state, False))
    assert state.held == minutes(10, 15, 20)
    seen = at(one, NOW + 21 * MINUTE, state, True)
    assert (seen.fire, seen.state.held, seen.state.missed) == (minutes(15), minutes(20), 1)


def test_the_queue_is_bounded() -> None:
    one = make(overlap="queue", every="1s")
    state = fired(at(one, NOW + 1_000))
    for second in range(2, MOST_HELD + 12):
        state = fired(at(one, NOW + second * 1000, state, False))
    assert len(state.held) == MOST_HELD
    assert state.missed == 10


def test_a_start_and_an_end_are_part_of_the_time_between_them() -> None:
    one = make(start="2026-01-02T01:00", end="2026-01-02T03:00", every="1h")
    rule = check(one)
    assert next_times(one, rule, NOW, 9) == [NOW + hour * HOUR for hour in (1, 2, 3)]
    assert at(one, NOW + 59 * MINUTE).fire == []
    assert at(one, NOW + 3 * HOUR).next_at is None


def test_a_period_counts_from_the_start() -> None:
    one = make(start="2026-01-02T00:00:07", every="90s")
    assert next_times(one, check(one), NOW, 2) == [NOW + 7_000, NOW + 97_000]


def test_after_so_many_runs_it_is_over() -> None:
    one = make(max_runs=2, overlap="allow")
    seen = at(one, NOW + MINUTE)
    assert seen.next_at is not None
    seen = at(one, NOW + 3 * MINUTE, fired(seen))
    assert (seen.fire, seen.next_at, seen.state.runs) == (minutes(2), None, 2)
    assert at(one, NOW + 9 * MINUTE, fired(seen)) == Look([], fired(seen), None)


def test_a_paused_one_fires_nothing_and_goes_on_without_what_it_left_out() -> None:
    one = make()
    assert at(one._replace(paused=True), NOW + HOUR) == Look([], begin(one, None), None)
    again = one._replace(since=NOW + HOUR)
    assert at(again, NOW + HOUR + MINUTE).fire == minutes(61)
    assert at(again, NOW + HOUR + MINUTE).state.missed == 0


def test_another_schedule_of_the_same_id_starts_anew() -> None:
    one = make(max_runs=1)
    state = fired(at(one, NOW + MINUTE))
    assert begin(one, state) is state
    assert begin(one._replace(created_at=NOW + 1), state).runs == 0
    assert begin(one._replace(created_at=None), state) is state


@settings(max_examples=200, deadline=None)
@given(
    overlap=st.sampled_from(("skip", "queue", "allow")),
    misfire=st.sampled_from(("skip", "fire_once", "fire_all")),
    jitter=st.sampled_from(("0s", "3s")),
    every=st.sampled_from(("5s", "1m", "7m")),
    steps=st.lists(
        st.tuples(st.integers(0, 200_000), st.sampled_from((True, False, None))), max_size=30
    ),
)
def test_each_time_is_accounted_for_once_and_none_is_early(
    overlap: str, misfire: str, jitter: str, every: str, steps: list[tuple[int, bool | None]]
) -> None:
    one = make(overlap=overlap, misfire=misfire, jitter=jitter, every=every)
    rule = check(one)
    state, now, runs = begin(one, None), NOW, []
    for step, over in steps:
        now += step
        seen = look(one, rule, state, now, over)
        assert all(time + delay_ms(one, time) <= now for time in seen.fire)
        if overlap != "allow":
            assert len(seen.fire) <= 1
            assert not (seen.fire and over is False and state.last_task_id)
        runs += seen.fire
        state = fired(seen)
    assert runs == sorted(set(runs))
    assert state.runs == len(runs)
    due = [t for t in next_times(one, rule, NOW, 2_000) if t <= state.decided_until]
    assert len(due) == state.runs + state.missed + state.skipped + len(state.held)


def test_jitter_is_the_same_for_everybody_and_spread() -> None:
    one = make(jitter="30s")
    delays = [delay_ms(one, NOW + n * MINUTE) for n in range(200)]
    assert delays == [delay_ms(one._replace(), NOW + n * MINUTE) for n in range(200)]
    assert 0 <= min(delays) < 3_000 < 27_000 < max(delays) <= 30_000
    assert at(one, NOW).next_at == NOW + MINUTE + delay_ms(one, NOW + MINUTE)


def test_a_run_has_the_same_id_whoever_fires_it() -> None:
    assert task_id("a/b", NOW) == "schedule:a/b@2026-01-02T00:00:00Z"
    assert task_id("a", NOW + 7, "r1") == "schedule:a@2026-01-02T00:00:00.007Z#r1"
    assert source_of("shop") == "code:shop"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"cron": "0 0 30 2 *"}, "cron '0 0 30 2 *': no such day ever comes"),
        ({"cron": "0 3 * * *", "tz": "Europe/Pariss"}, "zone 'Europe/Pariss' is unknown"),
        ({"every": "500ms"}, "every is 0.5 s; allowed: 1s to 3650d"),
        ({"every": "5"}, "every: duration '5': expected a number and one of"),
        ({"every": "1m", "cron": "* * * * *"}, "cron and every: one of them is needed"),
        ({"every": None}, "cron and every: one of them is needed"),
        (
            {"start": "2026-02-01", "end": "2026-01-01"},
            "end 2026-01-01T00:00:00Z is before start 2026-02-01T00:00:00Z",
        ),
        (
            {"cron": "0 0 1 6 *", "start": "2026-02-01", "end": "2026-03-01"},
            "no time between start",
        ),
        ({"start": "tomorrow"}, "start=tomorrow: expected ISO 8601"),
        ({"misfire": "run"}, "misfire='run'; allowed: skip, fire_once, fire_all"),
        ({"misfire_max": 101}, "misfire_max is 101; allowed: 1 to 100"),
        ({"overlap": "wait"}, "overlap='wait'; allowed: skip, queue, allow"),
        ({"catch_up": "60d"}, "allowed: 0s to 31d"),
        ({"jitter": "2m"}, "a jitter of 120 s is as long as what lies between two"),
        ({"cron": "0,1 3 * * *", "jitter": "1m"}, "a jitter of 60 s is as long as"),
        ({"max_runs": 0}, "max_runs is 0; allowed: 1 to"),
        ({"max_runs": "3"}, "max_runs='3': Input should be a valid integer"),
        ({"queue": "a.b"}, "queue 'a.b': a queue's name is"),
        ({"task": ""}, "task name ''"),
        ({"timeout": "0s"}, "timeout='0s': allowed are 1ms to 3650d"),
        ({"max_attempts": 0}, "max_attempts=0: allowed are 1 to"),
        ({"crom": "* * * * *"}, "crom='* * * * *': Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(said: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make(**said)
    assert str(refused.value).startswith("schedule 's': ")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_times_without_an_offset_are_those_of_the_zone() -> None:
    one = make(start="2026-07-01T02:00", end="2026-07-01T02:00+00:00", tz="Europe/Paris")
    assert one.start_at == one.end_at - 2 * HOUR if one.end_at else False


@pytest.mark.parametrize("id", ["", " a", "a\n", "x" * 256, 7])
def test_an_id_is_printable_and_not_too_long(id: Any) -> None:
    with pytest.raises(ConfigError, match="allowed are 1 to 255 bytes of printable text"):
        check_schedule_id(id)
    with pytest.raises(ConfigError, match="allowed are 1 to 64 letters"):
        check_run(str(id) + "#")
