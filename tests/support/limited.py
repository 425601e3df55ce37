"""What tests of time limits share: a handler that spins, and what became of handlers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from taskmill.consumer.record import Outcome
from taskmill.producer.context import Context
from taskmill.producer.middleware import Middleware
from taskmill.runtime.clock import SYSTEM_CLOCK


def spin(seconds: float) -> None:
    """Python all the time."""
    until = SYSTEM_CLOCK.monotonic() + seconds
    while SYSTEM_CLOCK.monotonic() < until:
        pass


def reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """Why each failed, or its status."""
    return [o.failure.reason if o.failure is not None else str(o.status) for o in outcomes]


class Told(Middleware):
    """Keeps what the hook after a run is shown."""

    def __init__(self) -> None:
        self.runs: list[Any] = []

    def after_run(self, context: Context, outcome: Any) -> None:
        self.runs.append(outcome)


class Sink:
    """Where an executor hands its outcomes."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self._arrived = threading.Condition()

    def __call__(self, outcomes: list[Outcome]) -> None:
        with self._arrived:
            self.outcomes += outcomes
            self._arrived.notify_all()

    def wait(self, count: int) -> list[Outcome]:
        """The outcomes, once there are so many."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.outcomes) >= count, 40)
            return self.outcomes
