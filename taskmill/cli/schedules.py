"""`taskmill schedules`: tasks that the clock enqueues: list, set, remove, pause, resume, next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Any

import click

from taskmill.app import App
from taskmill.cli.columns import Column
from taskmill.cli.output import json_option, note, print_fitted, print_json, print_table
from taskmill.cli.schedules_run import backfill, trigger
from taskmill.cli.target import app_option, load_app
from taskmill.cli.task_lines import make_call, parse_object
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import load_settings
from taskmill.runtime.errors import InvalidInput
from taskmill.scheduler.board import Board, Posted
from taskmill.scheduler.calendar import zone_of
from taskmill.scheduler.policy import delay_ms, is_finished, next_times
from taskmill.scheduler.reconcile import differences, merged
from taskmill.scheduler.schedule import (
    HAND,
    ScheduleForm,
    check,
    check_schedule_id,
    declared_by,
    time_text,
)
from taskmill.schemas import json_form
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import Schedule

_COLUMNS = (
    Column("schedule"),
    Column("due", 2),
    Column("zone", 6),
    Column("task", 3),
    Column("queue", 7),
    Column("next", 1),
    Column("last", 5),
    Column("runs", 4, is_right=True),
    Column("status"),
)


@click.group()
def schedules() -> None:
    """Have tasks enqueued by the clock. `taskmill scheduler` is what does it.

    Schedules lie on Kafka. Those that an App declares (app.schedule) are kept by its code; those
    made here are left alone by that.
    """


schedules.add_command(trigger)
schedules.add_command(backfill)


@contextmanager
def _board() -> Iterator[Board]:
    settings = load_settings()
    with (
        closing(Codec(settings.schema_registry_url)) as codec,
        Board(settings, codec, SYSTEM_CLOCK) as board,
    ):
        yield board


@schedules.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List schedules: when each is due, what it runs, how it went so far."""
    with _board() as board:
        found = board.all()
    now = SYSTEM_CLOCK.now_ms()
    documents = [_document(posted, now) for posted in found]
    if as_json:
        print_json({"schedules": documents})
        return
    if documents:
        print_fitted(_COLUMNS, [_row(one) for one in documents])
    note(f"{len(documents)} schedule{'' if len(documents) == 1 else 's'}")


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    if one["status"] == "broken":
        return (one["id"], *(None,) * 7, f"broken: {one['broken']}")
    every = None if one["every_ms"] is None else f"every {one['every_ms'] / 1000:g} s"
    state = one["state"] or {}
    return (
        one["id"],
        one["cron"] or every,
        one["tz"],
        one["task"],
        one["queue"],
        one["next"],
        state.get("last_nominal"),
        state.get("runs", 0),
        one["status"],
    )


def _document(posted: Posted, now: int) -> dict[str, Any]:
    """A schedule as JSON: its fields, its `state`, when it is `next` due, its `status`."""
    schedule, rule = posted.schedule, posted.rule
    fields = {} if schedule is None else json_form.as_json(schedule)
    state = None if posted.state is None else json_form.as_json(posted.state)
    if schedule is None or rule is None:
        return {
            "id": posted.id, **fields, "state": state, "next": None, "status": "broken",
            "broken": posted.broken,
        }  # fmt: skip
    times = next_times(schedule, rule, now, 1)
    if schedule.paused:
        status, times = "paused", []
    elif not times or (posted.state is not None and is_finished(schedule, posted.state)):
        status, times = "over", []
    else:
        status = "on"
    return {
        **fields,
        "state": state,
        "next": time_text(times[0]) if times else None,
        "status": status,
    }


@schedules.command("set", short_help="Make a schedule, or change one.")
@click.argument("id", metavar="ID")
@click.option("--task", required=True, metavar="NAME", help="The task to run.")
@click.option("--cron", metavar="EXPR", help='"0 3 * * mon-fri"; a sixth field is seconds.')
@click.option("--every", metavar="5m", help="A period, from --start on, else from the epoch.")
@click.option("--tz", metavar="ZONE", help="IANA zone that --cron goes by. Default: UTC.")
@app_option(help="The App that declares the task: arguments are validated, its settings hold.")
@click.option("--args", "args_text", metavar="JSON", help="Arguments, a JSON object. Default: {}.")
@click.option("-q", "--queue", help="The task's own by default; without -A: default.")
@click.option(
    "--misfire",
    metavar="P",
    help="Times reached more than a minute late: skip, fire_once (default), fire_all.",
)
@click.option("--misfire-max", type=int, metavar="N", help="With fire_all: the latest N (10).")
@click.option("--catch-up", metavar="1d", help="Older times are dropped in any case (1d).")
@click.option(
    "--overlap", metavar="P", help="While the last run goes on: skip (default), queue, allow."
)
@click.option("--jitter", metavar="10s", help="Put each time off by up to so much.")
@click.option("--start", metavar="ISO", help="No time before it; by --tz where it does not say.")
@click.option("--end", metavar="ISO", help="No time after it.")
@click.option("--max-runs", type=int, metavar="N", help="Over after so many.")
@click.option("--timeout", metavar="10s", help="The longest that an attempt may run.")
@click.option("--expires", metavar="1h", help="Not started so long after, a run ends as expired.")
@click.option("--deadline", metavar="1d", help="Nothing of a run goes on beyond so long after.")
@click.option("--max-attempts", type=int, metavar="N", help="Attempts before a run is dead.")
@json_option
def set_(id: str, target: str | None, args_text: str | None, as_json: bool, **said: Any) -> None:
    """Make the schedule ID, or put this in place of what it is.

    All of it is said anew; a pause stays, and so do the times that count where they do not change.
    """
    check_schedule_id(id)
    app = load_app(target) if target else App("cli")
    with closing(app):
        given = {name: value for name, value in said.items() if value is not None}
        args = parse_object(args_text or "{}", "--args")
        options = {"queue": given["queue"]} if "queue" in given else {}
        call = make_call(app, given["task"], args, options, declared=target is not None)
        form = ScheduleForm.of(id, {**given, "task": call.name, "queue": call.queue})
        new = form.record(id, call.payload, HAND, SYSTEM_CLOCK.now_ms())
        with Board(app.settings, app.codec, SYSTEM_CLOCK) as board:
            posted = board.find(id)
            old = posted.schedule if posted is not None else None
            _refuse_declared(id, old)
            schedule = merged(new, old)
            board.write([schedule])
    what = "made" if posted is None else "changed" if old and differences(new, old) else "kept"
    state = posted.state if posted is not None else None
    document = _document(Posted(id, schedule, state, check(schedule)), SYSTEM_CLOCK.now_ms())
    if as_json:
        print_json({"what": what, **document})
    else:
        due = f"next at {document['next']}" if document["next"] else document["status"]
        note(f"schedule {id!r} {what}; {due}")


