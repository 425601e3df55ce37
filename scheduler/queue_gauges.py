"""What a scheduler tells of whole queues, whoever works on them, and whether anybody does.

Every scheduler tells the same of all, so that one may fail: of several, the greatest value counts.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping

from taskmill.consumer.admin import Admin
from taskmill.consumer.depth import Depths, QueueDepth
from taskmill.consumer.membership import group_of
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.meter import Meter
from taskmill.runtime.topic_table import Kind, queue_of
from taskmill.runtime.topics import Topics

logger = logging.getLogger("taskmill.scheduler")

#: How often they are looked at: some tenths of a second of work.
LOOK_S = 10.0
#: That they cannot be looked at is said so often.
TELL_S = 60.0

#: A metric of this module's, with its labels' values.
Series = tuple[str, ...]


class QueueGauges:
    """Looks at all queues under the prefix, in a thread of its own, until stopped."""

    def __init__(self, settings: Settings, meter: Meter, clock: Clock) -> None:
        self._settings = settings
        self._meter = meter
        self._clock = clock
        self._told: set[Series] = set()
        #: Partitions in which committed records end before the log does: that end, and since when.
        self._held: dict[tuple[str, int], tuple[int, float]] = {}
        self._told_at: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._main, name="taskmill-queues", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns at once; a look that is under way ends with the process."""
        self._stopping.set()

    def _main(self) -> None:
        depths = Depths(self._settings, self._clock)
        while not self._stopping.is_set():
            try:
                self._tell(self.look(depths))
            except TaskmillError as error:
                if self._stopping.is_set():
                    break
                # What was told last would be taken for what is.
                self._tell({})
                now = self._clock.monotonic()
                if self._told_at is None or now - self._told_at >= TELL_S:
                    self._told_at = now
                    logger.warning("queues cannot be looked at: %s; on with it", error)
            self._stopping.wait(LOOK_S)
        depths.close()

    def look(self, depths: Depths) -> dict[Series, float]:
        """Every series as it is now. Raises TaskmillError."""
        settings, clock = self._settings, self._clock
        topics = Admin(settings, clock=clock).metadata().topics
        there = {name: len(t.partitions) for name, t in topics.items() if t.error is None}
        found: dict[Series, float] = {}
        for name in there:
            if (queue := queue_of(name, Kind.TASKS, settings.prefix)) is None:
                continue
            admin = Admin(settings, clock=clock)  # a deadline belongs to one step
            depth = depths.look(queue, there, admin)
            found |= of_depth(depth, Topics(settings.prefix, queue).tasks)
            members = admin.described(group_of(settings.prefix, queue))
            found["taskmill_group_members", queue] = len(members)
            found |= self._stuck(Admin(settings, clock=clock), queue, there)
        return found

    def _stuck(self, admin: Admin, queue: str, there: Mapping[str, int]) -> dict[Series, float]:
        """For how long readers of committed records have been held up on each topic."""
        names = Topics(self._settings.prefix, queue)
        counts = {t: there[t] for t in (names.tasks, names.state, names.delayed) if t in there}
        stable = admin.spans(counts)
        found: dict[Series, float] = {}
        now = self._clock.monotonic()
        for topic, count in counts.items():
            longest = 0.0
            for p, end in enumerate(admin.ends(topic, count)):
                reached = stable[topic, p][1]
                if reached >= end:
                    self._held.pop((topic, p), None)
                    continue
                last, since = self._held.get((topic, p), (reached, now))
                since = since if last == reached else now
                self._held[topic, p] = reached, since
                longest = max(longest, now - since)
            found["taskmill_lso_stuck_seconds", topic] = longest
        return found

    def _tell(self, found: Mapping[Series, float]) -> None:
        for (name, *labels), value in found.items():
            self._meter.set(name, *labels, to=value)
        for name, *labels in self._told - found.keys():
            self._meter.set(name, *labels, to=math.nan)
        self._told = set(found)


def of_depth(depth: QueueDepth, topic: str) -> dict[Series, float]:
    """The series that a queue's depth is; `topic`: its tasks'."""
    queue = depth.queue
    found: dict[Series, float] = {
        ("taskmill_consumer_lag", topic, str(one.partition)): one.lag for one in depth.partitions
    }
    found["taskmill_oldest_task_age_seconds", queue] = (depth.oldest_age_ms or 0) / 1000
    for tier, waiting in depth.retrying.items():
        found["taskmill_waiting_tasks", queue, tier] = waiting.records
    if depth.delayed is not None:
        found["taskmill_waiting_tasks", queue, "delayed"] = depth.delayed.records
    if depth.letters is not None:
        found["taskmill_dlq_depth", queue] = depth.letters.records
    return found
