"""What the demos show: lines on how far they are, a bar, a table, dead letters, differences."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence

from recount import Found
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

#: So many dead letters, and differences, are shown one by one.
_LETTERS, _DIFFERENCES = 5, 20

out, err = Console(), Console(stderr=True)


def say(what: str, text: str) -> None:
    """A line on how far it is."""
    err.print(Text.assemble((f"{what:<9} ", "bold"), text), soft_wrap=True)


def say_files(paths: Sequence[str]) -> None:
    """What the work is."""
    version = platform.python_version()
    say("demo", f"{len(paths):,} files of Python {version}'s library, each enqueued twice")


def bar() -> Progress:
    """Outcomes, of how many."""
    columns = (
        TextColumn("outcomes committed"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=err)


def counts(enqueued: int, found: Found, fired: int = 0) -> dict[str, int | str]:
    """Rows: what became of what was enqueued. `fired`: other tasks on the topic."""
    return {
        "tasks enqueued": enqueued,
        "run to a committed outcome": found.outcomes,
        "duplicates dropped": found.passed - found.outcomes - fired,
        "dead (they do not parse)": sum(map(len, found.letters.values())),
    }


def percentiles(latencies_ms: Sequence[int]) -> dict[str, int | str]:
    """Rows: how long tasks took; `latencies_ms` is sorted."""
    p50, p99 = (latencies_ms[len(latencies_ms) * n // 100] / 1000 for n in (50, 99))
    return {
        "enqueued → committed, p50": f"{p50:.2f} s",
        "enqueued → committed, p99": f"{p99:.2f} s",
    }


def show_table(rows: Mapping[str, int | str]) -> None:
    """What it comes to."""
    out.print()
    table = Table("", "", show_header=False, box=None, padding=(0, 2))
    for name, value in rows.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else value)
    out.print(table, "")
    sys.stdout.flush()


def show_dead(found: Found) -> None:
    """Some of the dead letters, and why."""
    dead = [letter for letters in found.letters.values() for letter in letters]
    if not dead:
        return
    for letter in dead[:_LETTERS]:
        told = letter.headers
        error = f"{told['taskmill-error-type']}: {told['taskmill-error-message']}"
        out.print(Text(f"  dead: {letter.id}\n        {error}"), soft_wrap=True)
    out.print(f"  … and {len(dead) - _LETTERS} more\n" if len(dead) > _LETTERS else "")
    sys.stdout.flush()


def told_differences(name: str, wrong: Sequence[str]) -> bool:
    """Whether anything is `wrong`, which is then told."""
    if wrong:
        err.print(f"{name}: the recount DIFFERS in {len(wrong)} places:")
        for line in wrong[:_DIFFERENCES]:
            err.print(f"  {line}", markup=False, highlight=False)
    return bool(wrong)
