"""Between a queue and the executors: closed while the queue is paused, so that nothing is begun.

What runs goes on. What was handed over and has not begun is taken back, and kept here until the
queue goes on, or its partition is lost. What has passed a gate (see gates.py) is let through: its
committed mark says that it may have begun, so that, declared at most once, it would be lost with
its worker. What is to be cancelled is let through as well: the executors end it unbegun.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from taskmill.consumer.record import Lease, Record
from taskmill.consumer.timeouts import is_cancelled


class Executors(Protocol):
    """What runs records: a Dispatcher."""

    def submit(self, records: list[Record]) -> None: ...

    def interrupt(self, records: Sequence[Record]) -> None: ...

    def cancel(self, leases: list[Lease]) -> None: ...

    def take_back(self, queue: str, give: Callable[[list[Record]], None]) -> None: ...


class Valve:
    """Of one queue; open at first. Thread-safe, and nothing of it blocks."""

    def __init__(self, queue: str, executors: Executors) -> None:
        self._queue = queue
        self._executors = executors
        self._lock = threading.Lock()
        self._closed = False
        self._kept: list[Record] = []

    def submit(self, records: list[Record]) -> None:
        """Run `records`, now or once the queue goes on."""
        if not records:
            return
        with self._lock:
            if self._closed:
                kept = [record for record in records if _waits(record)]
                self._kept += kept
                records = [record for record in records if not _waits(record)]
            if records:
                # Under the lock: what is handed over before it closes can be taken back.
                self._executors.submit(records)

    def interrupt(self, records: list[Record]) -> None:
        """They are to be cancelled, which their leases say by now."""
        with self._lock:
            ended = [record for record in self._kept if is_cancelled(record)]
            if ended:
                self._kept = [record for record in self._kept if not is_cancelled(record)]
                self._executors.submit(ended)
        self._executors.interrupt(records)

    def cancel(self, leases: list[Lease]) -> None:
        """Those have ended: what is kept of them is dropped, what runs is stopped."""
        with self._lock:
            self._kept = [record for record in self._kept if record.lease.held]
        self._executors.cancel(leases)

    def close(self) -> None:
        """Nothing more is begun."""
        with self._lock:
            self._closed = True
        self._executors.take_back(self._queue, self.submit)

    def open(self) -> None:
        """Go on, with what was kept first."""
        with self._lock:
            self._closed = False
            kept, self._kept = self._kept, []
            held = [record for record in kept if record.lease.held]
            if held:
                self._executors.submit(held)

    @property
    def kept(self) -> int:
        """Records that wait here."""
        return len(self._kept)


def _waits(record: Record) -> bool:
    return not (record.is_gated or is_cancelled(record))
