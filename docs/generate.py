"""Writes docs/reference/*.md from the code. A test holds that they are current.

Run it from the clone: `.venv/bin/python docs/generate.py`.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

import taskmill
from taskmill.cli.main import COMMANDS, cli
from taskmill.runtime import errors
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.topic_table import (
    CO_PARTITIONED,
    OF_PEOPLE,
    Kind,
    TopicSpec,
    people_spec,
    retry_specs,
    schedule_specs,
    topic_specs,
)

FOLDER = Path(__file__).resolve().parent / "reference"
_NOTE = "<!-- Written by docs/generate.py. Change the code it is made from, not this page. -->\n"

#: What each kind of topic is keyed by, and holds.
HOLDS: dict[Kind, tuple[str, str]] = {
    Kind.TASKS: ("ID", "tasks"),
    Kind.STATE: ("ID", "the idempotency table, and the feed of what becomes of tasks"),
    Kind.RESULTS: ("ID", "results and errors too large for a state"),
    Kind.DLQ: ("the record's own", "dead letters: the original bytes, and why"),
    Kind.RETRY: ("ID", "tasks that wait for their next attempt; a topic a tier"),
    Kind.REPLAYED: ("ID", "which letters and tasks were replayed, and as which generation"),
    Kind.DELAYED: ("time / ID / generation / seq", "tasks that wait for an exact time"),
    Kind.CONTROL: ("ID", "what is asked of tasks: to be cancelled, to have another time"),
    Kind.SCHEDULES: ("schedule's ID", "schedules"),
    Kind.SCHEDULE_STATE: ("schedule's ID", "how far each has come"),
    Kind.SETTINGS: ("name", "pauses of queues"),
    Kind.TOKENS: ("token's ID", "who may use the console; hashes only"),
}


def cell(text: object) -> str:
    """`text` inside a table's cell."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(heads: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell(part) for part in line)} |" for line in lines)


# ---- the command line ------------------------------------------------------------------------


def commands(
    name: str, command: click.Command, parent: click.Context | None
) -> Iterator[tuple[click.Context, click.Command]]:
    """A command and all below it, each with its context."""
    context = click.Context(command, info_name=name, parent=parent)
    yield context, command
    if isinstance(command, click.Group):
        names = COMMANDS if command is cli else command.commands
        for below in sorted(names):
            found = command.get_command(context, below)
            if found is not None and not found.hidden:
                yield from commands(below, found, context)


def command_line() -> str:
    parts = [
        "# The command line\n",
        "From each command's own `--help`. Exit codes: [errors](errors.md#exit-codes).\n",
    ]
    for context, command in commands("taskmill", cli, None):
        level = "##" if context.parent is None or context.parent.parent is None else "###"
        parts += [f"{level} {context.command_path}\n", _paragraphs(command.help or "")]
        usage = " ".join(command.collect_usage_pieces(context))
        parts.append(f"```text\n{context.command_path} {usage}\n```\n")
        records = [
            record
            for parameter in command.get_params(context)
            if (record := parameter.get_help_record(context)) and record[0] != "--help"
        ]
        if records:
            rows = ((f"`{option}`", _escaped(told)) for option, told in records)
            parts.append(table(("option", ""), rows) + "\n")
    return "\n".join(parts)


def _paragraphs(text: str) -> str:
    return _escaped(inspect.cleandoc(text).replace("\b\n", "")).strip() + "\n"


