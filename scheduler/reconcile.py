"""Brings the schedules on Kafka up to date with those that an App declares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from taskmill.scheduler.board import Board, Posted
from taskmill.scheduler.declared import Declared
from taskmill.scheduler.schedule import check, declared_by, source_of
from taskmill.schemas.models import Schedule

#: What tells when a schedule is due: where it changes, times before the change do not count.
_TIMES = ("cron", "every_ms", "tz", "start_at")
#: What is not the declaration's.
_KEPT = ("paused", "since", "created_at", "updated_at")


class Change(NamedTuple):
    """One line of a report: what became of a schedule: `added`, `changed`, `removed`, `kept` (as it
    was) or `refused`; and why, or what of it changed."""

    id: str
    what: str
    why: str = ""


def merged(new: Schedule, before: Schedule | None) -> Schedule:
    """`new` in place of `before`: a pause stays, and so do the times that count, if they are the
    same ones."""
    if before is None:
        return new
    is_other = any(getattr(new, name) != getattr(before, name) for name in _TIMES)
    since = before.updated_at if before.since is None else before.since
    return new._replace(
        paused=before.paused,
        created_at=before.created_at,
        since=new.since if is_other else since,
    )


def differences(new: Schedule, before: Schedule) -> list[str]:
    """The fields in which a declaration differs from what lies there."""
    return [
        name
        for name in Schedule._fields
        if name not in _KEPT and getattr(new, name) != getattr(before, name)
    ]


def compare(
    app: str, declared: Iterable[Declared], there: Iterable[Posted], now_ms: int
) -> tuple[list[Change], list[Schedule], list[str]]:
    """What the App named `app` changes: a report, what is to be written, what is to be removed."""
    source = source_of(app)
    posted = {one.id: one for one in there}
    report: list[Change] = []
    write: list[Schedule] = []
    wanted: set[str] = set()
    for one in declared:
        wanted.add(one.id)
        new = one.form.record(one.id, one.payload, source, now_ms)
        at = posted.get(one.id)
        old = at.schedule if at is not None else None
        if at is None:
            report.append(Change(one.id, "added"))
        elif old is None or (old.source != source and at.broken is None):
            report.append(Change(one.id, "refused", _whose(at)))
            continue
        elif names := differences(new, old):
            report.append(Change(one.id, "changed", ", ".join(names)))
        else:
            report.append(Change(one.id, "kept"))
            continue
        write.append(merged(new, old))
    remove = [
        one.id
        for one in posted.values()
        if one.schedule is not None and one.schedule.source == source and one.id not in wanted
    ]
    report += [Change(id, "removed", "no longer declared") for id in remove]
    return report, write, remove


def reconcile(board: Board, app: str, declared: Iterable[Declared], now_ms: int) -> list[Change]:
    """Bring what lies on Kafka up to date with what the App declares; those that were made by hand,
    or by another App, are left. Raises what Board does."""
    report, write, remove = compare(app, declared, board.all(), now_ms)
    for schedule in write:
        check(schedule)
    if write:
        board.write(write)
    if remove:
        board.remove(remove)
    return report


def _whose(posted: Posted) -> str:
    if posted.schedule is None:
        return f"what lies there cannot be read ({posted.broken}); `schedules rm` removes it"
    other = declared_by(posted.schedule)
    if other is None:
        return "one of this ID was made by hand; `taskmill schedules rm` makes room for this one"
    return f"App {other!r} declares one of this ID"
