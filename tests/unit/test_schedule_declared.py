"""Schedules declared on an App, and what bringing Kafka up to date with them changes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from taskmill import App
from taskmill.runtime.errors import ConfigError, TaskmillError
from taskmill.scheduler.board import Posted
from taskmill.scheduler.owned import Owned
from taskmill.scheduler.reconcile import compare, merged
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import Schedule, ScheduleState

NOW = 1_767_312_000_000


def make(**schedules: dict[str, Any]) -> App:
    app = App("shop")

    @app.task(queue="mail")
    def send(order_id: int, note: str = "") -> None: ...

    for id, said in schedules.items():
        app.schedule(id, send, **{"every": "1m", "args": {"order_id": 1}, **said})
    return app


def record(app: App, id: str, now: int = NOW) -> Schedule:
    """As it is written for the first time."""
    _, (written,), _ = compare("shop", [app.schedules[id]], [], now)
    return written


def posted(*schedules: Schedule) -> list[Posted]:
    return [Posted(one.id, one, None) for one in schedules]


def test_a_declaration_takes_its_tasks_queue_and_checks_its_arguments() -> None:
    one = record(make(a={"tz": "Europe/Paris", "start": datetime(2026, 7, 1, tzinfo=UTC)}), "a")
    assert (one.task, one.queue, one.payload) == ("send", "mail", b'{"order_id":1}')
    assert (one.source, one.every_ms, one.tz) == ("code:shop", 60_000, "Europe/Paris")
    assert one.start_at == 1_782_864_000_000
    assert record(make(a={"queue": "other"}), "a").queue == "other"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"every": None, "cron": "0 0 30 2 *"}, "schedule 'a': cron '0 0 30 2 *': no such day"),
        ({"tz": "Nowhere"}, "schedule 'a': zone 'Nowhere' is unknown"),
        ({"every": "10ms"}, "schedule 'a': every is 0.01 s; allowed: 1s to 3650d"),
        ({"args": {"order": 1}}, "task 'send'"),
        ({"args": {"order_id": "x"}}, "order_id"),
        ({"overlap": "never"}, "allowed: skip, queue, allow"),
        ({"max_runs": "3"}, "max_runs='3'"),
        ({"headers": {"a": 1}}, "headers"),
    ],
)
def test_a_declaration_that_cannot_be_is_told_at_once_in_one_line(
    said: dict[str, Any], told: str
) -> None:
    with pytest.raises(TaskmillError) as refused:
        make(a=said)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_an_id_is_declared_once_and_of_a_task_that_is_declared() -> None:
    app = make(a={})
    with pytest.raises(ConfigError, match="schedule 'a' is declared twice"):
        app.schedule("a", "send", every="1m", args={"order_id": 1})
    with pytest.raises(TaskmillError, match="no task 'sent' is declared; did you mean 'send'"):
        app.schedule("b", "sent", every="1m")
    with pytest.raises(ConfigError, match="is no task: declare it"):
        app.schedule("b", len, every="1m")  # type: ignore[arg-type]


def test_what_is_new_changed_and_gone_is_told_and_nothing_else_is_touched() -> None:
    app = make(new={}, changed={"every": "2m"}, kept={}, by_hand={}, others={})
    old = make(changed={}, kept={}, by_hand={}, others={}, gone={})
    there = [record(old, id) for id in old.schedules]
    sources = {"by_hand": "hand", "others": "code:billing"}
    there = [one._replace(source=sources.get(one.id, one.source)) for one in there]
    there.append(record(make(alien={}), "alien")._replace(source="hand"))
    report, write, remove = compare("shop", app.schedules.values(), posted(*there), NOW + 5)
    assert {change.id: change.what for change in report} == {
        "new": "added",
        "changed": "changed",
        "kept": "kept",
        "by_hand": "refused",
        "others": "refused",
        "gone": "removed",
    }
    why = {change.id: change.why for change in report}
    assert why["changed"] == "every_ms"
    assert "was made by hand" in why["by_hand"]
    assert why["others"] == "App 'billing' declares one of this ID"
    assert [one.id for one in write] == ["new", "changed"]
    assert remove == ["gone"]


def test_a_broken_record_that_the_app_wrote_is_put_right_and_garbage_is_left() -> None:
    app = make(a={}, b={})
    broken = record(app, "a")._replace(tz="Nowhere")
    there = [Posted("a", broken, None, broken="…"), Posted("b", None, None, broken="garbage")]
    report, write, _ = compare("shop", app.schedules.values(), there, NOW)
    assert [(change.id, change.what) for change in report] == [("a", "changed"), ("b", "refused")]
    assert [one.id for one in write] == ["a"]


def test_a_change_keeps_a_pause_and_the_times_that_count() -> None:
    one = record(make(a={}), "a")._replace(paused=True)
    other_args = record(make(a={"args": {"order_id": 2}}), "a", NOW + 9)
    after = merged(other_args, one)
    assert (after.paused, after.since, after.created_at) == (True, NOW, NOW)
    other_times = record(make(a={"every": "7m"}), "a", NOW + 9)
    assert merged(other_times, one).since == NOW + 9
    foreign = one._replace(since=None, created_at=None)
    assert merged(other_args, foreign).since == NOW
    assert merged(other_args, foreign).created_at is None


def test_a_schedule_that_is_removed_takes_its_state_with_it_unless_it_comes_back() -> None:
    one = record(make(a={}), "a")
    owned = Owned(0, 1, CODEC)
    state = CODEC.encode_schedule_state(owned_state(one))
    value = CODEC.encode_schedule(one)
    owned.load([(b"a", state), (b"gone", state)], [(b"a", value)], NOW)
    assert list(owned.orphans) == [b"gone"]
    assert owned.entries["a"].state.runs == 7
    assert owned.define(b"a", None, NOW) == "a"
    assert sorted(owned.orphans) == [b"a", b"gone"]
    owned.define(b"a", value, NOW)
    assert list(owned.orphans) == [b"gone"]
    assert owned.entries["a"].state.runs == 7
    assert owned.define(b"a", b"garbage", NOW) == "a"
    assert list(owned.orphans) == [b"gone"]
    owned.define(b"a", value, NOW)
    assert owned.entries["a"].state.runs == 7


def owned_state(schedule: Schedule) -> ScheduleState:
    return ScheduleState(schedule.id, NOW, NOW, runs=7, created_at=schedule.created_at)
