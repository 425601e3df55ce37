"""What a worker counts of its tasks: middleware, told of each batch once it is committed.

A metric's call a task would cost more than the task's own bookkeeping. So of the many that succeed
at once only the times are listed, one after the other; sorted, they tell each bucket's count.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

from taskmill.consumer.record import Outcome, Reason
from taskmill.consumer.tiers import Tier, tier_of
from taskmill.producer.definition import TaskDefinition
from taskmill.producer.middleware import Middleware
from taskmill.runtime.meter import Meter
from taskmill.runtime.metric_table import BUCKETS, UNKNOWN
from taskmill.schemas.states import Status

#: In place of a tier: waits that are longer than all of them, or that have an exact end.
DELAYED = "delayed"

_FINISHED = "taskmill_tasks_finished_total"
_ENQUEUED = "taskmill_tasks_enqueued_total"
#: Of consumer/commit.py's answers, those that are no commit.
_FAILED = ("aborted", "unknown")
_DURATION, _WAIT = "taskmill_task_duration_seconds", "taskmill_task_wait_seconds"
_BOUNDS_MS = tuple(round(1000 * bound) for bound in BUCKETS)


class _Times:
    """Of one task's batch: how long handlers ran, in seconds, and waited, in milliseconds."""

    __slots__ = ("ran", "succeeded", "waited")

    def __init__(self) -> None:
        self.succeeded = 0
        self.ran: list[float] = []
        self.waited: list[int] = []


def begin_at_zero(
    meter: Meter, queues: Iterable[str], tasks: Iterable[TaskDefinition], tiers: Iterable[Tier]
) -> None:
    """Have the counters of `queues` on the page before anything happens: the first failure of a
    counter that begins with it is no increase, and no alert sees it."""
    outcomes = (Status.SUCCEEDED, Status.RETRYING, Status.DEAD, Status.CANCELLED, Status.EXPIRED)
    by_queue = {queue: [t.name for t in tasks if t.queue == queue] for queue in queues}
    for queue, names in by_queue.items():
        series = [
            *((_FINISHED, queue, name, outcome.value) for name in names for outcome in outcomes),
            *(("taskmill_stuck_handlers_total", queue, name) for name in names),
            *(("taskmill_dead_letters_total", queue, reason.value) for reason in Reason),
            *(("taskmill_retries_total", queue, tier.name) for tier in tiers),
            ("taskmill_retries_total", queue, DELAYED),
            ("taskmill_duplicates_total", queue),
            ("taskmill_rerouted_total", queue),
            *(("taskmill_commit_failures_total", queue, answer) for answer in _FAILED),
        ]
        for name, *labels in series:
            meter.add(name, *labels, by=0)


class TaskMetrics(Middleware):
    """Counts outcomes into `meter`. For the commit threads of a worker, one a queue."""

    def __init__(self, meter: Meter, declared: Collection[str], tiers: Sequence[Tier] = ()) -> None:
        """`declared`: names of tasks, aliases too; others' count as UNKNOWN."""
        self._meter = meter
        self._declared = frozenset(declared)
        self._tiers = tiers

    def after_commit(self, outcomes: Sequence[Outcome]) -> None:
        """Count a batch of one queue."""
        by_name: dict[str, _Times] = {}
        odd: list[Outcome] = []
        succeeded = Status.SUCCEEDED
        for outcome in outcomes:
            # By place: half of the time of as many look-ups by name.
            record, status, _, _, started_at, _, duration, children, _, _, _, _, _ = outcome
            task = record[5]
            if status is not succeeded or started_at is None or task is None or children:
                odd.append(outcome)
                continue
            times = by_name.get(task.name)
            if times is None:
                times = by_name[task.name] = _Times()
            times.succeeded += 1
            times.ran.append(duration)
            if task.attempt == 1:  # the others waited because they should
                times.waited.append(started_at - task.enqueued_at)
        queue = outcomes[0].record.lease.queue
        with self._meter.lock:
            for outcome in odd:
                self._count(queue, outcome, by_name)
            for name, times in by_name.items():
                self._enter(queue, self._task(name), times)

    def _task(self, name: str) -> str:
        return name if name in self._declared else UNKNOWN

    def _add(self, name: str, *labels: str) -> None:
        self._meter.cells[self._meter.at(name, *labels)] += 1

    def _count(self, queue: str, outcome: Outcome, by_name: dict[str, _Times]) -> None:
        """Count one that is more than a plain success; its times go to the others'."""
        record, status = outcome.record, outcome.status
        if status is None:
            if record.belongs_to is not None:
                self._add("taskmill_rerouted_total", queue)
            elif not outcome.is_superseded:
                self._add("taskmill_duplicates_total", queue)
            return
        task = record.task
        name = UNKNOWN if task is None else task.name
        if status is Status.SCHEDULED:
            return
        self._add(_FINISHED, queue, self._task(name), status.value)
        if outcome.retry_ms is not None:
            is_exact = outcome.due_at is not None
            tier = None if is_exact else tier_of(self._tiers, outcome.retry_ms)
            self._add("taskmill_retries_total", queue, DELAYED if tier is None else tier.name)
        elif outcome.failure is not None:
            self._add("taskmill_dead_letters_total", queue, outcome.failure.reason.value)
        for child in outcome.children:
            self._add(_ENQUEUED, child.queue, self._task(child.name))
        if task is not None and outcome.started_at is not None:
            times = by_name.setdefault(name, _Times())
            times.ran.append(outcome.duration)
            if task.attempt == 1:
                times.waited.append(outcome.started_at - task.enqueued_at)

    def _enter(self, queue: str, task: str, times: _Times) -> None:
        cells, at = self._meter.cells, self._meter.at
        if times.succeeded:
            cells[at(_FINISHED, queue, task, Status.SUCCEEDED.value)] += times.succeeded
        ran, waited = sorted(times.ran), sorted(times.waited)
        if ran:
            first = at(_DURATION, queue, task)
            below = [0, *(bisect_right(ran, bound) for bound in BUCKETS), len(ran)]
            self._fill(first, below, sum(ran))
        if waited:
            first = at(_WAIT, queue, task)
            below = [0, *(bisect_right(waited, bound) for bound in _BOUNDS_MS), len(waited)]
            # Where the clock of whoever enqueued is ahead of ours, it did not wait at all.
            self._fill(first, below, sum(ms for ms in waited if ms > 0) / 1000)

    def _fill(self, first: int, below: list[int], total: float) -> None:
        """Into the cells of a histogram: how many lie below each bound, and their sum."""
        cells = self._meter.cells
        for number, (less, up_to) in enumerate(pairwise(below)):
            if up_to != less:
                cells[first + number] += up_to - less
        cells[first + len(below) - 1] += total
