"""`taskmill dlq`: dead letters to look at, and the replays that there were."""

from __future__ import annotations

import heapq
from contextlib import closing
from typing import Any

import click

from taskmill.cli.columns import Column
from taskmill.cli.dlq_replay import replay
from taskmill.cli.letter_filter import chosen, filter_options
from taskmill.cli.letter_print import (
    counted,
    document,
    group_document,
    job_document,
    print_groups,
    print_letter,
    print_letters,
    summary,
)
from taskmill.cli.output import json_option, note, print_fitted, print_json
from taskmill.consumer.letter_stats import Stats
from taskmill.consumer.letters import Letter, Letters
from taskmill.consumer.replay import known_jobs
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.config import load_settings
from taskmill.runtime.errors import TaskmillError
from taskmill.schemas.codec import Codec

_HISTORY = (
    Column("replay"),
    Column("of", 5),
    Column("by", 6),
    Column("began", 2),
    Column("ended", 4),
    Column("asked", 7),
    Column("replayed", is_right=True),
    Column("left", 3, is_right=True),
    Column("status"),
)


@click.group()
def dlq() -> None:
    """Look at dead letters, and replay them.

    A letter holds the task's bytes as they were enqueued, and says in headers why it died. One that
    was replayed stays, and no longer counts: --all shows it too.
    """


dlq.add_command(replay)


@dlq.command("list")
@filter_options
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1), help="The newest so many."
)
@json_option
def list_(limit: int, as_json: bool, **given: Any) -> None:
    """List letters, the newest first."""
    wanted = chosen(given).filter
    matched = 0

    def age(letter: Letter) -> tuple[int, tuple[int, int]]:
        nonlocal matched
        matched += 1
        return letter.at, letter.place

    with Letters(load_settings(), given["queue"]) as letters:
        newest = heapq.nlargest(limit, letters.scan(wanted), key=age)
    if as_json:
        rows = [summary(letter) for letter in newest]
        print_json({"queue": given["queue"], "matched": matched, "letters": rows})
        return
    if newest:
        print_letters(newest)
    more = f" of {matched:,}; --limit N shows more" if matched > len(newest) else ""
    note(f"{counted(len(newest), 'letter')}{more}")


@dlq.command(short_help="Show letters whole.")
@click.argument("task_id", metavar="[ID]", required=False)
@filter_options
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1), help="So many.")
@json_option
def show(task_id: str | None, limit: int, as_json: bool, **given: Any) -> None:
    """Show letters whole: the error and its stack, the arguments, where they came from.

    ID is the task's; --partition and --offsets name a letter by its place, as `dlq list` does. Exit
    code 1 where there is none.
    """
    settings = load_settings()
    if task_id is not None:
        # Whoever asks for one by its name wants to see it.
        given = {**given, "id": (*given["id"], task_id), "all": True}
    wanted = chosen(given).filter
    found: list[Letter] = []
    matched = 0
    with Letters(settings, given["queue"]) as letters:
        for matched, letter in enumerate(letters.scan(wanted), 1):
            if matched <= limit:
                found.append(letter)
    if not found:
        raise TaskmillError(f"queue {given['queue']!r} has no such letter; `dlq list` lists them")
    with closing(Codec(settings.schema_registry_url)) as codec:
        if as_json:
            documents = [document(letter, codec) for letter in found]
            print_json({"queue": given["queue"], "matched": matched, "letters": documents})
        else:
            for letter in found:
                print_letter(letter, codec)
    if matched > limit:
        note(f"and {counted(matched - limit, 'letter')} more: --limit {matched} shows them")


@dlq.command(short_help="Count letters by reason, task and fingerprint.")
@filter_options
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1), help="Rows of each table."
)
@json_option
def stats(limit: int, as_json: bool, **given: Any) -> None:
    """Count letters by reason, task and fingerprint, and say when each was seen first and last."""
    wanted = chosen(given).filter
    with Letters(load_settings(), given["queue"]) as letters:
        found = Stats(letters.scan(wanted))
    if as_json:
        groups = {
            f"{kind}s": [group_document(group, kind) for group in found.groups(kind)]
            for kind in found.kinds
        }
        print_json({"queue": given["queue"], "letters": found.count, **groups})
        return
    for kind in found.kinds if found.count else ():
        print_groups(found, kind, limit)
        click.echo()
    note(f"{counted(found.count, 'letter')} in queue {given['queue']!r}")


@dlq.command(short_help="Show what was replayed.")
@click.option("-q", "--queue", default="default", show_default=True)
@json_option
def history(queue: str, as_json: bool) -> None:
    """Show what was replayed: who did it, when, what was asked for, what came of it."""
    settings = load_settings()
    with Letters(settings, queue) as letters:
        jobs = known_jobs(settings, letters, SYSTEM_CLOCK)
    documents = [job_document(job, job.replayed) for job in reversed(jobs)]
    if as_json:
        print_json({"queue": queue, "replays": documents})
        return
    if documents:
        print_fitted(
            _HISTORY,
            [
                (
                    one["id"],
                    one["what"],
                    one["by"] or one["who"],
                    one["began_at"],
                    one["ended_at"],
                    _options(one["asked"]),
                    f"{one['replayed']:,}",
                    f"{sum(one['left'].values()):,}",
                    one["status"] + (f": {one['why']}" if one["why"] else ""),
                )
                for one in documents
            ],
        )
    note(counted(len(documents), "replay"))


def _options(asked: dict[str, Any]) -> str:
    """What was asked, as options of its command."""
    words = []
    for name, value in asked.items():
        option = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            words.append(option if one is True else f"{option} {one}")
    return " ".join(words) or "-"
