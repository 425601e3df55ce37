"""`taskmill top`: queues, rates, lag and failures, live, in a terminal or as JSON lines."""

from __future__ import annotations

import os
import sys
from functools import partial

import click
from rich.console import Console, RenderableType

from taskmill.cli.asking import console_client
from taskmill.cli.duration import Duration
from taskmill.cli.output import print_json_line
from taskmill.cli.top_data import Look, Looker, look
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.errors import ConfigError

#: A look that takes longer is told of, and tried again.
_ANSWER_S = 10.0
_LEAST_S = 0.1
#: Ages on the screen move on without news.
_TICK_S = 1.0


@click.command()
@click.option(
    "--interval", type=Duration(), default="2s", show_default=True, metavar="2s",
    help="How often the console is asked.",
)  # fmt: skip
@click.option(
    "--json", "as_json", is_flag=True, help="Print an object a line, each time it was asked."
)
@click.option(
    "--count", type=click.IntRange(1), metavar="N", help="With --json: end after so many lines."
)
def top(interval: float, as_json: bool, count: int | None) -> int:
    """Show queues, rates, lag, the oldest task, what runs and what fails, live.

    It asks the console of TASKMILL_API_URL. Keys: q quits, space asks at once.
    """
    if count is not None and not as_json:
        raise click.UsageError("--count goes with --json")
    if interval < _LEAST_S:
        raise click.UsageError(f"--interval is at least {_LEAST_S * 1000:g}ms")
    if not as_json and (not sys.stdout.isatty() or os.get_terminal_size().columns == 0):
        raise ConfigError("top shows itself in a terminal; elsewhere --json prints lines")
    with console_client("`taskmill top`", _ANSWER_S) as client:
        ask = partial(look, client, SYSTEM_CLOCK)
        first = ask()
        if as_json:
            return _lines(ask, first, interval, count)
        return _live(ask, first, interval, client.address)


def _lines(ask: partial[Look], first: Look, interval: float, count: int | None) -> int:
    number, found = 1, first
    while True:
        print_json_line(found.as_json())
        if number == count:
            return 0
        SYSTEM_CLOCK.sleep(interval)
        found, number = ask(), number + 1


def _live(ask: partial[Look], first: Look, interval: float, address: str) -> int:
    from taskmill.cli.terminal import Screen
    from taskmill.cli.top_view import screen

    console = Console(highlight=False)
    if console.is_dumb_terminal:
        raise ConfigError("top needs a terminal that can do more (TERM); --json prints lines")

    def draw() -> RenderableType:
        size = os.get_terminal_size(sys.stdout.fileno())
        return screen(looker.newest, address, SYSTEM_CLOCK.now_ms(), size, console)

    page = Screen(console, draw)
    looker = Looker(ask, first, interval, page.wake)
    try:
        with page.open():
            looker.start()
            while looker.error is None:
                page.show()
                keys = page.wait(_TICK_S)
                if "q" in keys or "Q" in keys or "\x04" in keys:
                    return 0
                if " " in keys:
                    looker.hurry()
    except KeyboardInterrupt:
        return 0  # the other way to leave
    finally:
        looker.stop()
    raise looker.error
