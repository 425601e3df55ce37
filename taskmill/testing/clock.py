"""Time that passes when the test says so, or while a handler waits."""

from __future__ import annotations

import math
from collections.abc import Callable

_NS_PER_MS = 1_000_000


class VirtualClock:
    """A Clock that stands still. `sleep` moves it on at once, and so is what a handler that is a
    plain function waits with, if its `timeout` is to be seen."""

    def __init__(self, start_ms: int) -> None:
        """`start_ms`: what time it is, UTC."""
        self._start_ms = start_ms
        self._ns = 0
        #: Called once it was slept; it may raise.
        self.slept: Callable[[], None] = lambda: None

    def now_ms(self) -> int:
        return self._start_ms + self._ns // _NS_PER_MS

    def monotonic(self) -> float:
        return self._ns / 1e9

    def sleep(self, seconds: float) -> None:
        """Let so much time pass. Inside a handler whose time is over then: raises Interrupted."""
        self.forward(seconds)
        self.slept()

    def forward(self, seconds: float) -> None:
        """Move on by so much."""
        self._ns += math.ceil(max(0.0, seconds) * 1e9)

    def left(self, at_ms: int) -> float:
        """Seconds until then (UTC ms); below 0 where it is past."""
        return ((at_ms - self._start_ms) * _NS_PER_MS - self._ns) / 1e9

    def move_to(self, at_ms: int) -> None:
        """Move on to a time (UTC ms); one that is past changes nothing."""
        self._ns = max(self._ns, (at_ms - self._start_ms) * _NS_PER_MS)
