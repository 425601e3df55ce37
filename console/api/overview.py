"""`/overview`: totals, rates and times, from the store's minutes and what Kafka says of queues."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from taskmill.console.api.access import caller_of
from taskmill.console.api.asked import OverviewOf
from taskmill.console.api.models import moment
from taskmill.console.api.operations import Minute, Overview, QueueOverview
from taskmill.console.api.problems import Refused
from taskmill.console.api.queues import QueueRoutes
from taskmill.console.api.routes import answer
from taskmill.console.api.services import Services
from taskmill.console.queues import QueueView
from taskmill.console.store.rows import BOUNDS_MS, MinuteRow
from taskmill.schemas.states import Status, is_terminal

_MINUTE_MS = 60_000


class Glance:
    """All at a glance."""

    def __init__(self, services: Services, queues: QueueRoutes) -> None:
        self._services = services
        self._queues = queues

    async def overview(self, request: Request, asked: Annotated[OverviewOf, Query()]) -> Response:
        """Show totals by status, each queue, and what finished by minute."""
        caller, reads = caller_of(request), self._services.reads
        as_of = await reads.as_of()
        fresh = await reads.freshness()
        until = as_of // _MINUTE_MS * _MINUTE_MS + _MINUTE_MS
        since = until - asked.minutes * _MINUTE_MS
        counts = await reads.ask(reads.store.counts)
        rows = await reads.ask(reads.store.minutes, since, until)
        rows = [row for row in rows if caller.sees(row.queue)]
        totals: Counter[str] = Counter({str(status): 0 for status in Status})
        names = set()
        for one in counts:
            if caller.sees(one.queue):
                totals[str(one.status)] += one.number
                names.add(one.queue)
        live: dict[str, QueueView] = {}
        # Without Kafka, it shows what the store knows.
        with suppress(Refused):
            live = {one.queue: one for one in await self._queues.views(caller)}
        names |= live.keys() | {row.queue for row in rows}
        by_queue = defaultdict(list)
        for row in rows:
            by_queue[row.queue].append(row)
        seconds = (as_of - since) / 1000
        return answer(
            Overview(
                totals=dict(totals),
                queues=[
                    _queue(name, by_queue[name], live.get(name), seconds) for name in sorted(names)
                ],
                series=_series(rows, since, until),
                as_of=moment(as_of),
                lag=fresh.lag,
            )
        )


def _queue(
    name: str, rows: Sequence[MinuteRow], live: QueueView | None, seconds: float
) -> QueueOverview:
    ended = [row for row in rows if is_terminal(row.outcome)]
    finished = sum(row.number for row in ended)
    well = sum(row.number for row in ended if row.outcome is Status.SUCCEEDED)
    dead = sum(row.number for row in ended if row.outcome is Status.DEAD)
    runs, waits = [row.run_buckets for row in rows], [row.wait_buckets for row in rows]
    return QueueOverview(
        queue=name,
        lag=None if live is None else live.depth.lag.records,
        oldest_age_ms=None if live is None else live.depth.oldest_age_ms,
        paused=None if live is None else live.paused,
        finished=finished,
        failed=dead,
        rate=finished / max(seconds, 1.0),
        success=well / finished if finished else None,
        run_p50=quantile(runs, 0.5),
        run_p95=quantile(runs, 0.95),
        wait_p50=quantile(waits, 0.5),
        wait_p95=quantile(waits, 0.95),
    )


def quantile(rows: Iterable[Sequence[int]], share: float) -> float | None:
    """The time, in seconds, that this share of the counted was within: between the ends of its
    bucket in proportion. None where nothing was counted."""
    totals = [sum(column) for column in zip(*rows, strict=True)]
    rank = sum(totals) * share
    if not rank:
        return None
    below, lower = 0, 0
    for count, upper in zip(totals, BOUNDS_MS, strict=False):
        if below + count >= rank and count:
            return float(lower + (upper - lower) * (rank - below) / count) / 1000
        below, lower = below + count, upper
    return BOUNDS_MS[-1] / 1000


def _series(rows: Iterable[MinuteRow], since: int, until: int) -> list[Minute]:
    outcomes: dict[int, Counter[str]] = {at: Counter() for at in range(since, until, _MINUTE_MS)}
    for row in rows:
        if row.minute in outcomes:
            outcomes[row.minute][str(row.outcome)] += row.number
    return [Minute(at=moment(at), outcomes=dict(counts)) for at, counts in outcomes.items()]
