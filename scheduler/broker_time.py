"""What time it is for the broker, as far as its answers tell. No I/O."""

from __future__ import annotations

from taskmill.runtime.clock import Clock


class BrokerTime:
    """The wall clock, unless it is ahead of the broker's: then what the broker's can be by now.

    A wall clock may be wrong, or be stepped; the broker's stamp of what was just appended tells.
    Between two stamps the monotonic clock does. Nothing is promised before the first: what is
    passed on too early then comes back (consumer/decode.py), with a stamp.
    """

    __slots__ = ("_clock", "_offset_ms")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: Of the broker's clock to our monotonic one, at the most: a record's way to the broker
        #: counts as none.
        self._offset_ms: float | None = None

    def now_ms(self) -> int:
        """UTC milliseconds."""
        wall = self._clock.now_ms()
        if self._offset_ms is None:
            return wall
        return min(wall, int(self._clock.monotonic() * 1000 + self._offset_ms))

    def stamped(self, sent: float, at_ms: int) -> None:
        """The broker stamped `at_ms` (UTC) on what we sent at `sent` (monotonic seconds)."""
        self._offset_ms = at_ms - sent * 1000

    def forget(self) -> None:
        """The monotonic clock may have stood still, as that of a machine that slept does."""
        self._offset_ms = None
