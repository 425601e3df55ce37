"""`taskmill replay`: finished tasks, run again."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from typing import Any

import click

from taskmill.cli.dlq_replay import going_on, run
from taskmill.cli.duration import Moment, MomentType, Rate
from taskmill.cli.letter_print import counted
from taskmill.cli.output import json_option, note, print_json, print_table
from taskmill.consumer.letters import Letters
from taskmill.consumer.replay_order import Order
from taskmill.consumer.replay_sources import FinishedSource
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import load_settings
from taskmill.schemas.codec import Codec
from taskmill.schemas.states import Status


@click.command()
@click.option("-q", "--queue", default="default", show_default=True)
@click.option(
    "--since",
    type=MomentType(),
    metavar="TIME",
    required=True,
    help="Finished then or later: 1h (ago), 2026-11-26T14:00 (UTC).",
)
@click.option(
    "--until", type=MomentType(), metavar="TIME", help="Finished before; now if left out."
)
@click.option("--name", "names", multiple=True, metavar="NAME", help="Of this task. Repeatable.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N of them.")
@click.option("--rate", type=Rate(), metavar="N/s", help="No faster than this: 50/s, 30/m.")
@click.option("--dry-run", is_flag=True, help="Count what would be run again.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def replay(
    queue: str,
    since: Moment,
    until: Moment | None,
    names: tuple[str, ...],
    limit: int | None,
    rate: float | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Run tasks again that finished in a time, however they ended: same ID, a new generation.

    They are taken from the queue's topic, which keeps what is done for 7 days. Dead ones' letters
    no longer count then. Killed and run again, it goes on where it was; `taskmill dlq history`
    shows it. (To set back the group's offsets runs nothing again: what is done is known to be.)
    """
    now = SYSTEM_CLOCK.now_ms()
    # What has not finished yet is not meant.
    end = now if until is None else min(until.ms, now)
    if since.ms >= end:
        before = "now" if until is None else f"--until {until.text}, or not before now"
        raise click.BadParameter(f"{since.text} is not before {before}", param_hint="--since")
    given: dict[str, Any] = {
        "since": since.text,
        "until": until and until.text,
        "name": sorted(names),
        "limit": limit,
        "rate": rate and f"{rate:g}/s",
    }
    asked = {name: value for name, value in given.items() if value}
    settings = load_settings()
    with (
        Letters(settings, queue) as letters,
        closing(Codec(settings.schema_registry_url)) as codec,
    ):
        job = going_on(settings, letters, FinishedSource.what, asked)
        order = Order(asked, since.ms, end, limit, rate)
        if job is not None:
            order = replace(order, since=job.since, until=job.until)
        source = FinishedSource(letters, names, codec)
        found = source.survey(order.since or 0, order.until or end, job)
        total = found.total() if limit is None else min(limit, found.total())
        if dry_run:
            _tell_dry(found, total, queue, as_json=as_json)
            return 0
        if not found:
            note("no task finished then")
        elif not yes:
            _ask(found, total, queue, as_json=as_json)
        return run(settings, queue, letters, order, source, total, as_json=as_json)


def _print(found: Counter[tuple[str, Status]]) -> None:
    if found:
        rows = [(name, status, f"{n:,}") for (name, status), n in sorted(found.items())]
        print_table(("task", "ended", "tasks"), rows)


def _tell_dry(found: Counter[tuple[str, Status]], total: int, queue: str, *, as_json: bool) -> None:
    if as_json:
        rows = [{"task": t, "status": s, "tasks": n} for (t, s), n in sorted(found.items())]
        document = {"dry_run": True, "queue": queue, "matched": found.total()}
        print_json({**document, "would_replay": total, "tasks": rows})
        return
    _print(found)
    note(f"{counted(total, 'task')} would be run again")


def _ask(found: Counter[tuple[str, Status]], total: int, queue: str, *, as_json: bool) -> None:
    """On a terminal alone: a script has said which time it means. Raises Abort for a no."""
    if not sys.stdin.isatty():
        return
    if not as_json:
        _print(found)
    click.confirm(f"Run {counted(total, 'task')} of queue {queue!r} again?", abort=True, err=True)
