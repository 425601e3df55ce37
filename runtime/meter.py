"""What a process counts: numbers in a piece of memory that outlives it where another holds it too.

A supervisor gives each of its workers such memory. The worker counts there by plain stores, with no
call a task and nobody to wait for; the supervisor reads it when it is asked, and once more when the
worker has ended, however that was: what it had counted is not lost with it.

    header │ cells: doubles, in the order in which series came │ status │ keys: a JSON line a series

A series is a metric's name with its labels' values. Its key is written before the header counts it,
so that a reader sees it whole or not at all.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import tempfile
import threading
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.metric_table import BUCKETS, METRICS, OTHER

#: Series that one metric tells apart; of those beyond, the label `task` becomes OTHER.
MOST_SERIES = 2_000
#: Room for all metrics with so many. Memory that nothing was written to takes none.
_CELLS, _KEYS, _STATUS = 1 << 18, 1 << 22, 1 << 10
_HEADER = 8
_STATUS_AT = 8 * (_HEADER + _CELLS)
_KEYS_AT = _STATUS_AT + _STATUS
SIZE = _KEYS_AT + _KEYS
#: Places in the header: series' cells in use, bytes of keys, when it was last looked at (monotonic
#: seconds; 0: not yet), a number that is odd while the status is written, and its length.
_USED, _KEYS_USED, _SEEN_AT, _WRITING, _LENGTH = range(5)

#: A metric's name, and its labels' values in the order of their names.
Key = tuple[str, tuple[str, ...]]
#: The cells of each series: one; of a histogram a count a bucket, the last without bound, and the
#: sum.
Reading = dict[Key, tuple[float, ...]]


def shared_memory() -> int:
    """A file descriptor of new memory for one Meter, to be passed on to its process."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("taskmill-meter")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, SIZE)
    return fd


class Meter:
    """Counts. Thread-safe; who holds `lock` may change `cells` by index, which `at` tells."""

    def __init__(self, fd: int | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        """`fd`: of shared_memory; None: memory of this process's own."""
        self._memory = mmap.mmap(-1 if fd is None else fd, SIZE)
        self._clock = clock
        self._header = memoryview(self._memory).cast("d")[:_HEADER]
        self.cells = memoryview(self._memory).cast("d")[_HEADER : _HEADER + _CELLS]
        self.lock = threading.Lock()
        self._places: dict[Key, int] = {}
        self._counts: dict[str, int] = {}

    def at(self, name: str, *labels: str) -> int:
        """Where the cells of a series begin. The caller holds `lock`."""
        key = (name, labels)
        found = self._places.get(key)
        if found is None:
            is_many = self._counts.get(name, 0) >= MOST_SERIES and "task" in METRICS[name].labels
            if is_many and OTHER not in labels:
                return self.at(name, *_others(name, labels))
            found = self._places[key] = self._new(key)
        return found

    def _new(self, key: Key) -> int:
        name, labels = key
        assert len(labels) == len(METRICS[name].labels), f"{name} has other labels"
        width = width_of(name)
        used, keys = int(self._header[_USED]), int(self._header[_KEYS_USED])
        line = json.dumps([name, labels, used]).encode() + b"\n"
        if used + width > _CELLS - _SPILL or keys + len(line) > _KEYS:
            return _CELLS - _SPILL
        if METRICS[name].kind == "gauge":
            self.cells[used] = math.nan
        self._memory[_KEYS_AT + keys : _KEYS_AT + keys + len(line)] = line
        self._header[_USED] = used + width
        self._header[_KEYS_USED] = keys + len(line)
        self._counts[name] = self._counts.get(name, 0) + 1
        return used

    def add(self, name: str, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        with self.lock:
            self.cells[self.at(name, *labels)] += by

    def set(self, name: str, *labels: str, to: float) -> None:
        """What a gauge is now, or a counter that is counted elsewhere. NaN: it is no more."""
        with self.lock:
            self.cells[self.at(name, *labels)] = to

    def observe(self, name: str, *labels: str, seconds: float) -> None:
        """One more in a histogram."""
        with self.lock:
            at = self.at(name, *labels)
            self.cells[at + bisect_left(BUCKETS, seconds)] += 1
            self.cells[at + len(BUCKETS) + 1] += seconds

    def say(self, status: Mapping[str, Any]) -> None:
        """What else is to be known of this process now, a few short words; and that it was looked
        at. One thread's."""
        data = json.dumps(status).encode()[:_STATUS]
        self._header[_WRITING] += 1
        self._memory[_STATUS_AT : _STATUS_AT + len(data)] = data
        self._header[_LENGTH] = len(data)
        self._header[_WRITING] += 1
        self._header[_SEEN_AT] = self._clock.monotonic()

    def read(self) -> Reading:
        """All that is counted here by now; gauges that are no more are left out."""
        return read(self._memory)


class SharedMeter:
    """Another process's Meter, read through the memory that both hold."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, SIZE, prot=mmap.PROT_READ)
        self._header = memoryview(self._memory).cast("d")[:_HEADER]

    def read(self) -> Reading:
        """As Meter's; also once its process has ended."""
        return read(self._memory)

    @property
    def seen_at(self) -> float | None:
        """When its process last said something: monotonic seconds, the same for all processes of a
        machine; None: it has not."""
        return self._header[_SEEN_AT] or None

    def status(self) -> dict[str, Any]:
        """What it said last; empty: nothing."""
        for _ in range(100):
            before = self._header[_WRITING]
            data = self._memory[_STATUS_AT : _STATUS_AT + int(self._header[_LENGTH])]
            if before % 2 == 0 and before == self._header[_WRITING]:
                break
        try:
            said = json.loads(data or b"{}")
        except ValueError:  # it died while it said so, or is about to have said it
            return {}
        return said if isinstance(said, dict) else {}

    def close(self) -> None:
        """Let go of the memory."""
        self._header.release()
        self._memory.close()


#: Cells at the end that no key names: what there is no room for counts there.
_SPILL = len(BUCKETS) + 2


def width_of(name: str) -> int:
    """How many cells a series of this metric takes."""
    return len(BUCKETS) + 2 if METRICS[name].kind == "histogram" else 1


def read(memory: mmap.mmap) -> Reading:
    """What the Meter in `memory` has counted."""
    with memoryview(memory) as whole, whole.cast("d") as doubles:
        keys = bytes(whole[_KEYS_AT : _KEYS_AT + int(doubles[_KEYS_USED])])
        found: Reading = {}
        for line in keys.splitlines():
            name, labels, at = json.loads(line)
            first = _HEADER + at
            cells = tuple(doubles[first : first + width_of(name)])
            if not math.isnan(cells[0]):
                found[name, tuple(labels)] = cells
        return found


def _others(name: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    names = METRICS[name].labels
    return tuple(OTHER if label == "task" else v for label, v in zip(names, labels, strict=True))