def _escaped(text: str) -> str:
    """Markdown's own characters as themselves, where they are no code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([<>*])", r"\\\1", p) for p in parts)


# ---- settings --------------------------------------------------------------------------------


def settings_page() -> str:
    rows = (
        (f"`TASKMILL_{name.upper()}`", _kind(field.annotation), _default(name, field), _told(field))
        for name, field in Settings.model_fields.items()
    )
    return "\n".join(
        (
            "# Settings\n",
            "`TASKMILL_…` in the environment, over `taskmill.toml` in the working directory, over",
            "these defaults. In the file a setting is named in small letters, without `TASKMILL_`.",
            "`taskmill config` shows what is in effect, where it comes from, and what is misspelt.",
            "Passwords and keys are masked wherever settings are shown.\n",
            table(("variable", "type", "default", ""), rows) + "\n",
        )
    )


def _kind(annotation: Any) -> str:
    if isinstance(annotation, type) and not getattr(annotation, "__args__", ()):
        return f"`{annotation.__name__}`"
    text = re.sub(r"\b(typing|pathlib|annotated_types)\.", "", str(annotation))
    text = re.sub(r"Annotated\[([^,\]]+),.*?\]( \||$)", r"\1\2", text)
    text = text.removesuffix(" | None").removeprefix("Optional[")
    return f"`{text}`"


def _default(name: str, field: Any) -> str:
    if name == "state_dir":
        return "`~/.local/state/taskmill`"
    value = field.default_factory() if field.default_factory else field.default
    if value is None or value == {} or value == "":
        return ""
    return f"`{','.join(value) if isinstance(value, tuple) else value}`"


def _told(field: Any) -> str:
    bounds = [
        f"{sign} {bound:,}"
        for part in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if (bound := getattr(part, name, None)) is not None
    ]
    told = _escaped(field.description or "")
    return f"{told} ({', '.join(bounds)})" if bounds else told


# ---- Python ----------------------------------------------------------------------------------


def python_page() -> str:
    exceptions, things = [], []
    for name in taskmill.__all__:
        found = getattr(taskmill, name)
        is_error = isinstance(found, type) and issubclass(found, BaseException)
        (exceptions if is_error else things).append(name)
    parts = [
        "# Python\n",
        "What `from taskmill import …` gives. Nothing else is promised to stay as it is, but",
        "for `taskmill.testing` ([testing](../testing.md)) and `taskmill.console.client`",
        "([client](../client.md)).\n",
    ]
    for name in things:
        found = getattr(taskmill, name)
        if isinstance(found, type):
            parts += list(_class(name, found))
    parts += ["## TaskFunction\n", "What `@app.task` makes of a function.\n"]
    from taskmill.producer.function import TaskFunction
    from taskmill.producer.options import CallOptions

    parts += list(_members(TaskFunction))
    parts += ["## Options of a call\n", _paragraphs(inspect.getdoc(CallOptions) or "")]
    rows = ((f"`{k}`", f"`{v}`") for k, v in inspect.get_annotations(CallOptions).items())
    parts.append(table(("option", "type"), rows) + "\n")
    listed = ", ".join(f"`{name}`" for name in exceptions)
    parts += ["## Errors\n", f"{listed}: [errors](errors.md).\n"]
    return "\n".join(parts)


def _class(name: str, found: type) -> Iterator[str]:
    yield f"## {name}\n"
    yield _paragraphs(_own_doc(found))
    fields = getattr(found, "_fields", None)
    if found is Settings:
        yield "Its fields: [settings](settings.md).\n"
    elif hasattr(found, "__members__"):
        yield ", ".join(f"`{value.value}`" for value in found) + "\n"  # type: ignore[attr-defined]
    elif fields:
        hints = inspect.get_annotations(found)
        yield table(("field", "type"), ((f"`{f}`", f"`{hints.get(f, '')}`") for f in fields)) + "\n"
    else:
        yield from _members(found)


def _members(found: type) -> Iterator[str]:
    if "__init__" in vars(found):
        yield from _member(found.__name__, found.__init__, "__init__")  # type: ignore[misc]
    for name, value in inspect.getmembers(found):
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            yield f"**`{name}`**\n\n{_paragraphs(inspect.getdoc(value) or '')}"
        elif callable(value):
            yield from _member(name, value, name)


def _member(shown: str, value: Callable[..., Any], name: str) -> Iterator[str]:
    try:
        given = inspect.signature(value)
    except (TypeError, ValueError):
        return
    kept = [
        one.replace(annotation=_Bare(one.annotation))
        for one in given.parameters.values()
        if one.name not in ("self", "cls")
    ]
    if kept and kept[0].kind is kept[0].POSITIONAL_ONLY:
        kept = [one.replace(kind=one.POSITIONAL_OR_KEYWORD) for one in kept]
    returns = given.empty if name == "__init__" else _Bare(given.return_annotation)
    text = str(given.replace(parameters=kept, return_annotation=returns))
    # What has no literal: a clock.
    signature = re.sub(r"<taskmill\S* object at [^>]*>", "…", text)
    doc = inspect.getdoc(value) or ""
    if name == "__init__" and value.__doc__ is None:
        doc = ""
    yield f"**`{shown}{signature}`**\n\n{_paragraphs(doc)}"


class _Bare:
    """An annotation as it is written."""

    def __init__(self, annotation: object) -> None:
        self._text = annotation if isinstance(annotation, str) else repr(annotation)

    def __repr__(self) -> str:
        return self._text.strip('"')


def _own_doc(found: type) -> str:
    """A NamedTuple's made-up docstring is none."""
    doc = inspect.getdoc(found) or ""
    return "" if doc.startswith(f"{found.__name__}(") else doc


