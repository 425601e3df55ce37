"""`taskmill cancel`: a task is not to run, or to end."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from taskmill.app import App
from taskmill.cli.asking import complete_id, complete_queue
from taskmill.cli.output import json_option, note, print_json
from taskmill.consumer.turn import myself
from taskmill.schemas import json_form
from taskmill.schemas.states import Status


@click.command()
@click.argument("task_id", metavar="ID", shell_complete=complete_id)
@click.option("-q", "--queue", default="default", show_default=True, shell_complete=complete_queue)
@click.option("--wait", is_flag=True, help="Wait until the task has ended.")
@json_option
def cancel(task_id: str, queue: str, wait: bool, as_json: bool) -> int:
    """Have a task end, wherever it stands; one that has ended stays as it is.

    What has not begun is not run; a handler that runs is told to end; a next attempt is not made.
    It is for a worker of the queue to do: `--wait` waits for that, and ends with exit code 1 where
    the task ended otherwise. An ID that is not known ends as cancelled too: what comes under it
    later is not run.
    """
    with closing(App("cli")) as app:
        handle = app.handle(task_id, queue)
        before = handle.state() or handle.queued()
        handle.cancel(name=None if before is None else before.name, actor=myself())
        if before is None:
            note(f"no task {task_id!r} is known there; one that comes under that ID is not run")
        state = handle.outcome() if wait else None
    if as_json:
        asked: dict[str, Any] = {"id": task_id, "queue": queue, "cancelled": None}
        if state is not None:
            asked = {**json_form.as_json(state), "cancelled": state.status is Status.CANCELLED}
        print_json(asked)
    elif state is None:
        click.echo(f"asked for task {task_id!r} in queue {queue!r} to be cancelled")
    else:
        click.echo(f"task {task_id!r} is {state.status}")
    return 0 if state is None or state.status is Status.CANCELLED else 1
