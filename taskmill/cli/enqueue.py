"""`taskmill enqueue`: one task from the command line, or many from a file."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from typing import IO, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from taskmill.app import App
from taskmill.cli.output import json_option, note, print_json, progress_console
from taskmill.cli.target import app_option, load_app
from taskmill.cli.task_lines import (
    BadLine,
    Defaults,
    check_lines,
    make_call,
    parse_object,
    read_calls,
    rewindable,
)
from taskmill.producer.definition import TaskCall
from taskmill.producer.handle import Handle
from taskmill.producer.options import is_past
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.errors import EnqueueError, InvalidInput, ResultExpired
from taskmill.schemas import json_form
from taskmill.schemas.states import Status

#: Tasks sent before the bar moves and their IDs are printed: a tenth of a second's worth.
_CHUNK = 5_000


@click.command()
@click.argument("name", required=False)
@app_option(help="The App that declares the task: arguments are validated, its settings hold.")
@click.option("--args", "args_text", metavar="JSON", help="Arguments, a JSON object. Default: {}.")
@click.option("--id", "task_id", metavar="ID", help="Dedup ID. Left out: a UUIDv7.")
@click.option("-q", "--queue", help="The task's own by default; without -A: default.")
@click.option("--timeout", metavar="10s", help="The longest that an attempt may run.")
@click.option("--delay", metavar="5m", help="It starts so long from now, at the earliest.")
@click.option("--at", metavar="ISO", help="It starts then, such as 2027-01-31T08:00Z.")
@click.option("--expires", metavar="1h", help="Not started so long from then, it is expired.")
@click.option("--deadline", metavar="1d", help="Nothing of it runs beyond so long from then.")
@click.option("--max-attempts", type=int, metavar="N", help="Attempts before it is dead.")
@click.option("--wait", is_flag=True, help="Wait until it has ended, and print its result.")
@click.option(
    "--from",
    "source",
    type=click.File("rb"),
    metavar="FILE.jsonl",
    help="Many tasks, a JSON object a line; - is stdin. Nothing is sent where a line is bad.",
)
@click.option("--skip-bad", is_flag=True, help="With --from: send the other lines all the same.")
@json_option
def enqueue(
    name: str | None,
    target: str | None,
    args_text: str | None,
    task_id: str | None,
    queue: str | None,
    delay: str | None,
    at: str | None,
    timeout: str | None,
    expires: str | None,
    deadline: str | None,
    max_attempts: int | None,
    wait: bool,
    source: IO[bytes] | None,
    skip_bad: bool,
    as_json: bool,
) -> int:
    """Put a task on Kafka and print its ID, once the broker has acknowledged it.

    Lines of --from are {"args": {…}, "name": …, "id": …, "queue": …, "delay": …, "at": …,
    "timeout": …, "expires": …, "deadline": …, "max_attempts": …}; all but args may be left out
    where NAME is given here. What is given here holds for lines that do not say otherwise.
    """
    given = {
        "queue": queue,
        "delay": delay,
        "at": at,
        "timeout": timeout,
        "expires": expires,
        "deadline": deadline,
        "max_attempts": max_attempts,
    }
    options = {key: value for key, value in given.items() if value is not None}
    if source is not None:
        _refuse_with_from({"--args": args_text, "--id": task_id, "--wait": wait or None})
    elif name is None:
        raise click.UsageError("a NAME is needed, or --from FILE.jsonl")
    elif skip_bad:
        raise click.UsageError("--skip-bad goes with --from")
    app = load_app(target) if target else App("cli")
    with closing(app):
        if source is not None:
            defaults = Defaults(name, options, target is not None)
            return _many(app, source, defaults, skip_bad=skip_bad, as_json=as_json)
        assert name is not None, "checked above"
        args = parse_object(args_text or "{}", "--args")
        if task_id is not None:
            options["id"] = task_id
        call = make_call(app, name, args, options, target is not None)
        return _one(app, call, wait=wait, as_json=as_json)


def _refuse_with_from(options: dict[str, object]) -> None:
    for option, value in options.items():
        if value is not None:
            raise click.UsageError(f"{option} does not go with --from")


def _one(app: App, call: TaskCall[Any], *, wait: bool, as_json: bool) -> int:
    handle = app.enqueue_call(call)
    if is_past(call, SYSTEM_CLOCK.now_ms()):
        note(f"its time, {json_form.iso(call.start.at_ms)}, is past: it runs at once")
    if not wait:
        if as_json:
            print_json({"id": handle.id, "name": call.name, "queue": handle.queue})
        else:
            click.echo(handle.id)
        return 0
    note(handle.id)
    return report_outcome(handle, None, as_json=as_json)


def report_outcome(handle: Handle[Any], timeout: float | None, *, as_json: bool) -> int:
    """Wait for the task's end and print it: its result alone, or all of its state as JSON.

    The exit code: 0 where it succeeded, else 1. Raises ResultTimeout, ResultExpired, Unreachable.
    """
    state = handle.outcome(timeout)
    document = json_form.as_json(state)
    if as_json:
        print_json(document)
    elif state.status is Status.SUCCEEDED:
        if state.result is None and state.result_expires_at is not None:
            raise ResultExpired(handle.id, state.result_expires_at)
        print_json(document.get("result", document.get("result_base64")))
    else:
        told = f": {state.error.type}: {state.error.message}" if state.error else ""
        note(f"task {handle.id!r} is {state.status} since {json_form.iso(state.finished_at)}{told}")
    return 0 if state.status is Status.SUCCEEDED else 1


def _many(app: App, source: IO[bytes], defaults: Defaults, *, skip_bad: bool, as_json: bool) -> int:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = progress_console()
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    with rewindable(source) as file, bar as progress:
        checking = progress.add_task("checking", total=None)
        good, bad = check_lines(app, file, defaults, lambda: progress.advance(checking))
        if bad and not skip_bad:
            more = f" (and {_counted(len(bad) - 1, 'more bad line')})" if len(bad) > 1 else ""
            raise InvalidInput(
                f"{_named(source)}, line {bad[0].line}: {bad[0].error}{more}; nothing was sent, "
                "--skip-bad sends the other lines"
            )
        progress.update(checking, total=good + len(bad))
        sending = progress.add_task("sending", total=good)
        calls = read_calls(app, file, defaults, {one.line for one in bad})
        ids: list[str] = []
        try:
            while chunk := list(islice(calls, _CHUNK)):
                _tell(app.enqueue_many(chunk), ids, as_json=as_json)
                progress.advance(sending, len(chunk))
        except EnqueueError as error:
            _tell([error.handles[place] for place in sorted(error.handles)], ids, as_json=as_json)
            raise
        finally:
            _summarise(ids, bad, as_json=as_json)
    return 0


def _tell(handles: list[Handle[Any]], ids: list[str], *, as_json: bool) -> None:
    ids += [handle.id for handle in handles]
    if not as_json and handles:
        click.echo("\n".join(handle.id for handle in handles))


def _summarise(ids: list[str], bad: list[BadLine], *, as_json: bool) -> None:
    if as_json:
        skipped = [one._asdict() for one in bad]
        print_json({"accepted": len(ids), "skipped": skipped, "ids": ids})
        return
    for one in bad:
        note(f"skipped line {one.line}: {one.error}")
    skipped_too = f", {_counted(len(bad), 'line')} skipped" if bad else ""
    note(f"{_counted(len(ids), 'task')} accepted{skipped_too}")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _named(source: IO[bytes]) -> str:
    name = getattr(source, "name", "")
    return "stdin" if name in ("", "<stdin>", 0) else str(name)
