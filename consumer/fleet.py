"""The workers of one supervisor as one: their meters added up, those of the dead included.

A dead worker's counts are kept, so that no counter goes back; its gauges end with it. Both happen
in one step, so that no look finds it twice, or not at all.
"""

from __future__ import annotations

import threading

from taskmill.runtime.clock import Clock
from taskmill.runtime.meter import Meter, Reading, SharedMeter, shared_memory
from taskmill.runtime.metric_page import counts_of, merged
from taskmill.runtime.vitals import STILL_S


class Fleet:
    """Up to `wanted` living workers, by number from 0. Safe from any thread."""

    def __init__(self, wanted: int, clock: Clock) -> None:
        self._wanted = wanted
        self._clock = clock
        self._own = Meter()
        self._lock = threading.Lock()
        self._living: dict[int, SharedMeter] = {}
        self._ended: Reading = {}
        self._own.set("taskmill_worker_processes_wanted", to=wanted)
        self._own.set("taskmill_worker_processes", to=0)
        self._own.add("taskmill_worker_restarts_total", by=0)

    def born(self, number: int) -> int:
        """A worker is about to start: the file descriptor of the memory that it is to count in.
        To be closed once it has it."""
        fd = shared_memory()
        with self._lock:
            self._living[number] = SharedMeter(fd)
            self._own.set("taskmill_worker_processes", to=len(self._living))
        return fd

    def died(self, number: int) -> None:
        """It has ended, or was never started."""
        with self._lock:
            meter = self._living.pop(number, None)
            if meter is not None:
                self._ended = merged([self._ended, counts_of(meter.read())])
                meter.close()
            self._own.set("taskmill_worker_processes", to=len(self._living))

    def replaced(self) -> None:
        """One that ended by itself gets a successor."""
        self._own.add("taskmill_worker_restarts_total")

    def read(self) -> Reading:
        """What all of them have counted by now, and the supervisor of them."""
        with self._lock:
            readings = [meter.read() for meter in self._living.values()]
            return merged([self._ended, *readings, self._own.read()])

    def port(self) -> tuple[int | None] | None:
        """Where the workers' App wants its metrics served; None: no worker has said yet."""
        with self._lock:
            for meter in self._living.values():
                if meter.seen_at is not None:
                    return (meter.status().get("port"),)
        return None

    def unhealthy(self) -> str | None:
        """One line on a worker that stands still; None: there is none."""
        now = self._clock.monotonic()
        with self._lock:
            for number, meter in sorted(self._living.items()):
                seen_at = meter.seen_at
                if seen_at is not None and now - seen_at > STILL_S:
                    return f"worker {number} has said nothing for {now - seen_at:.0f} s"
                if why := meter.status().get("healthy"):
                    return f"worker {number}: {why}"
        return None

    def unready(self) -> str | None:
        """One line on a worker that is not ready; None: all are."""
        with self._lock:
            for number in range(self._wanted):
                meter = self._living.get(number)
                if meter is None or meter.seen_at is None:
                    return f"worker {number} has not started yet"
                if why := meter.status().get("ready"):
                    return f"worker {number}: {why}"
        return None
