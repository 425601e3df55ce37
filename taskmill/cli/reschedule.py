"""`taskmill reschedule`: a task that waits for its time is to have another one."""

from __future__ import annotations

from contextlib import closing

import click

from taskmill.app import App
from taskmill.cli.output import json_option, print_json
from taskmill.consumer.turn import myself


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("-q", "--queue", default="default", show_default=True)
@click.option("--delay", metavar="5m", help="It starts so long from now, at the earliest.")
@click.option("--at", metavar="ISO", help="It starts then, such as 2027-01-31T08:00Z.")
@json_option
def reschedule(task_id: str, queue: str, delay: str | None, at: str | None, as_json: bool) -> int:
    """Give a task that is `scheduled` another time, earlier or later.

    It is for a worker of the queue to do; `taskmill status` shows the new time once it is done. At
    the very moment of the old one it may come too late.
    """
    if (delay is None) == (at is None):
        raise click.UsageError("give one of --delay and --at")
    with closing(App("cli")) as app:
        app.handle(task_id, queue).reschedule(delay=delay, at=at, actor=myself())
    if as_json:
        print_json({"id": task_id, "queue": queue, "asked": True})
    else:
        click.echo(f"asked for task {task_id!r} in queue {queue!r} to have another time")
    return 0
