"""`dlq replay --edit`: the arguments of one letter, as JSON, in the person's editor."""

from __future__ import annotations

import json
import sys
from contextlib import closing

import click

from taskmill.app import App
from taskmill.cli.output import note
from taskmill.cli.target import load_app
from taskmill.cli.task_lines import make_call, parse_object
from taskmill.consumer.letters import Letter
from taskmill.runtime.errors import ConfigError, DecodeError, InvalidInput
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import JSON, Task


def edit_letter(letter: Letter, codec: Codec, target: str | None) -> bytes:
    """The value of `letter` with the arguments that its editor left: the same task otherwise.

    They are checked against the task's signature where `target` names its App. Raises ConfigError
    for a letter that cannot be edited, InvalidInput for arguments that do not fit, and click's
    Abort where nothing was changed.
    """
    try:
        task = codec.decode_task(letter.value)
    except DecodeError as error:
        raise ConfigError(f"letter {letter.place} cannot be edited: {error}") from None
    if task.content_type != JSON:
        raise ConfigError(
            f"letter {letter.place} cannot be edited: its arguments are {task.content_type}"
        )
    text = _pretty(task.payload)
    while True:
        edited = click.edit(text, extension=".json", require_save=False)
        if edited is None or edited.strip() == text.strip():
            note("nothing was changed, nothing is replayed")
            raise click.Abort
        try:
            return codec.encode_task(task._replace(payload=_payload(edited, task, target)))
        except InvalidInput as error:
            if not sys.stdin.isatty():
                raise
            note(str(error))
            click.confirm("Edit again?", default=True, abort=True, err=True)
            text = edited


def _pretty(payload: bytes) -> str:
    try:
        return json.dumps(json.loads(payload), indent=2, ensure_ascii=False) + "\n"
    except (ValueError, RecursionError):
        # Perhaps the very reason why it died.
        return payload.decode("utf-8", "replace")


def _payload(text: str, task: Task, target: str | None) -> bytes:
    args = parse_object(text, "what was edited")
    if target is None:
        note("not checked against the task's signature: -A MODULE:APP says where it is declared")
    with closing(App("cli") if target is None else load_app(target)) as app:
        return make_call(app, task.name, args, {}, target is not None).payload
