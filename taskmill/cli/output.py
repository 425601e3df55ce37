"""How commands print: data to stdout as a table or one JSON document, all else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from taskmill.runtime.logs import FORMATS, LogSpec, log_to_stderr

if TYPE_CHECKING:
    from rich.console import Console

    from taskmill.cli.columns import Column
    from taskmill.runtime.config import Settings

F = TypeVar("F", bound=Callable[..., Any])

#: A pipe has no width: rows are never cut there. Any terminal is narrower.
_PIPE_COLUMNS = 100_000


def json_option(command: F) -> F:
    """Adds `--json`, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def queues_option(command: F) -> F:
    """Adds `-q/--queue`, many times over, passed as `queues` (default: `default`)."""
    return click.option(
        "-q", "--queue", "queues", multiple=True, default=("default",), show_default="default"
    )(command)


def print_json(document: object) -> None:
    """One JSON document to stdout. Paths become strings; other strangers are an error."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=_plain))


def print_json_line(document: object) -> None:
    """One line of a stream of JSON objects, to stdout, at once."""
    click.echo(json.dumps(document, ensure_ascii=False, default=_plain))
    sys.stdout.flush()


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table to stdout: it fits a terminal; into a pipe it has no colours and no cut rows."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = _console(stderr=False)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Text, not str: what people name their tasks is no markup.
        table.add_row(*(Text(shown(value)) for value in row))
    console.print(table)


def print_fitted(columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> None:
    """A table to stdout that leaves out columns which a terminal has no room for; a pipe has."""
    from taskmill.cli.columns import fitted

    console = _console(stderr=False)
    console.print(fitted(columns, rows, console.width, is_ruled=console.is_terminal))


def note(message: str) -> None:
    """A word to the person at the terminal: one line on stderr."""
    click.echo(message, err=True)


def progress_console() -> Console:
    """The rich console for progress bars: stderr, so that stdout stays data."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty()
    # The stream as it is now: a test or a caller may have put another in its place.
    return Console(file=stream, width=_PIPE_COLUMNS if piped else None, highlight=False)


def shown(value: object) -> str:
    """`value` for a person's eyes: None as -, control characters escaped (no escape sequences)."""
    if value is None:
        return "-"
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def log_format_option(command: F) -> F:
    """Adds `--log-format`, passed as `log_format`; None: as the settings say."""
    return click.option(
        "--log-format", type=click.Choice(FORMATS), help="Default: the setting log_format, text."
    )(command)


def log_by(settings: Settings, log_format: str | None, who: str = "") -> str:
    """Send the log to stderr, as `settings` say, or as `log_format` does: for commands that run on
    and on. Each line says `who`, where several processes write to one stderr. Returns the format.
    """
    spec = LogSpec(log_format or settings.log_format, settings.log_level, who)
    log_to_stderr(spec)
    return spec.format
