"""The options that say which dead letters are meant, the same for every `taskmill dlq …`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import click

from taskmill.cli.duration import Moment, MomentType
from taskmill.consumer.letters import Filter
from taskmill.consumer.record import Reason

F = TypeVar("F", bound=Callable[..., Any])

_OFFSETS = re.compile(r"(\d{1,18})(?:(-)(\d{1,18})?)?", re.ASCII)
_NO_END = 1 << 62


class Chosen(NamedTuple):
    """A filter, and what was given of its options, as JSON has it."""

    filter: Filter
    asked: dict[str, Any]


def filter_options(command: F) -> F:
    """Adds the options; their values, by name, are for `chosen`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen(given: dict[str, Any]) -> Chosen:
    """What the options say. Raises click's BadParameter."""
    since: Moment | None = given["since"]
    until: Moment | None = given["until"]
    if since is not None and until is not None and since.ms >= until.ms:
        raise click.BadParameter(
            f"{since.text} is not before --until {until.text}", param_hint="--since"
        )
    asked: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Moment):
            asked[name] = value.text
        elif name != "queue" and not (value is None or value is False or value == ()):
            asked[name] = sorted(value) if isinstance(value, tuple) else value
    return Chosen(
        Filter(
            names=given["name"],
            reasons=given["reason"],
            error=_pattern(given["error"]),
            fingerprints=given["fingerprint"],
            since=None if since is None else since.ms,
            until=None if until is None else until.ms,
            ids=given["id"],
            partition=given["partition"],
            offsets=_offsets(given["offsets"]),
            replayed_too=given["all"],
        ),
        asked,
    )


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise click.BadParameter(
            f"{text!r} is no regular expression: {error}", param_hint="--error"
        ) from None


def _offsets(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = _OFFSETS.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text[:40]!r}: expected A-B, A- or A", param_hint="--offsets")
    first = int(match[1])
    last = int(match[3]) if match[3] else (_NO_END if match[2] else first)
    if last < first:
        raise click.BadParameter(f"{text}: the last is before the first", param_hint="--offsets")
    return first, last


_OPTIONS = (
    click.option("-q", "--queue", default="default", show_default=True, help="Of this queue."),
    click.option("--name", multiple=True, metavar="NAME", help="Of this task. Repeatable."),
    click.option(
        "--reason",
        multiple=True,
        type=click.Choice([str(one) for one in Reason]),
        metavar="REASON",
        help=f"{', '.join(Reason)}. Repeatable.",
    ),
    click.option("--error", metavar="REGEX", help="Found in `Type: message` of the last failure."),
    click.option(
        "--fingerprint",
        multiple=True,
        metavar="HEX",
        help="Of this fingerprint, or one that begins so. Repeatable.",
    ),
    click.option(
        "--since", type=MomentType(), metavar="TIME", help="Not older: 1h, 2026-11-26T14:00 (UTC)."
    ),
    click.option("--until", type=MomentType(), metavar="TIME", help="Older than this."),
    click.option("--id", multiple=True, metavar="ID", help="Of the task of this ID. Repeatable."),
    click.option(
        "--partition", type=click.IntRange(0), metavar="P", help="Of this partition of the DLQ."
    ),
    click.option("--offsets", metavar="A-B", help="At these offsets, both included; A- and A too."),
    click.option("--all", is_flag=True, help="Letters that were replayed, too."),
)