def _refuse_declared(id: str, schedule: Schedule | None) -> None:
    app = None if schedule is None else declared_by(schedule)
    if app is not None:
        raise InvalidInput(
            f"schedule {id!r} is declared by App {app!r}: change it there, or `schedules pause` it"
        )


@schedules.command(short_help="Remove schedules.")
@click.argument("ids", metavar="ID…", nargs=-1, required=True)
@json_option
def rm(ids: tuple[str, ...], as_json: bool) -> None:
    """Remove schedules. Runs that were enqueued go on.

    One that an App declares comes back when its scheduler starts next.
    """
    with _board() as board:
        there = {posted.id: posted for posted in board.all()}
        for id in ids:
            if id not in there:
                raise InvalidInput(f"no schedule {id!r:.80}; nothing was removed")
        board.remove(ids)
    if as_json:
        print_json({"removed": list(ids)})
    for id in ids:
        schedule = there[id].schedule
        app = None if schedule is None else declared_by(schedule)
        back = "" if app is None else f"; App {app!r} declares it: its scheduler brings it back"
        note(f"schedule {id!r} removed{back}")


@schedules.command(short_help="Have nothing of a schedule fired.")
@click.argument("ids", metavar="ID…", nargs=-1, required=True)
@json_option
def pause(ids: tuple[str, ...], as_json: bool) -> None:
    """Have nothing fired until `resume`; an App that declares it leaves that as it is.

    Times that pass meanwhile do not count as missed.
    """
    _set_paused(ids, True, as_json)


@schedules.command(short_help="Let a paused schedule go on.")
@click.argument("ids", metavar="ID…", nargs=-1, required=True)
@json_option
def resume(ids: tuple[str, ...], as_json: bool) -> None:
    """Go on with the next time."""
    _set_paused(ids, False, as_json)


def _set_paused(ids: tuple[str, ...], paused: bool, as_json: bool) -> None:
    now = SYSTEM_CLOCK.now_ms()
    with _board() as board:
        found = [board.get(id)[1] for id in dict.fromkeys(ids)]
        changed = {
            one.id: one._replace(paused=paused, updated_at=now, since=_since(one, paused, now))
            for one in found
            if one.paused is not paused
        }
        if changed:
            board.write(changed.values())
    word = "paused" if paused else "resumed"
    if as_json:
        print_json({word: list(changed)})
    for one in found:
        before = "" if one.id in changed else ": it was before" if paused else ": it was not paused"
        note(f"schedule {one.id!r} {word if not before or paused else 'goes on'}{before}")


def _since(schedule: Schedule, paused: bool, now: int) -> int:
    """From when on its times count: as before, and once it goes on, from then."""
    if not paused:
        return now
    return schedule.updated_at if schedule.since is None else schedule.since


@schedules.command("next", short_help="Show when a schedule is due.")
@click.argument("id", metavar="ID")
@click.option("-n", "count", default=5, show_default=True, type=click.IntRange(1, 1000))
@json_option
def next_(id: str, count: int, as_json: bool) -> None:
    """Show when a schedule is due next: in UTC, by the clock of its zone, with its jitter."""
    with _board() as board:
        posted, schedule, rule = board.get(id)
    now = SYSTEM_CLOCK.now_ms()
    status = _document(posted, now)["status"]
    if schedule.max_runs is not None:
        runs = 0 if posted.state is None else posted.state.runs
        count = min(count, schedule.max_runs - runs)
    times = next_times(schedule, rule, now, count)
    rows = [
        {
            "nominal": time_text(time),
            "local": _local(time, schedule.tz),
            "fires": time_text(time + delay_ms(schedule, time)),
        }
        for time in times
    ]
    if as_json:
        print_json({"id": id, "status": status, "times": rows})
        return
    if rows:
        print_table(
            ("UTC", schedule.tz, "with its jitter"),
            [(row["nominal"], row["local"], row["fires"]) for row in rows],
        )
    if status != "on":
        note(f"schedule {id!r} is {status}" + (": none of these fires" if rows else ""))


def _local(time: int, tz: str) -> str:
    return datetime.fromtimestamp(time // 1000, zone_of(tz)).isoformat(sep=" ")
