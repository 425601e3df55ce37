"""`taskmill schedules trigger` and `backfill`: runs of a schedule that the clock does not fire."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from taskmill.cli.output import json_option, note, print_json, print_table, progress_console
from taskmill.producer.ids import new_id
from taskmill.producer.reader import StateReader
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import load_settings
from taskmill.runtime.errors import ConfigError, InvalidInput
from taskmill.scheduler.board import Board
from taskmill.scheduler.calendar import Rule
from taskmill.scheduler.firing import run_task
from taskmill.scheduler.schedule import check_run, time_of, time_text
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import Schedule
from taskmill.schemas.states import Status

#: Tasks sent before the bar moves.
_CHUNK = 500
#: How soon Ctrl-C is seen.
_LOOK_S = 0.5
#: Brokers stamp states by their own clocks.
_SKEW_MS = 5_000


@click.command(short_help="Run a schedule's task now.")
@click.argument("id", metavar="ID")
@click.option("--run-id", metavar="NAME", help="Sent twice under one name, it runs once.")
@json_option
def trigger(id: str, run_id: str | None, as_json: bool) -> None:
    """Enqueue a schedule's task now, paused or not, whatever else of it runs; print the task's ID.

    It counts as none of the schedule's runs.
    """
    run = check_run(run_id) if run_id is not None else _new_run()
    settings = load_settings()
    with (
        closing(Codec(settings.schema_registry_url)) as codec,
        Board(settings, codec, SYSTEM_CLOCK) as board,
    ):
        _, schedule, _ = board.get(id)
        now = SYSTEM_CLOCK.now_ms()
        task = run_task(schedule, now, now, run)
        if run_id is not None:
            # The time is no part of it: the same name is the same run.
            task = task._replace(id=f"schedule:{id}#{run}")
        board.enqueue(schedule.queue, [task])
    if as_json:
        print_json({"id": task.id, "schedule": id, "name": task.name, "queue": schedule.queue})
    else:
        click.echo(task.id)


@click.command(short_help="Run a schedule's task for times that have passed.")
@click.argument("id", metavar="ID")
@click.option(
    "--from", "since", required=True, metavar="ISO",
    help="The first time; by the clock of the schedule's zone where it does not say.",
)  # fmt: skip
@click.option("--to", "until", required=True, metavar="ISO", help="Times before this one.")
@click.option("--dry-run", is_flag=True, help="Show the times, and enqueue nothing.")
@click.option(
    "--overlap",
    type=click.Choice(("allow", "queue")),
    default="allow",
    show_default=True,
    help="queue: each run waits for the end of the one before, and this command with them.",
)
@click.option(
    "--limit", default=1000, show_default=True, type=click.IntRange(1), help="No more than so many."
)
@click.option("--run-id", metavar="NAME", help="Go on with the backfill of that name.")
@json_option
def backfill(
    id: str,
    since: str,
    until: str,
    dry_run: bool,
    overlap: str,
    limit: int,
    run_id: str | None,
    as_json: bool,
) -> int:
    """Enqueue a schedule's task for each of its times from --from on, before --to, in order.

    They are runs beside those that the schedule had: it says which time each is for, and nothing of
    them counts for it. Exit code 1 where runs were waited for and did not succeed.
    """
    run = check_run(run_id) if run_id is not None else _new_run()
    settings = load_settings()
    with (
        closing(Codec(settings.schema_registry_url)) as codec,
        Board(settings, codec, SYSTEM_CLOCK) as board,
    ):
        _, schedule, rule = board.get(id)
        times = _times(schedule, rule, since, until, limit)
        if dry_run:
            _tell_dry(id, times, as_json)
            return 0
        note(
            f"backfill {run} of schedule {id!r}: {len(times)} runs; --run-id {run} goes on with it"
        )
        if overlap == "allow":
            ended: Counter[str] = Counter()
            _send_all(board, schedule, times, run)
        else:
            reader = StateReader(settings, codec, SYSTEM_CLOCK)
            with closing(reader):
                ended = _send_in_turn(board, reader, schedule, times, run, run_id is None)
    document: dict[str, Any] = {"schedule": id, "run_id": run, "enqueued": len(times)}
    if as_json:
        print_json(document | ({"ended": dict(ended)} if overlap == "queue" else {}))
    else:
        told = ", ".join(f"{count} {status}" for status, count in sorted(ended.items()))
        note(f"{len(times)} enqueued" + (f": {told}" if told else ""))
    return int(any(status != Status.SUCCEEDED for status in ended))


def _times(schedule: Schedule, rule: Rule, since: str, until: str, limit: int) -> list[int]:
    start = time_of("--from", since, schedule.tz)
    end = time_of("--to", until, schedule.tz)
    assert start is not None, "it is required"
    assert end is not None, "it is required"
    if end <= start:
        raise ConfigError(f"--to {time_text(end)} is not after --from {time_text(start)}")
    if end > SYSTEM_CLOCK.now_ms():
        raise ConfigError(f"--to {time_text(end)} has not passed: the schedule itself is to fire")
    first = start if schedule.start_at is None else max(start, schedule.start_at)
    last = end - 1 if schedule.end_at is None else min(end - 1, schedule.end_at)
    times: list[int] = []
    time = rule.after(first - 1)
    while time is not None and time <= last:
        times.append(time)
        if len(times) > limit:
            raise InvalidInput(
                f"schedule {schedule.id!r} has more than {limit} times between "
                f"{time_text(start)} and {time_text(end)}; nothing was enqueued, --limit N allows "
                "more"
            )
        time = rule.after(time)
    return times


def _tell_dry(id: str, times: list[int], as_json: bool) -> None:
    if as_json:
        print_json({"schedule": id, "times": [time_text(time) for time in times]})
        return
    if times:
        print_table(("time",), [(time_text(time),) for time in times])
    note(f"{len(times)} runs would be enqueued")


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = progress_console()
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _send_all(board: Board, schedule: Schedule, times: list[int], run: str) -> None:
    with _bar() as progress:
        sending = progress.add_task("enqueueing", total=len(times))
        for first in range(0, len(times), _CHUNK):
            part = times[first : first + _CHUNK]
            now = SYSTEM_CLOCK.now_ms()
            board.enqueue(schedule.queue, [run_task(schedule, time, now, run) for time in part])
            progress.advance(sending, len(part))


def _send_in_turn(
    board: Board, reader: StateReader, schedule: Schedule, times: list[int], run: str, is_new: bool
) -> Counter[str]:
    """Enqueue each once the one before has ended; how they ended, by status."""
    ended: Counter[str] = Counter()
    with _bar() as progress:
        running = progress.add_task("running", total=len(times))
        for time in times:
            now = SYSTEM_CLOCK.now_ms()
            task = run_task(schedule, time, now, run)
            board.enqueue(schedule.queue, [task])
            # Of one that ended in an earlier go, the state lies anywhere in the past.
            future = reader.end(schedule.queue, task.id, now - _SKEW_MS if is_new else None)
            while True:
                try:
                    seen = future.result(_LOOK_S)
                except TimeoutError:
                    continue
                break
            assert seen is not None, "an end was waited for"
            ended[str(seen.state.status)] += 1
            progress.advance(running)
    return ended


def _new_run() -> str:
    """A short name that no other run has: the random end of an ID."""
    return new_id()[-12:]
