"""`taskmill topics`: create what a queue needs, and tell where topics differ from the table."""

from __future__ import annotations

from dataclasses import asdict

import click

from taskmill.cli.output import json_option, note, print_json, print_table, queues_option
from taskmill.runtime.config import load_settings
from taskmill.runtime.topic_table import topic_specs
from taskmill.runtime.topics import check as check_topics
from taskmill.runtime.topics import ensure


@click.group()
def topics() -> None:
    """Create and check the topics of queues."""


@topics.command()
@queues_option
@json_option
def create(queues: tuple[str, ...], as_json: bool) -> None:
    """Create the topics that are missing; existing ones are left as they are."""
    settings = load_settings()
    created = {name for queue in queues for name in ensure(settings, queue)}
    rows = [
        {"topic": spec.name, "created": spec.name in created}
        for queue in dict.fromkeys(queues)
        for spec in topic_specs(settings, queue)
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
    if differences:
        ctx.exit(1)
