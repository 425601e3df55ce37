"""Schedules as a plain Kafka client writes them, and what a reader sees of their runs."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from confluent_kafka import Producer

from support.queues import Queue
from support.wire import partition_of, read_schedule_state, read_task, schedule_value
from support.workers import WorkerProcess
from taskmill.runtime.topics import ensure_schedules

#: Partitions of the topics of schedules.
PARTITIONS = 3


class Run(NamedTuple):
    """A run as it lies on `tasks`. `nominal` is what its ID says, `at` the broker's time of it."""

    schedule: str
    nominal: int
    at: int
    suffix: str
    task: dict[str, Any]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def run_of(key: bytes, at: int, value: bytes) -> Run:
    id, _, moment = key.decode().removeprefix("schedule:").rpartition("@")
    moment, _, suffix = moment.partition("#")
    nominal = round(datetime.fromisoformat(moment).timestamp() * 1000)
    return Run(id, nominal, at, suffix, read_task(value))


class Scheduled(Queue):
    """A queue, with schedules for it, and the schedulers that serve them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        ensure_schedules(self.settings)
        prefix = self.settings.prefix
        self.topic, self.state_topic = f"{prefix}.schedules", f"{prefix}.schedule-state"
        self._producer = Producer(
            {"bootstrap.servers": str(self.settings.bootstrap_servers), "linger.ms": 5}
        )

    def put(self, id: str, value: bytes | None, partition: int | None = None) -> None:
        """Put a record on the topic of schedules, acknowledged."""
        key = id.encode()
        p = partition_of(key, PARTITIONS) if partition is None else partition
        self._producer.produce(self.topic, value, key, p)
        assert self._producer.flush(30) == 0

    def put_all(self, ids: list[str], task: str, args: Any = None, **fields: Any) -> None:
        """Put a schedule of each ID there, all of whose times from now on count."""
        for id in ids:
            key = id.encode()
            value = schedule_value(id, task, args, **{"updated_at": now_ms(), **fields})
            self._producer.produce(self.topic, value, key, partition_of(key, PARTITIONS))
        assert self._producer.flush(30) == 0

    def scheduler(self, *options: str, serves: int = PARTITIONS, **process: Any) -> WorkerProcess:
        """Start one, and wait until it serves so many partitions."""
        given = {"target": "", **process}
        one = self.add(*options, role="scheduler", **given)
        if serves:
            one.wait_for("serving ", times=serves)
        return one

    def runs(self) -> list[Run]:
        """All runs that lie on `tasks`, in the order of each partition."""
        return [
            run_of(seen.key, seen.timestamp, seen.value or b"")
            for seen in self.oracle.read(self.oracle.tasks)
            if seen.key is not None and seen.key.startswith(b"schedule:")
        ]

    def nominals(self) -> dict[str, list[int]]:
        """The nominal times of each schedule's runs, in order, as often as they lie there."""
        found: dict[str, list[int]] = defaultdict(list)
        for run in self.runs():
            if not run.suffix:
                found[run.schedule].append(run.nominal)
        return {id: sorted(times) for id, times in found.items()}

    def wait_runs(self, id: str, count: int, timeout_s: float = 30.0) -> list[int]:
        """Wait until a schedule has had so many runs; their nominal times."""
        self.wait(lambda: len(self.nominals().get(id, [])) >= count, timeout_s)
        return self.nominals()[id]

    def states(self) -> dict[str, dict[str, Any]]:
        """The newest state of each schedule."""
        found: dict[str, dict[str, Any]] = {}
        for seen in self.oracle.read(self.state_topic):
            id = (seen.key or b"").decode()
            if seen.value is None:
                found.pop(id, None)
            else:
                found[id] = read_schedule_state(seen.value)
        return found

    def wait(self, is_so: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Ask until it is so."""
        limit = time.monotonic() + timeout_s
        while not is_so():
            assert time.monotonic() < limit, f"not within {timeout_s:g} s"
