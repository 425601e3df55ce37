"""An event loop on the virtual clock: where all that runs on it waits for a time, it is that time.

While something waits for the world outside (a connection, a thread), time passes as it does there.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable
from typing import Any, TypeVar

from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.errors import TaskmillError
from taskmill.testing.clock import VirtualClock

T = TypeVar("T")

#: Handlers that wait for nothing that this process knows of are given up after this.
STUCK_S = 5.0


class _Selector(selectors.DefaultSelector):
    """Waits no real time, unless for something real."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        #: Functions that run in threads.
        self.jobs = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        # The loop's own pipe is always there.
        if self.jobs or len(self.get_map()) > 1:
            began = SYSTEM_CLOCK.monotonic()
            found = super().select(timeout)
            self._clock.forward(SYSTEM_CLOCK.monotonic() - began)
        elif timeout is not None:
            self._clock.forward(timeout)
        elif not (found := super().select(STUCK_S)):
            raise TaskmillError(
                f"a handler waits for something that nothing here does, {STUCK_S:g} s by now"
            )
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time is `clock`'s, which it moves on."""

    def __init__(self, clock: VirtualClock) -> None:
        self._waits = _Selector(clock)
        self._virtual = clock
        super().__init__(self._waits)
        # The time that a step takes here says nothing of the machine's.
        self.slow_callback_duration = math.inf

    def time(self) -> float:
        return self._virtual.monotonic()

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._waits.jobs += 1
        future.add_done_callback(self._job_done)
        return future

    def _job_done(self, _: object) -> None:
        self._waits.jobs -= 1
