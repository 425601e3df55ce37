"""Retry tiers, the delayed topic and schedules: what the scheduler does, without its clients."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Message, TopicPartition

from taskmill.producer.reader import StateReader
from taskmill.producer.routes import Routes
from taskmill.producer.tracing import created
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.duration import parse_duration
from taskmill.runtime.errors import InvalidInput
from taskmill.runtime.meter import Meter
from taskmill.runtime.store import MemoryStore
from taskmill.runtime.topic_table import Kind, queue_of, retry_topic_of, schedules_topic
from taskmill.scheduler.declared import Declared
from taskmill.scheduler.delayed import Delayed, Part
from taskmill.scheduler.due import Due
from taskmill.scheduler.firing import Firing, run_task
from taskmill.scheduler.last_runs import LastRuns
from taskmill.scheduler.owned import Owned
from taskmill.scheduler.reconcile import compare
from taskmill.scheduler.retries import Retries
from taskmill.scheduler.waiting import Waiting
from taskmill.schemas.codec import Codec
from taskmill.testing.broker import MemoryBroker

WHO = "harness"


class _Read:
    """How far the topics of one kind are read."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._at: dict[str, int] = {}

    def new(self, topic: str) -> list[Message]:
        """What has come since the last time."""
        log, at = self._broker.log(topic), self._at.get(topic, 0)
        self._at[topic] = len(log)
        return list(log[at:])


class MemoryRetries(Retries):
    """The retry tiers of all queues."""

    def __init__(
        self, broker: MemoryBroker, settings: Settings, routes: Routes, clock: Clock
    ) -> None:
        super().__init__(settings, WHO, clock)
        self._routes = routes
        self._broker = broker
        self._read = _Read(broker)

    def step(self) -> bool:
        """Pass on what is due; False: nothing is."""
        for topic in self._broker.topics():
            place = retry_topic_of(topic, self._settings.prefix)
            if place is not None:
                delay_ms = round(parse_duration(place[1]) * 1000)
                self._waiting.setdefault((topic, 0), Waiting(delay_ms))
                self._take(self._read.new(topic))
        before = self.passed.total()
        self._pass_on()
        return self.passed.total() > before

    @property
    def next_at(self) -> int | None:
        """When the next one is due (UTC ms)."""
        times = [at for one in self._waiting.values() if (at := one.due_at) is not None]
        return min(times, default=None)

    def _transact(self, messages: list[dict[str, Any]], offsets: Sequence[TopicPartition]) -> None:
        self._broker.write(messages)


class MemoryDelayed(Delayed):
    """The delayed topics of all queues."""

    def __init__(
        self, broker: MemoryBroker, settings: Settings, routes: Routes, clock: Clock
    ) -> None:
        super().__init__(settings, WHO, Path(), clock)
        self._routes = routes
        self._broker = broker
        self._read = _Read(broker)

    def step(self) -> bool:
        """Pass on what is due, move what is to be moved; False: there is neither."""
        for topic in self._broker.topics():
            if queue_of(topic, Kind.DELAYED, self._settings.prefix) is None:
                continue
            if (topic, 0) not in self._parts:
                part = self._parts[topic, 0] = Part(MemoryStore(), 0, self._clock.monotonic())
                part.end = None
            self._take(self._read.new(topic))
        due_in_s = self._due_in_s()
        if due_in_s is None or due_in_s > 0:
            return False
        self._pass_on()
        return True

    @property
    def next_at(self) -> int | None:
        """When the next one is due (UTC ms)."""
        times = [at for one in self._parts.values() if (at := one.next_due) is not None]
        return min(times, default=None)

    def _transact(self, messages: list[dict[str, Any]], offsets: Sequence[TopicPartition]) -> None:
        self._broker.write(messages)


class MemorySchedules:
    """The schedules that an App declares."""

    def __init__(
        self,
        broker: MemoryBroker,
        settings: Settings,
        codec: Codec,
        routes: Routes,
        reader: StateReader,
        clock: Clock,
    ) -> None:
        self._broker = broker
        self._topic = schedules_topic(settings.prefix)
        self._codec = codec
        self._clock = clock
        self._routes = routes
        #: Schedules of whose last run something has become known.
        self._told: list[str] = []
        self._last_runs = LastRuns(reader, settings.dedup_window_ms, clock, self._told.append)
        firing = Firing(settings.prefix, WHO, codec, routes, clock)
        self._due = Due(firing, self._last_runs, clock, Meter(clock=clock))
        self._owned = Owned(0, 1, codec)

    def declare(self, app: str, declared: Iterable[Declared]) -> None:
        """Take in what the App of this name declares. Raises ConfigError for what cannot be."""
        now = self._clock.now_ms()
        for schedule in compare(app, declared, (), now)[1]:
            key, value = schedule.id.encode(), self._codec.encode_schedule(schedule)
            self._broker.append(self._topic, key, value)
            self._owned.define(key, value, now)

    def step(self) -> bool:
        """Fire what is due; False: nothing is."""
        now = self._clock.now_ms()
        told, self._told[:] = list(self._told), []
        for id in told:
            entry = self._owned.entries.get(id)
            if entry is not None and (entry.asks or entry.state.held):
                self._owned.wake(entry, now)
        batch = self._due.batch(self._owned)
        if batch is None:
            return bool(self._told)
        self._broker.write(batch.messages)
        self._due.settle(self._owned, batch)
        return True

    @property
    def next_at(self) -> int | None:
        """When the next one is to be looked at (UTC ms)."""
        return self._owned.next_at

    def trigger(self, id: str) -> tuple[str, str]:
        """Run a schedule's task now, beside its times; its queue, and the ID of the run's task."""
        entry = self._owned.entries.get(id)
        if entry is None:
            known = ", ".join(sorted(self._owned.entries)) or "none"
            raise InvalidInput(f"no schedule {id!r:.80}; declared: {known}")
        now = self._clock.now_ms()
        task = run_task(entry.schedule, now, now, secrets.token_hex(4))
        route = self._routes.get(entry.schedule.queue, Deadline(1.0, self._clock))
        trace = created(task.id, task.name, entry.schedule.queue, route.topic, schedule=id)
        headers = [*route.headers[0], *trace]
        self._broker.append(route.topic, task.id.encode(), self._codec.encode_task(task), headers)
        return entry.schedule.queue, task.id

    def close(self) -> None:
        """Nobody waits for an end any more."""
        self._last_runs.close()
