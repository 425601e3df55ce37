"""What an App, or a console, has enqueued, counted: in this process's meter, or its worker's."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

from taskmill.producer.definition import TaskCall
from taskmill.runtime.meter import Meter, Reading

_NAME = "taskmill_tasks_enqueued_total"


class EnqueuedCount:
    """Thread-safe. A forked process begins with nothing, and counts its own."""

    def __init__(self) -> None:
        self._meter: Meter | None = None
        self._pid = 0

    def use(self, meter: Meter) -> None:
        """Count into `meter` from now on."""
        self._pid, self._meter = os.getpid(), meter

    def _mine(self) -> Meter:
        pid = os.getpid()
        if self._meter is None or self._pid != pid:
            self._pid, self._meter = pid, Meter()
        return self._meter

    def accepted(self, call: TaskCall[object]) -> None:
        """The broker has acknowledged it."""
        self._mine().add(_NAME, call.queue, call.name)

    def run(self, queue: str, name: str) -> None:
        """It has acknowledged a task that no call made: a schedule's."""
        self._mine().add(_NAME, queue, name)

    def all_accepted(self, calls: Iterable[TaskCall[object]]) -> None:
        """It has acknowledged all of them."""
        meter = self._mine()
        counts = Counter([(call.queue, call.name) for call in calls])
        for labels, count in counts.items():
            meter.add(_NAME, *labels, by=count)

    def read(self) -> Reading:
        """What is counted by now."""
        return self._mine().read()
