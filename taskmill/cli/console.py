"""`taskmill console`: the status store, the HTTP API and the dashboard, until told to stop."""

from __future__ import annotations

import importlib
import signal
from dataclasses import dataclass
from types import FrameType

import click

from taskmill.cli.output import log_by, log_format_option, note
from taskmill.cli.target import app_option, load_app
from taskmill.runtime.config import load_settings
from taskmill.runtime.errors import ConfigError

#: What the extra brings, by the names that are imported.
_PARTS = ("fastapi", "uvicorn", "sqlalchemy", "alembic")


@dataclass(frozen=True)
class Missing:
    """The extra is not there: which module is missing first."""

    module: str

    def told(self, what: str) -> str:
        """In one line; `what`: what needs it."""
        return f"{what} needs {self.module}: pip install 'taskmill[console]'"


def missing_extra() -> Missing | None:
    """What of the extra `console` is not installed; None: it is."""
    for name in _PARTS:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            return Missing(error.name or name)
    return None


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


@click.command()
@app_option(help="Take this App's settings.")
@click.option("--host", metavar="ADDRESS", help="Listen on it; 0.0.0.0: all. Default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="0: any free one. Default: 8420.")
@log_format_option
def console(target: str | None, host: str | None, port: int | None, log_format: str | None) -> int:
    """Keep the status store up to date, and serve the HTTP API and the dashboard.

    Who asks needs a token (`taskmill tokens create`). SIGTERM or Ctrl-C drains; a second one stops
    at once. Several consoles need PostgreSQL (TASKMILL_STORE_URL).
    """
    # While it starts, which takes a second: nothing is to be drained yet.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    missing = missing_extra()
    if missing is not None:
        raise ConfigError(missing.told("the console"))
    from taskmill.console.serve import Console

    given = {"console_host": host, "console_port": port}
    said = {name: value for name, value in given.items() if value is not None}
    if target is None:
        settings = load_settings(**said)
    else:
        settings = load_app(target).settings.model_copy(update=said)
    if log_by(settings, log_format) == "json":
        return Console(settings).run()  # its log says where it is
    return Console(settings).run(lambda url: note(f"console at {url}"))
