"""`taskmill schedules`, and schedules that an App declares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import Command, set_environment
from support.schedules import Scheduled
from support.workers import Gate
from taskmill.runtime.config import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]

APP = """
from taskmill import App

app = App("shop")

@app.task
def send(order_id: int) -> int:
    return order_id

app.schedule("nightly", send, cron="0 3 * * *", tz="Europe/Paris", args={"order_id": 1})
"""


@pytest.fixture
def scene(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scheduled]:
    set_environment(settings, monkeypatch)
    with Scheduled(settings, tmp_path) as one:
        yield one


def test_a_schedule_is_made_listed_paused_and_removed(scene: Scheduled, command: Command) -> None:
    made = command(
        "schedules", "set", "a/b", "--cron", "0 3 * * mon", "--tz", "Europe/Paris",
        "--task", "send", "--args", '{"n": 1}', "--misfire", "skip", "--json",
    )  # fmt: skip
    assert (made.code, made.json["what"], made.json["status"]) == (0, "made", "on")
    (one,) = command("schedules", "list", "--json").json["schedules"]
    assert one["id"] == "a/b"
    assert (one["cron"], one["tz"], one["misfire"]) == ("0 3 * * mon", "Europe/Paris", "skip")
    assert (one["payload"], one["source"], one["state"]) == ({"n": 1}, "hand", None)
    assert one["next"] == command("schedules", "next", "a/b", "--json").json["times"][0]["nominal"]
    assert "a/b" in command("schedules", "list").out
    assert command("schedules", "pause", "a/b", "--json").json == {"paused": ["a/b"]}
    assert command("schedules", "pause", "a/b", "--json").json == {"paused": []}
    shown = command("schedules", "next", "a/b", "-n", "3", "--json").json
    assert (shown["status"], len(shown["times"])) == ("paused", 3)
    changed = command("schedules", "set", "a/b", "--every", "5m", "--task", "send", "--json").json
    assert (changed["what"], changed["status"]) == ("changed", "paused")
    assert command("schedules", "resume", "a/b", "--json").json == {"resumed": ["a/b"]}
    assert command("schedules", "rm", "a/b", "--json").json == {"removed": ["a/b"]}
    assert command("schedules", "list", "--json").json == {"schedules": []}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--cron", "0 0 30 2 *"], "schedule 's': cron '0 0 30 2 *': no such day ever comes"),
        (["--cron", "@hourly", "--tz", "Mars"], "schedule 's': zone 'Mars' is unknown"),
        (["--every", "0.5s"], "schedule 's': every is 0.5 s; allowed: 1s to 3650d"),
        (["--every", "1m", "--start", "2026-02-01", "--end", "2026-01-01"], "is before start"),
        (["--every", "1m", "--overlap", "maybe"], "allowed: skip, queue, allow"),
        (["--every", "1m", "--args", "[1]"], "--args is no JSON object"),
        ([], "cron and every: one of them is needed"),
    ],
)
def test_what_cannot_be_is_told_in_one_line_and_not_stored(
    scene: Scheduled, command: Command, options: list[str], told: str
) -> None:
    done = command("schedules", "set", "s", "--task", "noop", *options)
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""
    assert command("schedules", "list", "--json").json == {"schedules": []}


def test_what_is_not_there_is_told(scene: Scheduled, command: Command) -> None:
    for name in (["rm"], ["pause"], ["resume"], ["trigger"], ["next"]):
        done = command("schedules", *name, "s")
        assert done.code == 2
        assert "no schedule 's'" in done.err
    scene.put("s", b"garbage")
    (one,) = command("schedules", "list", "--json").json["schedules"]
    assert (one["status"], one["next"]) == ("broken", None)
    assert "schedule 's' is broken: value starts with" in command("schedules", "trigger", "s").err
    assert command("schedules", "rm", "s").code == 0


def test_a_run_is_triggered_at_once_also_of_a_paused_one(
    scene: Scheduled, command: Command
) -> None:
    scene.add().wait_ready(2)
    scene.put_all(["s"], "noop", cron="0 0 1 1 *", paused=True)
    first = command("schedules", "trigger", "s", "--json").json["id"]
    second = command("schedules", "trigger", "s", "--run-id", "now").out.strip()
    assert command("schedules", "trigger", "s", "--run-id", "now").out.strip() == second
    assert second == "schedule:s#now"
    scene.oracle.wait_states([first, second])
    states = scene.oracle.check([first, second])
    assert [s["status"] for s in states[second.encode()] if s["status"] != "running"] == [
        "succeeded"
    ]


def test_times_that_have_passed_are_filled_in_once(scene: Scheduled, command: Command) -> None:
    scene.put_all(["s"], "noop", cron="0 3 * * *", tz="Europe/Paris")
    given = ["s", "--from", "2026-03-28", "--to", "2026-04-01"]
    dry = command("schedules", "backfill", *given, "--dry-run", "--json").json
    assert dry["times"] == [
        "2026-03-28T02:00:00Z", "2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z",
        "2026-03-31T01:00:00Z",
    ]  # fmt: skip
    assert scene.runs() == []
    over = command("schedules", "backfill", *given, "--limit", "3")
    assert over.code == 2
    assert "more than 3 times between" in over.err
    assert "nothing was enqueued" in over.err
    for told, wrong in (
        ("is not after --from", ["--from", "2026-04-01", "--to", "2026-03-28"]),
        ("has not passed", ["--from", "2026-04-01", "--to", "2999-01-01"]),
        ("--from=soon: expected ISO 8601", ["--from", "soon", "--to", "2026-04-01"]),
    ):
        refused = command("schedules", "backfill", "s", *wrong)
        assert (refused.code, told in refused.err) == (2, True), refused.err
    assert scene.runs() == []
    done = command("schedules", "backfill", *given, "--run-id", "r1", "--json").json
    assert done == {"schedule": "s", "run_id": "r1", "enqueued": 4}
    runs = scene.runs()
    assert sorted(run.nominal for run in runs) == [
        1774663200000, 1774746000000, 1774832400000, 1774918800000,
    ]  # fmt: skip
    assert {run.suffix for run in runs} == {"r1"}


def test_a_backfill_in_turn_waits_for_each_run_and_goes_on(
    scene: Scheduled, command: Command
) -> None:
    scene.add().wait_ready(2)
    scene.put_all(["s"], "noop", cron="@daily")
    given = ["s", "--from", "2026-03-01", "--to", "2026-03-04", "--overlap", "queue"]
    done = command("schedules", "backfill", *given, "--run-id", "r", "--json")
    assert (done.code, done.json["ended"]) == (0, {"succeeded": 3})
    again = command("schedules", "backfill", *given, "--run-id", "r", "--json")
    assert (again.code, again.json["ended"]) == (0, {"succeeded": 3})
    ids = {run.task["id"] for run in scene.runs()}
    assert len(ids) == 3
    order = [s["id"] for states in scene.oracle.states().values() for s in states]
    assert len([id for id in order if id in ids]) == 3, "each ran once"
    scene.put_all(["f"], "fails", {"message": "no"}, cron="@daily")
    failed = command("schedules", "backfill", "f", *given[1:], "--json")
    assert (failed.code, failed.json["ended"]) == (1, {"dead": 3})


def test_what_an_app_declares_is_brought_to_kafka_and_a_hand_made_one_is_left(
    scene: Scheduled, command: Command
) -> None:
    module = scene.folder / "shop.py"
    module.write_text(APP + 'app.schedule("hourly", "send", every="1h", args={"order_id": 2})\n')
    command("schedules", "set", "mine", "--every", "1h", "--task", "send")
    first = scene.scheduler(target="shop:app")
    first.wait_for("schedules of App 'shop': 2 added")
    assert first.terminate() == 0
    refused = command("schedules", "set", "nightly", "--every", "1h", "--task", "send")
    assert refused.code == 2
    assert "schedule 'nightly' is declared by App 'shop': change it there" in refused.err
    command("schedules", "pause", "nightly")
    module.write_text(
        APP.replace("0 3", "0 4") + 'app.schedule("mine", "send", every="2h", args={"order_id": 3})'
    )
    second = scene.scheduler(target="shop:app")
    second.wait_for("schedule 'nightly' changed .cron.")
    second.wait_for("schedule 'hourly' removed .no longer declared.")
    second.wait_for("schedule 'mine' is not written: one of this ID was made by hand")
    second.wait_for("schedules of App 'shop': 1 changed, 1 refused, 1 removed")
    found = {one["id"]: one for one in command("schedules", "list", "--json").json["schedules"]}
    assert found.keys() == {"nightly", "mine"}
    assert (found["nightly"]["cron"], found["nightly"]["status"]) == ("0 4 * * *", "paused")
    assert (found["mine"]["every_ms"], found["mine"]["source"]) == (3_600_000, "hand")


def test_a_run_of_a_schedule_that_is_set_by_hand_is_fired(
    scene: Scheduled, command: Command
) -> None:
    with Gate() as gate:
        gate.open()
        scene.add(env=gate.env).wait_ready(2)
        scene.scheduler()
        done = command(
            "schedules", "set", "s", "--cron", "* * * * * *", "--task", "gated",
            "--overlap", "queue", "--max-runs", "3", "--jitter", "500ms",
        )  # fmt: skip
        assert done.code == 0
        gate.wait_count(3)
        scene.wait(lambda: scene.states().get("s", {}).get("runs") == 3)
        (one,) = command("schedules", "list", "--json").json["schedules"]
        assert (one["status"], one["next"], one["state"]["runs"]) == ("over", None, 3)
        assert "3" in command("schedules", "list").out
