"""The schedules as people see and change them: read from Kafka when asked, written at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import NamedTuple, Self

from confluent_kafka import KafkaError

from taskmill.consumer.admin import Admin
from taskmill.consumer.bounded import Reader
from taskmill.consumer.compacted import Latest, latest
from taskmill.producer.client import ProducerClient, Report
from taskmill.producer.refusal import Refusals
from taskmill.producer.routes import Routes
from taskmill.producer.tracing import created
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import InvalidInput, PayloadTooLarge, TaskmillError, Unreachable
from taskmill.runtime.kafka import bootstrap_servers
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topic_table import schedule_state_topic, schedules_topic
from taskmill.runtime.topics import ensure_schedules, partition_count
from taskmill.scheduler.calendar import Rule
from taskmill.scheduler.policy import begin
from taskmill.scheduler.schedule import check
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import Schedule, ScheduleState, Task

#: Topic, key, value (None removes the key), partition, headers.
_Record = tuple[str, bytes, bytes | None, int, list[tuple[str, bytes]]]


class Posted(NamedTuple):
    """A schedule as it lies on Kafka. `broken` says why it is not heeded, and it has no rule."""

    id: str
    schedule: Schedule | None
    state: ScheduleState | None
    rule: Rule | None = None
    broken: str | None = None


class Board:
    """A context manager. Its calls raise Unreachable, and TaskmillError for what Kafka refuses."""

    def __init__(self, settings: Settings, codec: Codec, clock: Clock) -> None:
        self._settings = settings
        self._codec = codec
        self._clock = clock
        self._topic = schedules_topic(settings.prefix)
        self._state_topic = schedule_state_topic(settings.prefix)
        self._timeout_s = settings.enqueue_timeout_s
        self._refusals = Refusals(bootstrap_servers(settings), self._timeout_s)
        self._routes = Routes(
            settings, lambda topic, left: partition_count(settings, topic, timeout_s=left), clock
        )
        self._producer: ProducerClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    # ---- reading --------------------------------------------------------------------------------

    def all(self) -> list[Posted]:
        """Every schedule, by ID."""
        reader = Reader(self._settings, f"{self._topic}.board", "`schedules`", self._clock)
        try:
            found_states = latest(self._admin(), reader, self._state_topic)
            states = {one.key: one.value for one in found_states}
            found: dict[bytes, Posted] = {}
            for one in latest(self._admin(), reader, self._topic):
                key = one.key
                # One on the wrong partition does not hide the one that counts.
                if key not in found or partition_for(key, one.partitions) == one.partition:
                    found[key] = self._posted(one, states.get(key))
        finally:
            reader.close()
        return sorted(found.values(), key=lambda posted: posted.id)

    def find(self, id: str) -> Posted | None:
        """The schedule of that ID; None: there is none."""
        return next((posted for posted in self.all() if posted.id == id), None)

    def get(self, id: str) -> tuple[Posted, Schedule, Rule]:
        """The schedule of that ID, which is heeded. Raises InvalidInput."""
        posted = self.find(id)
        if posted is None:
            raise InvalidInput(f"no schedule {id!r:.80}; `taskmill schedules list` lists them")
        if posted.schedule is None or posted.rule is None:
            raise InvalidInput(f"schedule {id!r:.80} is broken: {posted.broken}")
        return posted, posted.schedule, posted.rule

    def _admin(self) -> Admin:
        return Admin(self._settings, clock=self._clock)

    def _posted(self, one: Latest, state_value: bytes | None) -> Posted:
        p, count, key, value = one
        id = key.decode("utf-8", "backslashreplace")
        try:
            state = None
            if state_value is not None:
                state = self._codec.decode_schedule_state(state_value)
            schedule = self._codec.decode_schedule(value)
        except Unreachable:
            raise
        except TaskmillError as error:
            return Posted(id, None, None, broken=str(error))
        try:
            if schedule.id.encode() != key:
                raise TaskmillError(f"its ID is {schedule.id!r:.80}, another than its key")
            if partition_for(key, count) != p:
                raise TaskmillError(f"it lies on partition {p}, which murmur2 of its key is not")
            rule = check(schedule)
        except TaskmillError as error:
            return Posted(id, schedule, state, broken=str(error))
        return Posted(id, schedule, begin(schedule, state) if state else None, rule)

    # ---- writing --------------------------------------------------------------------------------

    def write(self, schedules: Iterable[Schedule]) -> None:
        """Put these on Kafka, acknowledged; their topics are made where they are missing."""
        self._put({one.id: self._codec.encode_schedule(one) for one in schedules})

    def remove(self, ids: Iterable[str]) -> None:
        """Remove these, acknowledged."""
        self._put(dict.fromkeys(ids))

    def enqueue(self, queue: str, tasks: Sequence[Task]) -> None:
        """Put tasks on a queue, acknowledged."""
        route = self._routes.get(queue, Deadline(self._timeout_s, self._clock))
        records: list[_Record] = []
        for task in tasks:
            key, value = task.id.encode(), self._codec.encode_task(task)
            self._check_size(f"task {task.id!r:.80}", value)
            p = partition_for(key, route.partitions)
            trace = created(task.id, task.name, queue, route.topic)
            records.append((route.topic, key, value, p, [*route.headers[p], *trace]))
        self._deliver(records)

    def _put(self, values: dict[str, bytes | None]) -> None:
        for id, value in values.items():
            self._check_size(f"schedule {id!r:.80}", value)
        ensure_schedules(self._settings, clock=self._clock)
        count = self._admin().partitions(self._topic) or 1
        keys = {id: id.encode() for id in values}
        self._deliver(
            (self._topic, keys[id], value, partition_for(keys[id], count), [])
            for id, value in values.items()
        )

    def _check_size(self, what: str, value: bytes | None) -> None:
        most = self._settings.max_task_bytes
        if value is not None and len(value) > most:
            raise PayloadTooLarge(
                f"{what} is {len(value)} bytes encoded; the limit is {most} "
                "(TASKMILL_MAX_TASK_BYTES)"
            )

    def _deliver(self, records: Iterable[_Record]) -> None:
        """Send these, and wait until all are acknowledged."""
        if self._producer is None:
            self._producer = ProducerClient(
                self._settings, "schedules", self._refusals, self._clock
            )
        told: SimpleQueue[KafkaError | None] = SimpleQueue()
        count = 0
        for topic, key, value, p, headers in records:
            # A record without a value removes its key.
            while not self._producer.send(topic, key, value, p, headers, _report(told)):  # type: ignore[arg-type]
                self._producer.wait_for_room()
            count += 1
        # The client gives each up after the same time, and then says so.
        deadline = Deadline(self._timeout_s + 5, self._clock)
        for _ in range(count):
            try:
                error = told.get(timeout=max(0.1, deadline.left()))
            except Empty:
                raise self._refusals.unreachable() from None
            if error is not None:
                raise Unreachable(f"Kafka at {bootstrap_servers(self._settings)}: {error.str()}")


def _report(told: SimpleQueue[KafkaError | None]) -> Report:
    return lambda error, message: told.put(error)
