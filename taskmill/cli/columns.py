"""Tables that leave out what there is no room for, the least telling first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len

from taskmill.cli.output import shown

if TYPE_CHECKING:
    from rich.table import Table

#: Between columns: a space of each, and one of the rule's.
_GAP, _RULED_GAP = 2, 3
#: A column that may be cut keeps so much, or is left out.
_LEAST = 12

#: Colours of states, for those who see them; the word says the same.
STYLES = {
    "succeeded": "green",
    "dead": "red",
    "retrying": "yellow",
    "running": "cyan",
    "paused": "yellow",
    "cancelled": "bright_black",
    "expired": "bright_black",
}


class Column(NamedTuple):
    """`rank`: the highest is left out first, 0 never; `is_cut`: ends in … where it is too long."""

    title: str
    rank: int = 0
    is_right: bool = False
    is_cut: bool = False


def fitted(
    columns: Sequence[Column], rows: Sequence[Sequence[object]], width: int, *, is_ruled: bool
) -> Table:
    """A table of at most `width` columns of text; a cell that is still too long is folded."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [[shown(value) for value in row] for row in rows]
    widths = [
        max([cell_len(column.title), *(cell_len(row[n]) for row in cells)])
        for n, column in enumerate(columns)
    ]
    gap = _RULED_GAP if is_ruled else _GAP
    kept = _chosen(columns, widths, width, gap)
    room = width - gap * (len(kept) - 1) - sum(widths[n] for n in kept if not columns[n].is_cut)
    table = Table(box=box.SIMPLE_HEAD if is_ruled else None, pad_edge=False, show_edge=False)
    for n in kept:
        column = columns[n]
        table.add_column(
            column.title,
            justify="right" if column.is_right else "left",
            overflow="ellipsis" if column.is_cut else "fold",
            no_wrap=column.is_cut,
            max_width=max(1, min(widths[n], room)) if column.is_cut else None,
        )
        room -= widths[n] if column.is_cut else 0
    for row in cells:
        # Text, not str: what people name their tasks is no markup.
        table.add_row(*(Text(row[n], style=STYLES.get(row[n], "")) for n in kept))
    return table


def _chosen(columns: Sequence[Column], widths: Sequence[int], width: int, gap: int) -> list[int]:
    kept = list(range(len(columns)))
    while True:
        least = [min(widths[n], _LEAST) if columns[n].is_cut else widths[n] for n in kept]
        if sum(least) + gap * (len(kept) - 1) <= width:
            return kept
        last = max(kept, key=lambda n: columns[n].rank)
        if columns[last].rank == 0:
            return kept
        kept.remove(last)


def age(seconds: float | None) -> str | None:
    """A time in short: 250ms, 12s, 3m, 5h, 9d."""
    if seconds is None:
        return None
    if 0 < seconds < 1:
        return f"{max(seconds * 1000, 1):.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    for limit, size, unit in ((60, 1, "s"), (3600, 60, "m"), (86_400, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds / size)}{unit}"
    return f"{int(seconds / 86_400)}d"


def share(part: float | None) -> str | None:
    """A share in percent: 100% only where it is all of it."""
    if part is None:
        return None
    return "100%" if part == 1 else f"{min(part * 100, 99.9):.1f}%"
