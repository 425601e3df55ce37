"""What is known of a worker's queues at a moment: gauges, and whether it is ready."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from taskmill.consumer.engine import Engine
from taskmill.consumer.part import View
from taskmill.consumer.poll import Place
from taskmill.consumer.record import Lease
from taskmill.consumer.timeouts import Timekeeper
from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import StoreDamaged
from taskmill.runtime.meter import Meter


class Gauges:
    """Brings the gauges of `engines` up to date when asked to. For one thread."""

    def __init__(
        self, meter: Meter, engines: Mapping[str, Engine], timekeeper: Timekeeper, clock: Clock
    ) -> None:
        self._meter = meter
        self._engines = engines
        self._timekeeper = timekeeper
        self._clock = clock
        #: Partitions whose lag was told, and since when others are being restored.
        self._told: set[tuple[str, str]] = set()
        self._restoring: dict[Lease, float] = {}

    def sample(self) -> None:
        """Look at each queue."""
        told: set[tuple[str, str]] = set()
        restoring: dict[Lease, float] = {}
        for queue, engine in list(self._engines.items()):
            views, places = self._queue(queue, engine), engine.poller.places
            topic = engine.topics.tasks
            for view in views:
                p = view.lease.partition
                if (behind := lag(view, places.get(p))) is not None:
                    told.add((topic, str(p)))
                    self._meter.set("taskmill_consumer_lag", topic, str(p), to=behind)
            restoring.update(self._restores(queue, views))
        for gone in self._told - told:
            self._meter.set("taskmill_consumer_lag", *gone, to=math.nan)
        self._told, self._restoring = told, restoring
        for labels, count in list(self._timekeeper.stuck.items()):
            self._meter.set("taskmill_stuck_handlers_total", *labels, to=count)

    def _queue(self, queue: str, engine: Engine) -> list[View]:
        core, entries = engine.core, math.nan
        with core.changed:
            views, in_flight = core.protocol.views(), core.protocol.in_flight
            try:
                entries = sum(table.store.count() for table in core.tables.values())
            except StoreDamaged:
                pass  # whoever works with it sees to it
        age_s = oldest_age_s(views, self._clock.now_ms())
        for name, value in (
            ("taskmill_tasks_in_flight", in_flight),
            ("taskmill_partitions_owned", len(views)),
            ("taskmill_idempotency_entries", entries),
            ("taskmill_oldest_task_age_seconds", age_s),
        ):
            self._meter.set(name, queue, to=value)
        return views

    def _restores(self, queue: str, views: Sequence[View]) -> dict[Lease, float]:
        """Since when each partition is being restored, now that the longest of them is told."""
        now = self._clock.monotonic()
        since = {v.lease: self._restoring.get(v.lease, now) for v in views if not v.is_running}
        longest = now - min(since.values(), default=now)
        self._meter.set("taskmill_restore_under_way_seconds", queue, to=longest)
        return since

    def unready(self, queues: Sequence[str]) -> str | None:
        """Why not all of `queues` are served, one line; None: they are, or this one stands by."""
        for queue in queues:
            engine = self._engines.get(queue)
            if engine is None:
                return f"queue {queue}: its topics have not been found yet"
            if engine.failure is not None:
                return f"queue {queue}: {type(engine.failure).__name__} ended it"
            if not engine.poller.has_joined:
                return f"queue {queue}: its consumer group has not been joined yet"
            with engine.core.changed:
                views = engine.core.protocol.views()
            if left := sum(not view.is_running for view in views):
                return f"queue {queue}: {left} of {len(views)} partitions are not restored yet"
        return None


def lag(view: View, place: Place | None) -> int | None:
    """Records of a partition that are not committed: those that were taken, and those behind them.
    None: not known yet.

    The consumer's position passes what is no record, so that nothing is left of it when idle.
    """
    if place is None or not view.is_running:
        return None
    return view.open + max(0, place.end - max(place.position, view.next_offset))


def oldest_age_s(views: Sequence[View], now_ms: int) -> float:
    """How long the oldest task of all partitions has been there; 0: there is none."""
    stamps = [view.oldest for view in views if view.oldest is not None]
    return max(0, now_ms - min(stamps)) / 1000 if stamps else 0.0
