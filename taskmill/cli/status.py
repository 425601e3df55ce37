"""`taskmill status` and `taskmill result`: what became of a task."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from taskmill.app import App
from taskmill.cli.asking import complete_id, complete_queue
from taskmill.cli.duration import Duration
from taskmill.cli.enqueue import report_outcome
from taskmill.cli.output import json_option, print_json, print_table
from taskmill.consumer.admin import Admin
from taskmill.producer.definition import DEFAULT_QUEUE
from taskmill.producer.handle import Handle
from taskmill.runtime.config import load_settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.topics import Topics
from taskmill.schemas import json_form
from taskmill.schemas.models import TaskState
from taskmill.schemas.states import is_terminal

_queue_option = click.option(
    "-q", "--queue", default="default", show_default=True, shell_complete=complete_queue
)


@click.command()
@click.argument("task_id", metavar="ID", shell_complete=complete_id)
@_queue_option
@json_option
def status(task_id: str, queue: str, as_json: bool) -> int:
    """Show where a task stands: its state as workers told it last.

    A task that no worker has told of is looked for on its queue's topic. With TASKMILL_API_URL a
    console is asked, not Kafka. An ID is unique in its queue.
    """
    with closing(App("cli")) as app:
        document = json_form.as_json(_find(app.handle(task_id, queue)))
    if as_json:
        print_json(document)
    else:
        told = [(k, _shown(v)) for k, v in document.items() if v is not None]
        print_table(("field", "value"), told)
    return 0


@click.command()
@click.argument("task_id", metavar="ID", shell_complete=complete_id)
@_queue_option
@click.option(
    "--wait",
    "timeout",
    type=Duration(),
    metavar="10s",
    help="Wait so long for its end. Left out: not at all.",
)
@json_option
def result(task_id: str, queue: str, timeout: float | None, as_json: bool) -> int:
    """Print what a task returned, as JSON; with --json all of its state.

    Exit code 1 where it ended otherwise, has not ended yet, or is not known.
    """
    with closing(App("cli")) as app:
        handle = app.handle(task_id, queue)
        if timeout is None:
            state = _find(handle)
            if not is_terminal(state.status):
                raise TaskmillError(
                    f"task {task_id!r} is {state.status}; `--wait 10s` waits for its end"
                )
        return report_outcome(handle, timeout, as_json=as_json)


def _find(handle: Handle[Any]) -> TaskState:
    state = handle.state() or handle.queued()
    if state is not None:
        return state
    settings = load_settings()
    if settings.api_url is None and handle.queue != DEFAULT_QUEUE:
        # A slip of the pen is told of.
        Admin(settings).queue_partitions(Topics(settings.prefix, handle.queue))
    raise TaskmillError(
        f"no task {handle.id!r} in queue {handle.queue!r}: it was not enqueued, or ended too long "
        "ago"
    )


def _shown(value: object) -> object:
    """A table's cell: an error in one line."""
    if isinstance(value, dict) and "fingerprint" in value:
        return f"{value['type']}: {value['message']}"
    return value
