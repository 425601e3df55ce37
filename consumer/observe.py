"""What a worker tells of itself: a log of what failed, and Prometheus metrics.

Both are middleware, counted per committed batch: a metric's call a task would cost more than the
task's own bookkeeping. Durations and waits are summed into fixed buckets by hand for that reason.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from taskmill.consumer.engine import Engine
from taskmill.consumer.record import Outcome
from taskmill.consumer.tiers import Tier, tier_of
from taskmill.consumer.timeouts import Timekeeper
from taskmill.producer.middleware import Middleware
from taskmill.schemas.states import Status

logger = logging.getLogger("taskmill.worker")

#: Seconds, from 1 ms to 1 h: tasks are that short and that long.
BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

Labels = tuple[str, str]

#: In place of a tier: waits that are longer than all of them, or that have an exact end.
DELAYED = "delayed"


class FailureLog(Middleware):
    """Logs each task that ended dead, once that is final: what, why, and where it went. Of those to
    be tried again one of each batch: there may be thousands a second."""

    def after_commit(self, outcomes: Sequence[Outcome]) -> None:
        retried = next((one for one in outcomes if one.retry_ms is not None), None)
        if retried is not None:
            _tell_retry(retried)
        for outcome in outcomes:
            if outcome.status is Status.DEAD and outcome.failure is not None:
                task, failure = outcome.record.task, outcome.failure
                logger.warning(
                    "dead letter (%s): task %s of %s: %s: %s%s",
                    failure.reason,
                    task.id if task is not None else outcome.record.mark_key[1:].decode(),
                    task.name if task is not None else "unknown name",
                    failure.error.type,
                    failure.error.message,
                    f"\n{failure.stack}" if failure.stack else "",
                )


def _tell_retry(outcome: Outcome) -> None:
    task, failure = outcome.record.task, outcome.failure
    assert task is not None, "only a task is tried again"
    assert failure is not None, "only what failed is tried again"
    logger.info(
        "attempt %d of task %s of %s failed (%s), again in %g s or more: %s: %s",
        task.attempt,
        task.id,
        task.name,
        failure.reason,
        (outcome.retry_ms or 0) / 1000,
        failure.error.type,
        failure.error.message,
    )


class _Durations:
    """A histogram: how many lie in each bucket, and their sum in seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        rows, so_far = [], 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self.counts, strict=True):
            so_far += count
            rows.append((bound, float(so_far)))
        return rows


class WorkerMetrics(Middleware, Collector):
    """The worker's metrics (names: the contract's). Register it with a Prometheus registry."""

    def __init__(self, version: str, tiers: Sequence[Tier] = ()) -> None:
        self._version = version
        self._tiers = tiers
        self._retries: Counter[tuple[str, str]] = Counter()
        self._engines: Mapping[str, Engine] = {}
        self._timekeeper: Timekeeper | None = None
        self._finished: Counter[tuple[str, str, str]] = Counter()
        self._dead: Counter[tuple[str, str]] = Counter()
        self._durations: dict[Labels, _Durations] = {}
        self._waits: dict[Labels, _Durations] = {}

    def watch(self, engines: Mapping[str, Engine], timekeeper: Timekeeper) -> None:
        """Report their own counts too."""
        self._engines = engines
        self._timekeeper = timekeeper

    def after_commit(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            record = outcome.record
            if outcome.status in (None, Status.SCHEDULED):
                continue
            task, queue = record.task, record.lease.queue
            name = task.name if task is not None else ""
            self._finished[queue, name, outcome.status.value] += 1
            if outcome.retry_ms is not None:
                is_exact = outcome.due_at is not None
                tier = None if is_exact else tier_of(self._tiers, outcome.retry_ms)
                self._retries[queue, DELAYED if tier is None else tier.name] += 1
            elif outcome.failure is not None:
                self._dead[queue, outcome.failure.reason.value] += 1
            if task is not None and outcome.started_at is not None:
                labels = (queue, name)
                self._of(self._durations, labels).add(outcome.duration)
                if task.attempt == 1:  # the others waited because they should
                    waited_ms = outcome.started_at - task.enqueued_at
                    self._of(self._waits, labels).add(max(0, waited_ms) / 1000)

    @staticmethod
    def _of(table: dict[Labels, _Durations], labels: Labels) -> _Durations:
        found = table.get(labels)
        if found is None:
            found = table[labels] = _Durations()
        return found

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily(
            "taskmill_worker", "This worker's version.", value={"version": self._version}
        )
        finished = CounterMetricFamily(
            "taskmill_tasks_finished",
            "Outcomes committed.",
            labels=["queue", "task", "outcome"],
        )
        for (queue, task, outcome), count in list(self._finished.items()):
            finished.add_metric([queue, task, outcome], count)
        yield finished
        dead = CounterMetricFamily(
            "taskmill_dead_letters", "Letters written to the DLQ.", labels=["queue", "reason"]
        )
        for (queue, reason), count in list(self._dead.items()):
            dead.add_metric([queue, reason], count)
        yield dead
        retries = CounterMetricFamily(
            "taskmill_retries", "Failed attempts put into a retry tier.", labels=["queue", "tier"]
        )
        for (queue, tier), count in list(self._retries.items()):
            retries.add_metric([queue, tier], count)
        yield retries
        yield self._histogram(
            "taskmill_task_duration_seconds", "How long handlers ran.", self._durations
        )
        yield self._histogram("taskmill_task_wait_seconds", "From enqueue to start.", self._waits)
        if self._timekeeper is not None:
            stuck = CounterMetricFamily(
                "taskmill_stuck_handlers",
                "Handlers that did not end, though their time was over and the grace too.",
                labels=["queue", "task"],
            )
            for labels, count in list(self._timekeeper.stuck.items()):
                stuck.add_metric(labels, count)
            yield stuck
        yield from self._of_engines()

    @staticmethod
    def _histogram(name: str, text: str, table: dict[Labels, _Durations]) -> Metric:
        family = HistogramMetricFamily(name, text, labels=["queue", "task"])
        for labels, durations in list(table.items()):
            family.add_metric(labels, durations.cumulative(), durations.total)
        return family

    def _of_engines(self) -> Iterable[Metric]:
        """What engines count themselves, a family a row."""
        rows: tuple[tuple[str, str, bool, Callable[[Engine], float]], ...] = (
            ("taskmill_duplicates", "Records not run: their ID had run, or was running.", True,
             lambda e: e.core.protocol.counts.duplicates),
            ("taskmill_commit_failures", "Transactions aborted or of unknown outcome.", True,
             lambda e: e.committer.failures),
            ("taskmill_rebalances", "Assignments received.", True, lambda e: e.poller.rebalances),
            ("taskmill_tasks_in_flight", "Records taken and not committed.", False,
             lambda e: e.core.protocol.in_flight),
        )  # fmt: skip
        for name, text, counts_up, read in rows:
            kind = CounterMetricFamily if counts_up else GaugeMetricFamily
            family = kind(name, text, labels=["queue"])
            for queue, engine in self._engines.items():
                family.add_metric([queue], read(engine))
            yield family
