"""`taskmill broker`: the local Apache Kafka, up, down, and how it stands."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from taskmill.cli.output import json_option, note, print_json, print_table
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import Settings, load_settings
from taskmill.runtime.errors import Unreachable
from taskmill.runtime.local_broker import BrokerStatus, LocalBroker, answers
from taskmill.runtime.topics import TopicAdmin

#: A broker of this machine answers in milliseconds; one given may be far away.
_STATUS_LIMIT_S = 5.0
_NOT_RUNNING = 3


@click.group()
def broker() -> None:
    """Run a local Apache Kafka: one node or three, its data kept between runs.

    It runs in Docker where an engine answers, else from KAFKA_HOME, else from jars that Maven
    fetches once. Commands find it by themselves, by the state directory.
    """


@broker.command()
@click.option("--nodes", type=click.Choice(["1", "3"]), help="Nodes; 1 where nothing is there yet.")
@json_option
def up(nodes: str | None, as_json: bool) -> None:
    """Start the broker, wait until it answers, print its bootstrap address."""
    settings = load_settings()
    if settings.bootstrap_servers:
        note(f"bootstrap_servers is set to {settings.bootstrap_servers}: nothing is started")
        TopicAdmin(settings, _STATUS_LIMIT_S).metadata()  # Unreachable, where it is
        _print_status(_given(settings), as_json)
        return
    began = SYSTEM_CLOCK.monotonic()
    local = LocalBroker(settings.state_dir, nodes=int(nodes) if nodes else None, say=note)
    status = local.start()
    if status.started_now:
        note(f"started in {SYSTEM_CLOCK.monotonic() - began:.1f} s; data in {status.home}")
    else:
        note("already running")
    _print_status({**_document(status), "answers": True}, as_json)


@broker.command()
@json_option
def down(as_json: bool) -> None:
    """Stop the broker and wait for its end. Its data stays."""
    settings = load_settings()
    stopped = LocalBroker(settings.state_dir, say=note).stop()
    if as_json:
        print_json({"stopped": stopped})
    else:
        note("stopped" if stopped else "no local broker runs")


@broker.command()
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Tell whether the broker runs and answers; exit code 3 where it does not."""
    settings = load_settings()
    if settings.bootstrap_servers:
        document = _given(settings)
    else:
        told = LocalBroker(settings.state_dir).status()
        reply = told.bootstrap is not None and told.running
        reply = reply and answers(str(told.bootstrap), told.nodes, _STATUS_LIMIT_S)
        document = {**_document(told), "answers": reply}
    if as_json:
        print_json(document)
    else:
        print_table(("what", "value"), [(k, _cell(v)) for k, v in document.items()])
    if document.get("stale"):
        note("it was started, and has ended without `taskmill broker down`")
    if not document["answers"]:
        ctx.exit(_NOT_RUNNING)


def _given(settings: Settings) -> dict[str, Any]:
    """The status of a broker that is not ours: where it is, and whether it answers."""
    try:
        TopicAdmin(settings, _STATUS_LIMIT_S).metadata()
        replies = True
    except Unreachable:
        replies = False
    return {
        "running": replies,
        "bootstrap": settings.bootstrap_servers,
        "via": "bootstrap_servers",
        "answers": replies,
    }


def _document(status: BrokerStatus) -> dict[str, Any]:
    document = asdict(status)
    del document["started_now"]  # said of the call, not of the broker
    return document


def _print_status(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        click.echo(document["bootstrap"])


def _cell(value: object) -> object:
    if isinstance(value, tuple):
        return ", ".join(str(part) for part in value) or None
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value
