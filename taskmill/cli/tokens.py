"""`taskmill tokens`: who may use the console: create, list, revoke."""

from __future__ import annotations

from typing import Any

import click

from taskmill.cli.columns import Column
from taskmill.cli.output import json_option, note, print_fitted, print_json
from taskmill.console.tokens import DEFAULT_EXPIRY_MS, Scope, Token, TokenTable
from taskmill.consumer.turn import myself
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import load_settings
from taskmill.runtime.duration import parse_duration
from taskmill.runtime.errors import ConfigError
from taskmill.schemas.json_form import iso

_NEVER = "never"
_LONGEST_S = 3650 * 86_400
_COLUMNS = (
    Column("id"),
    Column("name", 2),
    Column("scopes"),
    Column("queues", 3),
    Column("created", 4),
    Column("by", 5),
    Column("expires", 1),
    Column("status"),
)


@click.group()
def tokens() -> None:
    """Say who may use the console.

    A token has scopes: `enqueue`; `read`; `operate` (cancel, replay, pause; and read); `admin`
    (all). Kafka holds its hash only.
    """


@tokens.command()
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([one.value for one in Scope]),
    help="What it is good for; several times: all of these.",
)
@click.option("-q", "--queue", "queues", multiple=True, help="For these queues only. Default: all.")
@click.option(
    "--expires",
    metavar="30d",
    default=f"{DEFAULT_EXPIRY_MS // 86_400_000}d",
    show_default=True,
    help="Refused after this; `never`: good until it is revoked.",
)
@click.option("--name", default="", metavar="WHO", help="Whose it is, or what for.")
@json_option
def create(
    scopes: tuple[str, ...], queues: tuple[str, ...], expires: str, name: str, as_json: bool
) -> None:
    """Make a token, and print it: this once, it is stored nowhere."""
    expires_ms = None if expires == _NEVER else _expiry_ms(expires)
    table = TokenTable(load_settings())
    token, secret = table.create(
        scopes, queues=queues or None, expires_ms=expires_ms, name=name, by=myself()
    )
    if as_json:
        print_json({**_document(token), "token": secret})
    else:
        click.echo(secret)
    until = "until it is revoked: it never expires" if expires_ms is None else None
    note(
        f"token {token.id}, {', '.join(sorted(scopes))}, {_queues(token)}, good "
        f"{until or f'until {iso(token.expires_at)}'}. It is not shown again."
    )


def _expiry_ms(text: str) -> int:
    try:
        seconds = parse_duration(text)
    except ConfigError as error:
        raise ConfigError(f"--expires: {error}, or `{_NEVER}`") from None
    if not 1 <= seconds <= _LONGEST_S:
        raise ConfigError(f"--expires {text!r}: allowed are 1s to 3650d, or `{_NEVER}`")
    return round(seconds * 1000)


@tokens.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List tokens, the newest first; none is shown itself."""
    documents = [_document(token) for token in TokenTable(load_settings()).all()]
    if as_json:
        print_json({"tokens": documents})
        return
    if documents:
        print_fitted(
            _COLUMNS,
            [
                (
                    one["id"],
                    one["name"] or None,
                    ", ".join(one["scopes"]),
                    "all" if one["queues"] is None else ", ".join(one["queues"]),
                    one["created_at"],
                    one["created_by"] or None,
                    one["expires_at"] or _NEVER,
                    one["status"],
                )
                for one in documents
            ],
        )
    note(f"{len(documents)} token{'' if len(documents) == 1 else 's'}")


@tokens.command()
@click.argument("id", metavar="ID")
@json_option
def revoke(id: str, as_json: bool) -> None:
    """Have every console refuse a token, within seconds."""
    was_good = TokenTable(load_settings()).revoke(id)
    if as_json:
        print_json({"id": id, "revoked": was_good})
    note(f"token {id} {'is revoked' if was_good else 'was revoked before'}")


def _document(token: Token) -> dict[str, Any]:
    """A token as JSON: its fields, and its `status`."""
    if token.revoked_at is not None:
        status = "revoked"
    else:
        status = "expired" if token.has_expired(SYSTEM_CLOCK.now_ms()) else "good"
    return {
        "id": token.id,
        "name": token.name,
        "scopes": sorted(token.scopes),
        "queues": None if token.queues is None else sorted(token.queues),
        "created_at": iso(token.created_at),
        "created_by": token.created_by,
        "expires_at": iso(token.expires_at),
        "revoked_at": iso(token.revoked_at),
        "status": status,
    }


def _queues(token: Token) -> str:
    if token.queues is None:
        return "all queues"
    return f"queue{'s' if len(token.queues) > 1 else ''} {', '.join(sorted(token.queues))}"
