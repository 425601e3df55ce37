"""Schedules on a real Kafka: fired when they are due, once, by whoever owns them."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from support.schedules import PARTITIONS, Scheduled, now_ms
from support.wire import partition_of, schedule_value
from support.workers import Gate
from taskmill.runtime.config import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]


@pytest.fixture
def scene(settings: Settings, tmp_path: Path) -> Iterator[Scheduled]:
    with Scheduled(settings, tmp_path) as one:
        yield one


def is_every(period_ms: int, times: list[int]) -> bool:
    """Each time once, and none left out."""
    return all(later - one == period_ms for one, later in pairwise(times))


def test_a_record_of_any_client_is_fired_each_second_and_runs(scene: Scheduled) -> None:
    scene.scheduler()
    scene.add().wait_ready(2)
    before = now_ms()
    scene.put_all(["tick"], "context", every_ms=1_000, headers={"tenant": "a"}, max_attempts=2)
    times = scene.wait_runs("tick", 4)
    assert is_every(1_000, times)
    assert times[0] - before <= 1_100
    first = scene.runs()[0]
    assert first.task["name"] == "context"
    assert first.task["max_attempts"] == 2
    headers = first.task["headers"]
    assert (headers["tenant"], headers["schedule"]) == ("a", "tick")
    assert first.task["id"] == f"schedule:tick@{headers['schedule-time']}"
    assert scene.oracle.wait_state(first.task["id"])["status"] == "succeeded"
    for run in scene.runs():
        assert run.at >= run.nominal, "never before its time"
    state = scene.states()["tick"]
    assert state["last_task_id"].startswith("schedule:tick@20")
    assert (state["missed"], state["skipped"], state["held"]) == (0, 0, [])


def test_a_cron_line_with_seconds_goes_by_the_clock_of_its_zone(scene: Scheduled) -> None:
    scene.scheduler()
    scene.put_all(["even"], "noop", cron="* * * * * */2", tz="Australia/Lord_Howe", overlap="allow")
    times = scene.wait_runs("even", 3)
    assert is_every(2_000, times)
    assert all(time % 2_000 == 0 for time in times)


def test_what_is_changed_paused_and_removed_is_heeded_at_once(scene: Scheduled) -> None:
    one = scene.scheduler()
    scene.put_all(["s", "clock"], "noop", every_ms=1_000, overlap="allow")
    scene.wait_runs("s", 2)
    scene.put_all(["s"], "noop", every_ms=1_000, overlap="allow", paused=True)
    paused = scene.wait_runs("s", 2)[-1]
    ticks = len(scene.wait_runs("clock", 1))
    scene.wait_runs("clock", ticks + 3)
    at = now_ms()
    scene.put_all(["s"], "noop", every_ms=1_000, overlap="allow")
    scene.wait(lambda: scene.nominals()["s"][-1] > at)
    between = [time for time in scene.nominals()["s"] if paused + 1_100 < time <= at]
    assert between == [], "what passed meanwhile is not made up for"
    scene.put("s", None)
    scene.wait(lambda: "s" not in scene.states())
    gone = len(scene.nominals()["s"])
    scene.wait_runs("clock", len(scene.nominals()["clock"]) + 2)
    assert len(scene.nominals()["s"]) == gone
    assert one.terminate() == 0


def test_a_broken_record_is_told_and_skipped_and_the_rest_run(scene: Scheduled) -> None:
    scene.put("garbage", b"\x01\x02")
    scene.put("impossible", schedule_value("impossible", "noop", cron="0 0 30 2 *"))
    scene.put("nowhere", schedule_value("nowhere", "noop", cron="@hourly", tz="Mars/Phobos"))
    scene.put("other", schedule_value("another", "noop", every_ms=1_000))
    astray = (partition_of(b"astray", PARTITIONS) + 1) % PARTITIONS
    scene.put("astray", schedule_value("astray", "noop", every_ms=1_000), astray)
    scene.put_all(["well"], "noop", every_ms=1_000, overlap="allow")
    one = scene.scheduler()
    for id, told in (
        ("garbage", "value starts with 0102"),
        ("impossible", "cron '0 0 30 2 .': no such day ever comes"),
        ("nowhere", "zone 'Mars/Phobos' is unknown"),
        ("other", "its key is b'other', its ID 'another'"),
        ("astray", "it lies on partition"),
    ):
        one.wait_for(f"schedule '{id}' is not heeded: .*{told}")
    scene.wait_runs("well", 2)
    scene.put("late", b"no schedule")
    one.wait_for("schedule 'late' is not heeded")
    scene.put_all(["late"], "noop", every_ms=1_000)
    scene.wait_runs("late", 1)
    assert scene.nominals().keys() == {"well", "late"}
    assert len([line for line in one.lines if "not heeded" in line]) == 6


def test_misfires_after_an_outage_go_by_their_policy(scene: Scheduled) -> None:
    now = now_ms()
    ago = {"updated_at": now - 600_000, "every_ms": 120_000, "start_at": now - 601_000}
    for misfire in ("skip", "fire_once", "fire_all"):
        scene.put_all([misfire], "noop", misfire=misfire, misfire_max=2, overlap="allow", **ago)
    scene.put_all(["skips"], "noop", misfire="fire_all", overlap="skip", **ago)
    scene.scheduler()
    scene.wait(lambda: scene.states().keys() == {"skip", "fire_once", "fire_all", "skips"})
    due = [now - 601_000 + n * 120_000 for n in range(1, 6)]  # the last one a second ago
    assert scene.nominals() == {
        "skip": due[-1:],
        "fire_once": due[-2:],
        "fire_all": due[-3:],
        "skips": due[:1],
    }
    states = scene.states()
    missed = {id: (state["missed"], state["skipped"]) for id, state in states.items()}
    assert missed == {"skip": (4, 0), "fire_once": (3, 0), "fire_all": (2, 0), "skips": (0, 4)}


def test_while_a_run_goes_on_times_are_skipped_or_wait_also_after_a_restart(
    scene: Scheduled,
) -> None:
    with Gate() as gate:
        scene.add(env=gate.env).wait_ready(2)
        first = scene.scheduler()
        scene.put_all(["skip"], "gated", every_ms=1_000, overlap="skip")
        scene.put_all(["queue"], "gated", every_ms=1_000, overlap="queue")
        begun = gate.wait_count(2)
        scene.wait(lambda: len(scene.states()["queue"]["held"]) >= 2)
        first.kill()
        scene.scheduler()
        held = len(scene.states()["queue"]["held"])
        scene.wait(lambda: len(scene.states()["queue"]["held"]) >= held + 2)
        assert sorted(gate.begun) == sorted(begun), "nothing began beside its last run"
        assert scene.states()["skip"]["skipped"] >= 3
        gate.open()
        scene.wait(lambda: scene.states()["queue"]["held"] == [], 60)
        scene.wait_runs("skip", 3)
        times = scene.nominals()["queue"]
        assert is_every(1_000, times)
        assert len(set(times)) == len(times)


def test_it_ends_after_so_many_runs_or_at_its_end(scene: Scheduled) -> None:
    scene.scheduler()
    end = now_ms() + 2_500
    scene.put_all(["three"], "noop", every_ms=1_000, max_runs=3, overlap="allow")
    scene.put_all(["ends"], "noop", every_ms=1_000, end_at=end, overlap="allow")
    scene.put_all(["clock"], "noop", every_ms=1_000, overlap="allow")
    scene.wait_runs("clock", 6)
    found = scene.nominals()
    assert len(found["three"]) == 3
    assert 2 <= len(found["ends"]) <= 3
    assert found["ends"][-1] <= end


def test_two_share_the_schedules_and_no_time_is_lost_or_doubled_when_one_is_killed(
    scene: Scheduled,
) -> None:
    ids = [f"s{n}" for n in range(60)]
    scene.put_all(ids, "noop", every_ms=1_000, overlap="allow")
    first = scene.scheduler()
    second = scene.scheduler(serves=1)
    scene.wait_runs("s0", 3)
    served = second.log.count("serving ")
    killed = now_ms()
    first.signal(signal.SIGKILL)
    first.wait()
    second.wait_for("serving ", times=served + 1, timeout_s=15)
    until = now_ms()
    scene.wait(lambda: all(times[-1] > until for times in scene.nominals().values()))
    runs = Counter((run.schedule, run.nominal) for run in scene.runs())
    assert max(runs.values()) == 1
    for id, times in scene.nominals().items():
        assert is_every(1_000, times), id
    late = max(run.at - run.nominal for run in scene.runs() if run.nominal > killed - 1_000)
    print(f"latest {late} ms after its time")
    assert second.terminate() == 0


def test_one_that_leaves_in_order_hands_over_at_once(scene: Scheduled) -> None:
    scene.put_all([f"s{n}" for n in range(20)], "noop", every_ms=1_000, overlap="allow")
    first = scene.scheduler()
    second = scene.scheduler(serves=1)
    served = second.log.count("serving ")
    assert first.terminate() == 0
    second.wait_for("serving ", times=served + 1)
    until = now_ms()
    scene.wait(lambda: all(times[-1] > until for times in scene.nominals().values()))
    assert all(is_every(1_000, times) for times in scene.nominals().values())
    assert max(Counter((r.schedule, r.nominal) for r in scene.runs()).values()) == 1
