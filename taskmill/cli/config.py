"""`taskmill config`: the effective settings, where each came from, secrets masked."""

from __future__ import annotations

import click

from taskmill.cli.output import json_option, note, print_json, print_table
from taskmill.runtime.config import Settings, load_settings, setting_origins, unknown_variables
from taskmill.runtime.kafka import bootstrap_servers
from taskmill.runtime.local_broker import discover


@click.command()
@json_option
def config(as_json: bool) -> None:
    """Show the effective settings and where each came from; secrets are masked."""
    settings = load_settings()
    origins = setting_origins(settings)
    values = settings.masked()
    values["bootstrap_servers"] = bootstrap_servers(settings)
    origins["bootstrap_servers"] = _bootstrap_origin(settings, origins["bootstrap_servers"])
    for name in unknown_variables():
        note(f"{name} is set, and is no setting of this version")
    if as_json:
        rows = {name: {"value": values[name], "from": origins[name]} for name in values}
        print_json({"settings": rows})
        return
    kafka = values.pop("kafka")
    lines = [(name, value, origins[name]) for name, value in values.items()]
    lines += [(f"kafka.{name}", value, origins["kafka"]) for name, value in sorted(kafka.items())]
    print_table(("setting", "value", "from"), lines)


def _bootstrap_origin(settings: Settings, origin: str) -> str:
    if settings.bootstrap_servers:
        return origin
    if discover(settings.state_dir):
        return "the local broker that runs here"
    return "default (no local broker runs)"
