"""How `taskmill top` looks: from one look at a console to as many lines as a terminal has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from taskmill.cli.columns import STYLES, Column, age, fitted, share
from taskmill.cli.output import shown
from taskmill.cli.top_data import FAILED_SINCE, MINUTES, Look, QueueLine

_QUEUES = (
    Column("queue", is_cut=True),
    Column("state", 3),
    Column("in/s", 4, is_right=True),
    Column("done/s", is_right=True),
    Column("ok", 6, is_right=True),
    Column("lag", is_right=True),
    Column("oldest", 1, is_right=True),
    Column("run p50", 11, is_right=True),
    Column("run p95", 8, is_right=True),
    Column("wait p50", 12, is_right=True),
    Column("wait p95", 9, is_right=True),
    Column("delayed", 10, is_right=True),
    Column("retrying", 5, is_right=True),
    Column("dead", 2, is_right=True),
    Column("workers", 4, is_right=True),
)
_FAILURES = (
    Column("failures", is_right=True),
    Column("queue", 2),
    Column("task", 1, is_cut=True),
    Column("last", 3, is_right=True),
    Column("error", is_cut=True),
)
#: States in the order in which they are told.
_TOLD = (
    "running", "queued", "waiting", "scheduled", "retrying", "succeeded", "dead", "cancelled",
    "expired",
)  # fmt: skip
#: A table's own lines above its rows, and the lines of the head and the foot.
_TITLE, _HEAD, _FOOT = 2, 3, 1


def view(look: Look, address: str, now_ms: int, width: int, height: int) -> RenderableType:
    """All of it, in `height` lines of `width` columns."""
    room = max(0, height - _HEAD - _FOOT)
    failures = look.failures[: max(0, min(len(look.failures), room // 3 - _TITLE))]
    below = len(failures) + _TITLE + 1 if failures else 0
    queues = look.queues[: max(1, room - below - _TITLE - 1)]
    parts: list[RenderableType] = [*_head(look, address, now_ms, width), Text()]
    parts.append(fitted(_QUEUES, [_queue(one) for one in queues], width, is_ruled=True))
    left = len(look.queues) - len(queues)
    if left:
        parts.append(Text(f"… and {left} more", style="bright_black"))
    if failures:
        parts.append(Text())
        rows = [_failure(one, now_ms) for one in failures]
        parts.append(fitted(_FAILURES, rows, width, is_ruled=True))
    return Group(*parts)


def foot(width: int) -> Text:
    """The last line: which keys there are, and of what time the numbers are."""
    words = f"q quit · space refresh · times of {MINUTES} min, failures of {FAILED_SINCE}"
    return Text(words[: max(0, width - 1)], style="bright_black", no_wrap=True)


def screen(
    look: Look, address: str, now_ms: int, size: tuple[int, int], console: Console
) -> RenderableType:
    """`view` with `foot` on the last line of a terminal of `size` (columns, lines)."""
    width, height = size
    options = console.options.update(width=width, height=None)
    lines = console.render_lines(view(look, address, now_ms, width, height), options, pad=False)
    lines = lines[: max(0, height - _FOOT)]
    text: list[Any] = [Text.assemble(*((s.text, s.style or "") for s in line)) for line in lines]
    text += [Text()] * (height - _FOOT - len(text))
    return Group(*(_whole(one) for one in text), foot(width))


def _whole(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "crop"
    return line


def _head(look: Look, address: str, now_ms: int, width: int) -> Sequence[Text]:
    behind_s = max(0.0, now_ms / 1000 - look.overview.as_of.timestamp())
    first = Text(no_wrap=True, overflow="ellipsis")
    first.append("taskmill", style="bold")
    first.append(f"  {shown(address)}  ")
    if look.trouble:
        told = f"no answer for {age((now_ms - look.at_ms) / 1000)}: {shown(look.trouble)}"
        first.append(told, style="bold red")
    else:
        lag = look.overview.lag
        first.append(f"as of {age(behind_s)} ago" + (f", {lag} records behind" if lag else ""))
    second = Text(no_wrap=True, overflow="ellipsis")
    for status in _TOLD:
        number = look.overview.totals.get(status, 0)
        if number or status in ("running", "queued", "succeeded", "dead"):
            second.append(f"{status} ", style="bright_black")
            second.append(f"{number:,}  ", style=STYLES.get(status, "") if number else "")
    for line in (first, second):
        line.truncate(width, overflow="ellipsis")
    return first, second


def _queue(one: QueueLine) -> tuple[object, ...]:
    counted, live = one.counted, one.live
    done = counted.rate if live is None or live.rate_out is None else live.rate_out
    return (
        counted.queue,
        "paused" if counted.paused else "",
        None if live is None or live.rate_in is None else f"{live.rate_in:,.1f}",
        f"{done:,.1f}",
        share(counted.success),
        None if counted.lag is None else _most(counted.lag, live is None or live.lag_is_exact),
        None if counted.oldest_age_ms is None else age(counted.oldest_age_ms / 1000),
        age(counted.run_p50),
        age(counted.run_p95),
        age(counted.wait_p50),
        age(counted.wait_p95),
        None if live is None else _most(live.delayed, live.delayed_is_exact),
        None if live is None else _most(live.retrying, live.retrying_is_exact),
        None if live is None else _most(live.letters, live.letters_is_exact),
        None if live is None else live.workers,
    )


def _most(number: int, is_exact: bool) -> str:
    """A number, or what it is at the most."""
    return f"{'' if is_exact else '≤'}{number:,}"


def _failure(one: Any, now_ms: int) -> tuple[object, ...]:
    error = one.error
    told = one.reason if error is None else f"{error.type}: {error.message}"
    last_s = max(0.0, now_ms / 1000 - one.last.timestamp())
    return f"{one.letters:,}", one.queue, one.name, f"{age(last_s)} ago", told
