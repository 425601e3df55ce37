"""`taskmill tasks`: the newest tasks that a console knows."""

from __future__ import annotations

from itertools import islice

import click

from taskmill.cli.asking import complete_name, complete_queue, console_client
from taskmill.cli.columns import Column, age
from taskmill.cli.output import json_option, note, print_fitted, print_json
from taskmill.console.api.models import MAX_PAGE, Task
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.schemas.states import Status

#: A person waits.
_ANSWER_S = 10.0
_COLUMNS = (
    Column("id"),
    Column("status"),
    Column("name", is_cut=True),
    Column("queue", 2),
    Column("age", is_right=True),
    Column("try", 4, is_right=True),
    Column("took", 3, is_right=True),
    Column("error", 1, is_cut=True),
    Column("worker", 5),
)


@click.command()
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([str(status) for status in Status]),
    help="Only those that stand so. May be given more than once, as may the next two.",
)
@click.option("--name", "names", multiple=True, metavar="N", shell_complete=complete_name)
@click.option(
    "-q", "--queue", "queues", multiple=True, metavar="Q", shell_complete=complete_queue,
    help="Left out: all.",
)  # fmt: skip
@click.option("--since", metavar="1h", help="Enqueued since: a time ago, or ISO 8601.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@json_option
def tasks(
    statuses: tuple[str, ...],
    names: tuple[str, ...],
    queues: tuple[str, ...],
    since: str | None,
    limit: int,
    as_json: bool,
) -> int:
    """List tasks, newest first, as the console of TASKMILL_API_URL knows them."""
    with console_client("`taskmill tasks`", _ANSWER_S) as client:
        pages = client.tasks(
            status=statuses, name=names, queue=queues, since=since, page=min(limit + 1, MAX_PAGE)
        )
        found = list(islice(pages, limit + 1))
    is_more, found = len(found) > limit, found[:limit]
    if as_json:
        print_json({"tasks": [one.model_dump(mode="json") for one in found], "more": is_more})
        return 0
    now_ms = SYSTEM_CLOCK.now_ms()
    print_fitted(_COLUMNS, [_row(one, now_ms) for one in found])
    if not found:
        note("no task matches" if statuses or names or queues or since else "no tasks yet")
    if is_more:
        note(f"the newest {limit}; --limit shows more")
    return 0


def _row(task: Task, now_ms: int) -> tuple[object, ...]:
    began, ended = task.started_at, task.finished_at
    enqueued = task.enqueued_at
    error = task.error
    return (
        task.id,
        str(task.status),
        task.name,
        task.queue,
        None if enqueued is None else age(max(0.0, now_ms / 1000 - enqueued.timestamp())),
        task.attempt,
        None if began is None or ended is None else age((ended - began).total_seconds()),
        None if error is None else f"{error.type}: {error.message}",
        task.worker,
    )
