"""Tasks as JSON, one a line: `{"args": {…}, "name": …, "id": …, "queue": …, "timeout": …}`."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

from taskmill.app import App
from taskmill.producer.definition import TaskCall
from taskmill.producer.encoding import TaskEncoder
from taskmill.producer.middleware import Hooks
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.errors import ConfigError, InvalidArguments, InvalidInput

#: What a line may say of how its task is to be handled, beside its name: options of `App.call`.
_OPTIONS = ("id", "queue", "delay", "at", "timeout", "expires", "deadline")
_NUMBERS = ("max_attempts",)
_FIELDS = ("args", "name", *_OPTIONS, *_NUMBERS)


class Defaults(NamedTuple):
    """What a line that does not say otherwise takes; `declared`: the App knows all tasks."""

    name: str | None
    options: Mapping[str, Any]
    declared: bool


class BadLine(NamedTuple):
    """A line that is no task, by its number from 1."""

    line: int
    error: str


def parse_object(text: str | bytes, what: str) -> dict[str, Any]:
    """The JSON object in `text`; `what` names it in the InvalidArguments otherwise."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidArguments(f"{what} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArguments(f"{what} is no JSON object: expected {{…}}")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def make_call(
    app: App, name: str, args: Mapping[str, Any], options: Mapping[str, Any], declared: bool
) -> TaskCall[Any]:
    """A call with arguments that came as JSON, small enough to be sent; `options` are `App.call`'s.
    Raises InvalidInput, ConfigError."""
    if declared:
        # As JSON, not as Python values: a date is a string, a tuple is a list.
        args = app.tasks[name].load(json.dumps(args).encode())
    call = app.call(name, args, **options, declared=declared)
    # Too large is told now, not half way; the hooks see a task when it is sent.
    TaskEncoder(app.codec, app.settings.max_task_bytes, Hooks, SYSTEM_CLOCK).encode(call)
    return call


def parse_line(app: App, text: bytes, defaults: Defaults) -> TaskCall[Any]:
    """The call on one line. Raises InvalidInput or ConfigError."""
    fields = parse_object(text, "the line")
    unknown = fields.keys() - set(_FIELDS)
    if unknown:
        raise InvalidArguments(f"unknown field {min(unknown)!r}; allowed: {', '.join(_FIELDS)}")
    for key in ("name", *_OPTIONS):
        if fields.get(key) is not None and not isinstance(fields[key], str):
            raise InvalidArguments(f"field {key!r} is no string")
    for key in _NUMBERS:
        number = fields.get(key)
        if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
            raise InvalidArguments(f"field {key!r} is no whole number")
    if not isinstance(fields.get("args"), dict):
        raise InvalidArguments("field 'args' is missing or no object")
    name = defaults.name if fields.get("name") is None else fields["name"]
    if name is None:
        raise InvalidArguments("field 'name' is missing, and no NAME was given")
    said = {key: fields[key] for key in (*_OPTIONS, *_NUMBERS) if fields.get(key) is not None}
    options = {**defaults.options, **said}
    return make_call(app, name, fields["args"], options, defaults.declared)


def check_lines(
    app: App, file: IO[bytes], defaults: Defaults, advance: Callable[[], None]
) -> tuple[int, list[BadLine]]:
    """Look at every line and send nothing: how many are tasks, and the others."""
    good, bad = 0, []
    for number, text in _lines(file):
        try:
            parse_line(app, text, defaults)
            good += 1
        except (InvalidInput, ConfigError) as error:
            bad.append(BadLine(number, str(error)))
        advance()
    return good, bad


def read_calls(
    app: App, file: IO[bytes], defaults: Defaults, skip: set[int]
) -> Iterator[TaskCall[Any]]:
    """The calls of all lines but those numbered in `skip`."""
    for number, text in _lines(file):
        if number not in skip:
            yield parse_line(app, text, defaults)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbered lines from the start; blank ones are none."""
    file.seek(0)
    for number, text in enumerate(file, start=1):
        if text.strip():
            yield number, text


@contextmanager
def rewindable(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """`file`, or a copy of it on disk where it can be read only once."""
    if file.seekable():
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        yield copy
