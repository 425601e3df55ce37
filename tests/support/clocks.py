"""Clocks that a test moves by hand."""

from __future__ import annotations

from taskmill.runtime.clock import SystemClock


class HandClock:
    """Wall and monotonic time stand until the test moves them; a sleep moves the latter."""

    def __init__(self) -> None:
        self.ms = 1_760_000_000_000
        self.seconds = 0.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class AheadClock(SystemClock):
    """The machine's clock, its wall time ahead by `ms`."""

    def __init__(self, ms: int = 0) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return super().now_ms() + self.ms
