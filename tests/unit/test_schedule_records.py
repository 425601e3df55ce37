"""Records of any client: whatever they hold, a schedule is heeded or refused in one line."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from taskmill.runtime.errors import TaskmillError
from taskmill.scheduler.firing import run_task
from taskmill.scheduler.owned import Owned
from taskmill.scheduler.policy import begin, look
from taskmill.scheduler.schedule import check
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import Schedule, ScheduleState

#: 2026-01-02T00:00:00Z
NOW = 1_767_312_000_000

longs = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2_000_000) | st.integers(NOW - 10**9, NOW)
ints = st.integers(-(2**31), 2**31 - 1) | st.integers(0, 200)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
cron = st.text("0123456789*/,-LW#?HR()@monfrihourly ", max_size=30) | st.sampled_from(
    ("* * * * *", "0 3 * * *", "@hourly", "0 0 30 2 *", "0 0 L * *", "* * * * * *", "0 0 * * 5#3")
)


def or_none(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


schedules = st.builds(
    Schedule,
    id=st.just("s") | texts,
    task=st.just("work") | texts,
    payload=st.binary(max_size=20),
    updated_at=longs,
    queue=st.just("default") | texts,
    content_type=texts,
    cron=or_none(cron | texts),
    every_ms=or_none(longs),
    tz=st.sampled_from(("UTC", "Europe/Paris", "Mars", "", "/etc/passwd")) | texts,
    misfire=st.sampled_from(("skip", "fire_once", "fire_all", "never")),
    misfire_max=ints,
    catch_up_ms=longs,
    overlap=st.sampled_from(("skip", "queue", "allow", "never")),
    jitter_ms=longs | st.just(0),
    start_at=or_none(longs),
    end_at=or_none(longs),
    max_runs=or_none(longs),
    timeout_ms=or_none(longs),
    expires_ms=or_none(longs),
    deadline_ms=or_none(longs),
    max_attempts=or_none(ints),
    lock_key=or_none(texts),
    headers=st.dictionaries(texts, texts, max_size=2),
    since=or_none(longs),
    created_at=or_none(longs),
)


def check_line(error: TaskmillError) -> None:
    assert "\n" not in str(error)
    assert error.exit_code == 2


@settings(max_examples=600, deadline=None)
@given(schedules)
def test_a_schedule_is_served_or_refused_in_one_line(schedule: Schedule) -> None:
    try:
        value = CODEC.encode_schedule(schedule)
        assert CODEC.decode_schedule(value) == schedule
        rule = check(schedule)
    except TaskmillError as refused:
        check_line(refused)
        return
    seen = look(schedule, rule, begin(schedule, None), NOW, True)
    for nominal in seen.fire:
        CODEC.encode_task(run_task(schedule, nominal, NOW))
    CODEC.encode_schedule_state(seen.state)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | cron)
def test_a_text_is_a_cron_line_or_refused_in_one_line(text: str) -> None:
    one = Schedule("s", "work", b"{}", NOW, cron=text)
    try:
        rule = check(one)
    except TaskmillError as refused:
        check_line(refused)
        return
    at = rule.after(NOW)
    assert at is None or at > NOW


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from((b"a", b"b", b"\xff")), st.binary(max_size=40))))
def test_garbage_on_the_topics_stops_nothing(records: list[tuple[bytes, bytes]]) -> None:
    owned = Owned(0, 1, CODEC)
    owned.load(records, records, NOW)
    good = CODEC.encode_schedule(Schedule("s", "work", b"{}", NOW, every_ms=1_000))
    owned.define(b"s", good, NOW)
    for key, value in records:
        owned.define(key, value, NOW)
    assert list(owned.entries) == ["s"]
    assert [entry.schedule.id for entry in owned.due(NOW, 10)] == ["s"]


states = st.builds(
    ScheduleState,
    id=texts,
    decided_until=longs,
    written_at=longs,
    runs=longs,
    missed=longs,
    skipped=longs,
    held=st.lists(longs, max_size=5),
    last_nominal=or_none(longs),
    last_task_id=or_none(texts),
    last_queue=or_none(texts),
    fired_at=or_none(longs),
    created_at=or_none(longs),
    scheduler=texts,
)


@given(states)
def test_a_state_comes_back_as_it_was(state: ScheduleState) -> None:
    value = CODEC.encode_schedule_state(state)
    assert CODEC.decode_schedule_state(value) == state
    assert CODEC.decode(value) == state
