"""`taskmill config`: the effective settings, where each came from, secrets masked."""

from __future__ import annotations

from typing import Any

import click

from taskmill.app import App
from taskmill.cli.output import json_option, note, print_json, print_table
from taskmill.cli.target import app_option, load_app
from taskmill.runtime.config import Settings, load_settings, setting_origins, unknown_variables
from taskmill.runtime.kafka import bootstrap_servers
from taskmill.runtime.local_broker import discover


@click.command()
@app_option(help="Show this App's own settings, and which of its tasks have no timeout.")
@json_option
def config(target: str | None, as_json: bool) -> None:
    """Show the effective settings and where each came from; secrets are masked."""
    app = load_app(target) if target else None
    settings = load_settings() if app is None else app.settings
    origins = setting_origins(settings)
    values = settings.masked()
    values["bootstrap_servers"] = bootstrap_servers(settings)
    origins["bootstrap_servers"] = _bootstrap_origin(settings, origins["bootstrap_servers"])
    for name in unknown_variables():
        note(f"{name} is set, and is no setting of this version")
    if as_json:
        rows = {name: {"value": values[name], "from": origins[name]} for name in values}
        document: dict[str, Any] = {"settings": rows}
        if app is not None:
            document["tasks_without_timeout"] = _without_timeout(app)
        print_json(document)
        return
    kafka = values.pop("kafka")
    lines = [(name, value, origins[name]) for name, value in values.items()]
    lines += [(f"kafka.{name}", value, origins["kafka"]) for name, value in sorted(kafka.items())]
    print_table(("setting", "value", "from"), lines)
    if app is not None and (unbounded := _without_timeout(app)):
        note(f"tasks without a timeout, which may run for ever: {', '.join(unbounded)}")


def _without_timeout(app: App) -> list[str]:
    return sorted(d.name for d in app.tasks if d.limits.timeout_ms is None)


def _bootstrap_origin(settings: Settings, origin: str) -> str:
    if settings.bootstrap_servers:
        return origin
    if discover(settings.state_dir):
        return "the local broker that runs here"
    return "default (no local broker runs)"
