"""`taskmill topics migrate`: what it asks before, and how it tells what was done."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from taskmill.cli.output import note, print_json, print_table
from taskmill.consumer.migrate import Migration, Report
from taskmill.runtime.config import load_settings


def run(queue: str, partitions: int, yes: bool, as_json: bool) -> None:
    """Ask, migrate, report."""
    settings = load_settings()
    migration = Migration(settings, queue, note)
    if not yes:
        _ask(migration, queue, partitions)
    try:
        report = migration.run(partitions)
    except KeyboardInterrupt:
        note("stopped; the same command goes on where it was")
        raise
    if as_json:
        print_json(_document(report))
    elif report.rows:
        print_table(
            ("topic", "partitions", "records", "seconds"),
            [
                (
                    row.topic,
                    f"{report.old} -> {report.new}",
                    f"{row.records:,}",
                    f"{row.seconds:.1f}",
                )
                for row in report.rows
            ],
        )
    _say_after(report, settings.partitions)


def _ask(migration: Migration, queue: str, partitions: int) -> None:
    """Raises UsageError where nobody can answer, Abort for a no."""
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is here to be asked: add --yes")
    under_way = migration.under_way()
    if under_way is None and migration.count() == partitions:
        return
    begun = "" if under_way is None else f" (begun before, now {under_way.phase})"
    note(
        f"Queue {queue!r} gets {partitions} partitions{begun}. Its workers must be stopped, and "
        "stay so; stop its producers too: they are refused while `tasks` is made anew."
    )
    click.confirm("Go on?", abort=True, err=True)


def _document(report: Report) -> dict[str, object]:
    return {
        "queue": report.queue,
        "from": report.old,
        "to": report.new,
        "resumed": report.resumed,
        "topics": [row._asdict() for row in report.rows],
        "seconds": round(report.seconds, 3),
        "closed_seconds": report.closed_seconds and round(report.closed_seconds, 3),
    }


def _say_after(report: Report, wanted: int) -> None:
    if report.old == report.new:
        note(f"nothing to do: queue {report.queue!r} has {report.new} partitions")
        return
    resumed = f", resumed from: {report.resumed}" if report.resumed else ""
    closed = ""
    if report.closed_seconds is not None:
        closed = f"; tasks took no record for {report.closed_seconds:.1f} s"
    note(
        f"queue {report.queue!r}: {report.new} partitions, {report.seconds:.1f} s{resumed}{closed}"
    )
    if wanted != report.new:
        note(
            f"set TASKMILL_PARTITIONS={report.new} (it is {wanted}), or `taskmill topics check` "
            "reports drift"
        )


def dry_run(queue: str, partitions: int, as_json: bool) -> None:
    """Count, and tell what would be done."""
    survey = Migration(load_settings(), queue, note).survey(partitions)
    if as_json:
        print_json({"dry_run": True, **asdict(survey)})
        return
    print_table(
        ("topic", "partitions", "records", "bytes", "fewest", "most"),
        [
            (
                one.topic,
                f"{survey.old} -> {survey.new}",
                f"{one.records:,}",
                f"{one.bytes:,}",
                f"{one.fewest:,}",
                f"{one.most:,}",
            )
            for one in survey.topics
        ],
    )
    if survey.phase is not None:
        note(f"under way to {survey.under_way_to} partitions: {survey.phase}")
    if survey.workers:
        note(f"these workers must be stopped: {', '.join(survey.workers)}")
    if survey.old == survey.new:
        note(f"nothing to do: queue {survey.queue!r} has {survey.new} partitions")


def abort(queue: str, as_json: bool) -> None:
    """Undo, and tell."""
    entry = Migration(load_settings(), queue, note).abort()
    if as_json:
        print_json({"queue": queue, "aborted": entry is not None})
    elif entry is None:
        note(f"nothing to do: queue {queue!r} is not on its way")
    else:
        note(f"queue {queue!r} is as it was, with {entry.old} partitions")
