"""`/overview`: totals, rates and times, from the store's minutes and what Kafka says of queues."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from taskmill.console.api.access import Caller, caller_of
from taskmill.console.api.arrivals import Arrivals
from taskmill.console.api.asked import OverviewOf
from taskmill.console.api.models import moment
from taskmill.console.api.operations import (
    Measured,
    Minute,
    Overview,
    QueueOverview,
    TaskOverview,
)
from taskmill.console.api.problems import Refused
from taskmill.console.api.queues import QueueRoutes
from taskmill.console.api.routes import answer
from taskmill.console.api.services import Services
from taskmill.console.queues import QueueView
from taskmill.console.store.rows import BOUNDS_MS, MinuteRow
from taskmill.schemas.states import Status, is_terminal

_MINUTE_MS = 60_000
#: What came is counted task by task: of so many minutes at the most.
_ARRIVALS_MINUTES = 180
#: Names of tasks that are told apart.
_MOST_TASKS = 100


class Glance:
    """All at a glance."""

    def __init__(self, services: Services, queues: QueueRoutes) -> None:
        self._services = services
        self._queues = queues
        self._arrivals = Arrivals(services.reads)

    async def overview(self, request: Request, asked: Annotated[OverviewOf, Query()]) -> Response:
        """Show totals by status, what ended by queue, by task and by minute."""
        caller, reads = caller_of(request), self._services.reads
        as_of = await reads.as_of()
        fresh = await reads.freshness()
        until = as_of // _MINUTE_MS * _MINUTE_MS + _MINUTE_MS
        since = until - asked.minutes * _MINUTE_MS
        counts = await reads.ask(reads.store.counts)
        rows = await reads.ask(reads.store.minutes, since, until)
        rows = [row for row in rows if caller.sees(row.queue)]
        came = None
        if asked.minutes <= _ARRIVALS_MINUTES:
            came = await self._arrivals.by_minute(since, until, caller.sees)
        totals: Counter[str] = Counter({str(status): 0 for status in Status})
        names = set()
        for one in counts:
            if caller.sees(one.queue):
                totals[str(one.status)] += one.number
                names.add(one.queue)
        live = await self._live(caller)
        names |= live.keys() | {row.queue for row in rows}
        by_queue, by_task, by_minute = _grouped(rows)
        seconds = (as_of - since) / 1000
        return answer(
            Overview(
                totals=dict(totals),
                all=Measured(**measured(rows, seconds)),
                queues=[
                    _queue(name, by_queue[name], live.get(name), seconds) for name in sorted(names)
                ],
                tasks=_tasks(by_task, seconds),
                series=[
                    _minute(at, by_minute[at], None if came is None else came[at])
                    for at in range(since, until, _MINUTE_MS)
                ],
                as_of=moment(as_of),
                lag=fresh.lag,
            )
        )

    async def _live(self, caller: Caller) -> dict[str, QueueView]:
        # Without Kafka, it shows what the store knows.
        with suppress(Refused):
            return {one.queue: one for one in await self._queues.views(caller)}
        return {}


Rows = Sequence[MinuteRow]
Grouped = tuple[Mapping[str, Rows], Mapping[tuple[str, str], Rows], Mapping[int, Rows]]


def _grouped(rows: Rows) -> Grouped:
    """By queue, by queue and name, by minute."""
    by_queue: dict[str, list[MinuteRow]] = defaultdict(list)
    by_task: dict[tuple[str, str], list[MinuteRow]] = defaultdict(list)
    by_minute: dict[int, list[MinuteRow]] = defaultdict(list)
    for row in rows:
        by_queue[row.queue].append(row)
        by_task[row.queue, row.name].append(row)
        by_minute[row.minute].append(row)
    return by_queue, by_task, by_minute


def measured(rows: Rows, seconds: float) -> dict[str, Any]:
    """The fields of Measured."""
    by_outcome: Counter[Status] = Counter()
    for row in rows:
        by_outcome[row.outcome] += row.number
    finished = sum(number for status, number in by_outcome.items() if is_terminal(status))
    return {
        "finished": finished,
        "failed": by_outcome[Status.DEAD],
        "retried": by_outcome[Status.RETRYING],
        "rate": finished / max(seconds, 1.0),
        "success": by_outcome[Status.SUCCEEDED] / finished if finished else None,
        **_times(rows),
    }


def _times(rows: Rows) -> dict[str, float | None]:
    runs = [row.run_buckets for row in rows], sum(row.run_ms for row in rows)
    waits = [row.wait_buckets for row in rows], sum(row.wait_ms for row in rows)
    return {
        "run_p50": quantile(*runs, 0.5),
        "run_p95": quantile(*runs, 0.95),
        "wait_p50": quantile(*waits, 0.5),
        "wait_p95": quantile(*waits, 0.95),
    }


def _queue(name: str, rows: Rows, live: QueueView | None, seconds: float) -> QueueOverview:
    return QueueOverview(
        queue=name,
        lag=None if live is None else live.depth.lag.records,
        oldest_age_ms=None if live is None else live.depth.oldest_age_ms,
        paused=None if live is None else live.paused,
        **measured(rows, seconds),
    )


def _tasks(by_task: Mapping[tuple[str, str], Rows], seconds: float) -> list[TaskOverview]:
    found = [
        TaskOverview(queue=queue, name=name, **measured(rows, seconds))
        for (queue, name), rows in by_task.items()
    ]
    found.sort(key=lambda one: (-one.finished - one.retried, one.name, one.queue))
    return found[:_MOST_TASKS]


def _minute(at: int, rows: Rows, came: int | None) -> Minute:
    outcomes: Counter[str] = Counter()
    for row in rows:
        outcomes[str(row.outcome)] += row.number
    return Minute(at=moment(at), enqueued=came, outcomes=dict(outcomes), **_times(rows))


def quantile(rows: Iterable[Sequence[int]], total_ms: int, share: float) -> float | None:
    """The time, in seconds, that this share of the counted was within. None where nothing was
    counted.

    Within its bucket it is estimated. In proportion would be wrong by the bucket's width: where all
    waited for a minute, p95 would be near five. The sum of the times tells more: times are taken to
    lie in their buckets along a power of their rank, the one that gives this sum.
    """
    totals = [sum(column) for column in zip(*rows, strict=True)]
    rank = sum(totals) * share
    if not rank:
        return None
    spans = list(zip(totals, (0, *BOUNDS_MS), (*BOUNDS_MS, BOUNDS_MS[-1]), strict=True))
    least = sum(count * lower for count, lower, _ in spans)
    room = sum(count * (upper - lower) for count, lower, upper in spans)
    mean = min(max((total_ms - least) / room, 0.0), 1.0) if room else 0.0
    below = 0
    for count, lower, upper in spans:
        if below + count >= rank and count:
            part = (rank - below) / count
            inside = part ** (1 / mean - 1) if mean else 0.0
            return float(lower + (upper - lower) * inside) / 1000
        below += count
    return BOUNDS_MS[-1] / 1000
