"""`taskmill queues`: what waits in each queue; have its workers begin nothing, and go on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import click

from taskmill.cli.columns import Column
from taskmill.cli.output import json_option, note, print_fitted, print_json
from taskmill.console.queues import QueueView, QueueWatch, as_document
from taskmill.consumer.admin import Admin
from taskmill.consumer.pauses import set_paused
from taskmill.consumer.tally import Waiting
from taskmill.consumer.turn import myself
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import load_settings
from taskmill.runtime.topics import Topics

#: Rates are of so long.
_SAMPLE_S = 1.0

_COLUMNS = (
    Column("queue"),
    Column("depth", 3, is_right=True),
    Column("lag", is_right=True),
    Column("oldest", 1, is_right=True),
    Column("in/s", 6, is_right=True),
    Column("out/s", 5, is_right=True),
    Column("letters", 2, is_right=True),
    Column("workers", 4, is_right=True),
    Column("status"),
)


@click.group()
def queues() -> None:
    """Look at queues; pause one, and let it go on."""


@queues.command("list", short_help="Show what waits in each queue.")
@click.argument("names", metavar="[QUEUE]…", nargs=-1)
@json_option
def list_(names: Sequence[str], as_json: bool) -> None:
    """Show what waits in each queue, since when, how fast it moves, and who works on it.

    Takes a second, of which the rates are. A number with ≤ may count markers of transactions too.
    """
    settings = load_settings()
    for name in names:
        Admin(settings).queue_partitions(Topics(settings.prefix, name))
    with closing(QueueWatch(settings)) as watch:
        if watch.look(letters=False):
            SYSTEM_CLOCK.sleep(_SAMPLE_S)
        views = [view for view in watch.look() if not names or view.queue in names]
    if as_json:
        print_json({"queues": [as_document(view) for view in views]})
        return
    if views:
        print_fitted(_COLUMNS, [_row(view) for view in views])
    note(f"{len(views)} queue{'' if len(views) == 1 else 's'}")


def _row(view: QueueView) -> tuple[object, ...]:
    depth = view.depth
    return (
        view.queue,
        _count(depth.depth),
        _count(depth.lag),
        None if depth.oldest_age_ms is None else _age(depth.oldest_age_ms),
        _rate(view.rate_in),
        _rate(view.rate_out),
        None if depth.letters is None else _count(depth.letters),
        len(view.members),
        "paused" if view.paused else "on" if view.members else "no worker",
    )


def _count(waiting: Waiting) -> str:
    return f"{'' if waiting.is_exact else '≤ '}{waiting.records:,}"


def _rate(rate: float | None) -> str | None:
    return None if rate is None else f"{rate:,.0f}"


def _age(ms: int) -> str:
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)):
        if ms >= 2 * length:
            return f"{ms // length} {unit}"
    return f"{ms / 1000:.0f} s"


@queues.command(short_help="Have no record of a queue begun.")
@click.argument("names", metavar="[QUEUE]…", nargs=-1, default=("default",))
@json_option
def pause(names: Sequence[str], as_json: bool) -> None:
    """Have no record of a queue begun (`default`), by any worker, until `resume`.

    What runs ends and commits. Workers that start later heed it too. Enqueueing goes on.
    """
    _set(names, True, as_json)


@queues.command(short_help="Let a paused queue go on.")
@click.argument("names", metavar="[QUEUE]…", nargs=-1, default=("default",))
@json_option
def resume(names: Sequence[str], as_json: bool) -> None:
    """Let a paused queue (`default`) go on."""
    _set(names, False, as_json)


def _set(names: Sequence[str], paused: bool, as_json: bool) -> None:
    changed = set_paused(load_settings(), names, paused, myself())
    if as_json:
        print_json({"paused" if paused else "resumed": changed})
    for name in dict.fromkeys(names):
        word = "is paused" if paused else "goes on"
        before = "" if name in changed else ": it was before" if paused else ": it was not paused"
        note(f"queue {name!r} {word}{before}")
