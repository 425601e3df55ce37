"""`taskmill topics`: create what a queue needs, tell where it differs from the table, move it."""

from __future__ import annotations

from dataclasses import asdict

import click

from taskmill.cli.output import json_option, note, print_json, print_table, queues_option
from taskmill.runtime.config import load_settings
from taskmill.runtime.topic_table import retry_specs, topic_specs
from taskmill.runtime.topics import check as check_topics
from taskmill.runtime.topics import ensure, ensure_retry


@click.group()
def topics() -> None:
    """Create, check and migrate the topics of queues."""


@topics.command()
@queues_option
@json_option
def create(queues: tuple[str, ...], as_json: bool) -> None:
    """Create the topics that are missing; existing ones are left as they are."""
    settings = load_settings()
    tiers = settings.retry_tiers
    created = {
        name
        for queue in queues
        for name in (*ensure(settings, queue), *ensure_retry(settings, queue, tiers))
    }
    rows = [
        {"topic": spec.name, "created": spec.name in created}
        for queue in dict.fromkeys(queues)
        for spec in (*topic_specs(settings, queue), *retry_specs(settings, queue, tiers))
    ]
    if as_json:
        print_json({"topics": rows})
        return
    print_table(
        ("topic", ""), [(r["topic"], "created" if r["created"] else "exists") for r in rows]
    )


@topics.command()
@queues_option
@json_option
@click.pass_context
def check(ctx: click.Context, queues: tuple[str, ...], as_json: bool) -> None:
    """Compare topics with what they should be; exit code 1 where they differ."""
    settings = load_settings()
    queues = tuple(dict.fromkeys(queues))
    differences = check_topics(settings, queues)
    if as_json:
        checked = [spec.name for queue in queues for spec in topic_specs(settings, queue)]
        print_json({"topics": checked, "drift": [asdict(one) for one in differences]})
    elif differences:
        print_table(
            ("topic", "what", "expected", "found"),
            [(d.topic, d.what, d.expected, d.found) for d in differences],
        )
    else:
        note("no drift")
    if any(d.what == "partitions" and d.found != d.expected for d in differences):
        note(
            "partitions: `taskmill topics migrate` moves a queue to another count; or set "
            "TASKMILL_PARTITIONS to the one there is"
        )
    if differences:
        ctx.exit(1)


@topics.command()
@click.option("-q", "--queue", default="default", show_default=True)
@click.option("--partitions", metavar="N", type=click.IntRange(1, 1000), help="1 to 1000.")
@click.option("--dry-run", is_flag=True, help="Count what would be moved; change nothing.")
@click.option("--abort", is_flag=True, help="Undo one that was begun, while that is possible.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def migrate(
    queue: str, partitions: int | None, dry_run: bool, abort: bool, yes: bool, as_json: bool
) -> None:
    """Move a queue to another partition count; IDs stay deduplicated.

    Stop its workers before, and its producers: while `tasks` is made anew, enqueueing fails. Killed
    at any point, the same command goes on where it was.
    """
    from taskmill.cli import migrate as command

    if abort == (partitions is not None):
        raise click.UsageError("give --partitions N, or --abort")
    if abort and dry_run:
        raise click.UsageError("--abort has no --dry-run")
    if partitions is None:
        command.abort(queue, as_json)
    elif dry_run:
        command.dry_run(queue, partitions, as_json)
    else:
        command.run(queue, partitions, yes, as_json)
