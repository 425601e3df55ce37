"""`taskmill dlq replay`: what it asks before, what it shows meanwhile, what it tells after."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import click

from taskmill.cli.duration import Duration, Percent, Rate
from taskmill.cli.letter_edit import edit_letter
from taskmill.cli.letter_filter import chosen, filter_options
from taskmill.cli.letter_print import counted, group_document, job_document, print_groups
from taskmill.cli.output import json_option, note, print_json, progress_console
from taskmill.cli.target import app_option
from taskmill.consumer.letter_stats import Stats
from taskmill.consumer.letters import Letter, Letters
from taskmill.consumer.replay import Replay, unfinished
from taskmill.consumer.replay_journal import ABORTED, Job
from taskmill.consumer.replay_order import Order, Progress, Source
from taskmill.consumer.replay_sources import LetterSource
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import Settings, load_settings
from taskmill.runtime.errors import ConfigError, TaskmillError
from taskmill.schemas import json_form
from taskmill.schemas.codec import Codec


@click.command(short_help="Put letters back on the queue.")
@filter_options
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N of them.")
@click.option("--rate", type=Rate(), metavar="N/s", help="No faster than this: 50/s, 30/m.")
@click.option(
    "--canary", type=click.IntRange(1), metavar="N", help="N first; wait for what becomes of them."
)
@click.option(
    "--abort-above",
    type=Percent(),
    metavar="20%",
    help="End where more of the canaries than this fail again (20% if left out).",
)
@click.option(
    "--canary-wait",
    type=Duration(),
    metavar="10m",
    help="How long to wait for the canaries (10m if left out).",
)
@click.option("--edit", is_flag=True, help="Change the arguments of one letter in $EDITOR before.")
@click.option("--dry-run", is_flag=True, help="Count by fingerprint what would be replayed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@app_option(help="With --edit: the App that declares the task, to check the arguments by.")
@json_option
def replay(
    limit: int | None,
    rate: float | None,
    canary: int | None,
    abort_above: float | None,
    canary_wait: float | None,
    edit: bool,
    dry_run: bool,
    yes: bool,
    target: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Put letters back on the queue, as they were enqueued: same ID and bytes, a new generation.

    Each that matches is replayed once, also where this is killed and run again: it goes on where it
    was. Letters stay in the DLQ, and no longer count. Exit code 1 where the canaries failed.
    """
    if canary is None and (abort_above is not None or canary_wait is not None):
        raise click.UsageError("--abort-above and --canary-wait go with --canary N")
    if target is not None and not edit:
        raise click.UsageError("-A goes with --edit")
    wanted, asked = chosen(given)
    more = {
        "limit": limit,
        "rate": rate and f"{rate:g}/s",
        "canary": canary,
        "abort_above": None if abort_above is None else f"{abort_above * 100:g}%",
        "edit": edit or None,
    }
    asked.update({name: value for name, value in more.items() if value is not None})
    settings = load_settings()
    with (
        Letters(settings, given["queue"]) as letters,
        closing(Codec(settings.schema_registry_url)) as codec,
    ):
        if before := going_on(settings, letters, LetterSource.what, asked):
            wanted = replace(wanted, since=before.since, until=before.until)
        order = Order(
            asked,
            wanted.since,
            wanted.until,
            limit,
            rate,
            canary,
            0.2 if abort_above is None else abort_above,
            600.0 if canary_wait is None else canary_wait,
        )
        letters.refresh()
        # What comes later was not shown to anybody.
        stretches = letters.stretches(wanted)
        stats = Stats(letters.scan(wanted, stretches))
        total = stats.count if limit is None else min(limit, stats.count)
        if dry_run:
            _tell_dry(stats, total, given["queue"], as_json=as_json)
            return 0
        edited = None
        if edit:
            with closing(letters.scan(wanted, stretches)) as found:
                letter = _only(found)
            edited = {letter.place: edit_letter(letter, codec, target)}
        if stats.count == 0:
            note("no letter matches")
        elif not yes:
            _ask(stats, total, given["queue"], as_json=as_json)
        source = LetterSource(letters, wanted, stretches, codec, edited)
        return run(settings, given["queue"], letters, order, source, total, as_json=as_json)


def going_on(settings: Settings, letters: Letters, what: str, asked: dict[str, Any]) -> Job | None:
    """The replay that this one goes on with, if there is one; says so."""
    job = unfinished(settings, letters, what, asked, SYSTEM_CLOCK)
    if job is not None:
        note(f"going on with replay {job.id}, begun {json_form.iso(job.began_at)} and not ended")
    return job


def run(
    settings: Settings,
    queue: str,
    letters: Letters,
    order: Order,
    source: Source,
    total: int,
    *,
    as_json: bool,
) -> int:
    """Replay with a progress bar, and report; the exit code."""
    try:
        with _bar(total) as say:
            job = Replay(settings, queue, letters.replayed, say).run(order, source)
    except KeyboardInterrupt:
        note("stopped; the same command goes on where it was")
        raise
    if as_json:
        print_json(job_document(job, job.replayed))
    else:
        for why, count in job.left.items():
            note(f"left out {counted(count, 'record')}: {why}")
        note(f"replayed {counted(job.replayed, 'record')} (replay {job.id})")
    if job.status == ABORTED:
        raise TaskmillError(f"{job.why}: the others were not replayed")
    return 0


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    """A bar on a terminal; yields what takes a Progress."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = progress_console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("replaying", total=total)

        def say(at: Progress) -> None:
            bar.update(task, completed=at.replayed, description=at.waiting or "replaying")

        yield say


def _tell_dry(stats: Stats, total: int, queue: str, *, as_json: bool) -> None:
    if as_json:
        groups = [group_document(one, "fingerprint") for one in stats.groups("fingerprint")]
        document = {"dry_run": True, "queue": queue, "matched": stats.count, "would_replay": total}
        print_json({**document, "fingerprints": groups})
        return
    print_groups(stats, "fingerprint", 50)
    of = f" of {stats.count:,}" if total < stats.count else ""
    note(f"{counted(total, 'letter')}{of} would be replayed")


def _ask(stats: Stats, total: int, queue: str, *, as_json: bool) -> None:
    """Raises UsageError where nobody can answer, Abort for a no."""
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is here to be asked: add --yes")
    if not as_json:
        print_groups(stats, "fingerprint", 20)
    click.confirm(f"Replay {counted(total, 'letter')} of queue {queue!r}?", abort=True, err=True)


def _only(letters: Iterator[Letter]) -> Letter:
    """The one letter that matches; ConfigError where there are none, or more."""
    found = list(islice(letters, 2))
    if len(found) != 1:
        many = "no letter matches" if not found else "more than one letter matches"
        raise ConfigError(f"--edit is for one letter, and {many}: `--id ID` names one")
    return found[0]