# ---- errors ----------------------------------------------------------------------------------


def errors_page() -> str:
    tree = (errors.__doc__ or "").split("\n\n", 2)
    rows = (
        (f"`{found.__name__}`", found.exit_code, _escaped(_first(found)))
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, TaskmillError)
    )
    public = ", ".join(
        f"`{n}`"
        for n in taskmill.__all__
        if isinstance(getattr(taskmill, n), type)
        and issubclass(getattr(taskmill, n), BaseException)
    )
    return "\n".join(
        (
            "# Errors and exit codes\n",
            _escaped(tree[0]) + "\n",
            f"```text\n{tree[1]}\n```\n",
            _escaped(tree[2].strip()) + "\n",
            f"From `taskmill`: {public}. The others: `taskmill.runtime.errors`.\n",
            "## Exit codes\n",
            "| code | of a command |\n| --- | --- |",
            "| 0 | done |",
            "| 1 | the work failed: a dead task, drift in topics, a replay that ended early |",
            "| 2 | wrong use or bad input; nothing was stored |",
            "| 3 | the broker or the store is unreachable |",
            "| 130 | ended by Ctrl-C |\n",
            "`error.exit_code` is what a command ends with that is ended by it:\n",
            table(("error", "exit code", ""), rows) + "\n",
        )
    )


def _first(found: type) -> str:
    return (inspect.getdoc(found) or "").split("\n\n")[0]


# ---- topics ----------------------------------------------------------------------------------


def topics_page() -> str:
    settings = Settings.model_construct()
    specs: list[TopicSpec] = []
    of_queue = [k for k in HOLDS if k not in (Kind.RETRY, Kind.SCHEDULES, Kind.SCHEDULE_STATE)]
    specs += topic_specs(settings, "QUEUE", [k for k in of_queue if k not in OF_PEOPLE])
    specs += retry_specs(settings, "QUEUE", settings.retry_tiers[:1])
    specs += schedule_specs(settings)
    specs += [people_spec(settings, kind) for kind in OF_PEOPLE]
    missing = set(Kind) - {spec.kind for spec in specs}
    assert not missing, missing
    parts = [
        "# Topics\n",
        "With the prefix `taskmill` and default settings. They are made when first needed;",
        "`taskmill topics create` makes a queue's beforehand, `taskmill topics check` tells where",
        "they differ. With three brokers: three replicas and `min.insync.replicas=2`.",
        "What is in their records: [the wire](../wire.md).\n",
        table(("topic", "key", "holds", "partitions"), (_topic(spec) for spec in specs)) + "\n",
        "The counts of "
        + ", ".join(f"`{kind}`" for kind in sorted(CO_PARTITIONED))
        + " are equal (`TASKMILL_PARTITIONS`) and change by `taskmill topics migrate` only.",
        "`retry` has a topic for each of `TASKMILL_RETRY_TIERS`.\n",
    ]
    for spec in specs:
        rows = ((f"`{name}`", f"`{value}`") for name, value in sorted(spec.configs.items()))
        parts += [f"## {spec.kind}\n", table(("setting", "value"), rows) + "\n"]
    return "\n".join(parts)


def _topic(spec: TopicSpec) -> tuple[object, ...]:
    key, holds = HOLDS[spec.kind]
    return f"`{spec.name}`", key, holds, spec.partitions


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": command_line,
    "errors.md": errors_page,
    "python.md": python_page,
    "settings.md": settings_page,
    "topics.md": topics_page,
}


def pages() -> dict[str, str]:
    """The text of each page of docs/reference, by its name."""
    # Help is wrapped to a terminal's width.
    os.environ["COLUMNS"] = "100"
    return {name: f"{_NOTE}\n{make().rstrip()}\n" for name, make in PAGES.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
