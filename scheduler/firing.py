"""What a look at a schedule becomes on Kafka: tasks, and how far the schedule has come."""

from __future__ import annotations

from typing import Any, NamedTuple

from taskmill.producer.routes import Routes
from taskmill.producer.tracing import created
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topic_table import schedule_state_topic
from taskmill.runtime.tracing import Headers, live_tracing
from taskmill.scheduler.owned import Entry
from taskmill.scheduler.policy import Look
from taskmill.scheduler.schedule import SCHEDULE_HEADER, TIME_HEADER, task_id, time_text
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import Schedule, ScheduleState, Task

#: To find a queue's topics.
_ROUTE_S = 3.0


class Fired(NamedTuple):
    """What is written of one schedule: arguments of `produce`, and its state once it is."""

    entry: Entry
    seen: Look
    state: ScheduleState
    messages: list[dict[str, Any]]


def run_task(schedule: Schedule, nominal: int, now_ms: int, run: str | None = None) -> Task:
    """The task that a run is, enqueued now; `run` names one that was triggered or filled in."""
    headers = {SCHEDULE_HEADER: schedule.id, TIME_HEADER: time_text(nominal), **schedule.headers}
    return Task(
        id=task_id(schedule.id, nominal, run),
        name=schedule.task,
        payload=schedule.payload,
        content_type=schedule.content_type,
        enqueued_at=now_ms,
        expires_at=None if schedule.expires_ms is None else now_ms + schedule.expires_ms,
        deadline=None if schedule.deadline_ms is None else now_ms + schedule.deadline_ms,
        timeout_ms=schedule.timeout_ms,
        max_attempts=schedule.max_attempts,
        lock_key=schedule.lock_key,
        headers=headers,
    )


class Firing:
    """Makes the records of one transaction."""

    def __init__(self, prefix: str, who: str, codec: Codec, routes: Routes, clock: Clock) -> None:
        """`who` is named in the states."""
        self._state_topic = schedule_state_topic(prefix)
        self._who = who
        self._codec = codec
        self._routes = routes
        self._clock = clock

    def fire(self, entry: Entry, seen: Look, p: int, now_ms: int) -> Fired:
        """What `seen` means for a schedule of partition `p`. Raises TaskmillError: not now."""
        schedule = entry.schedule
        messages: list[dict[str, Any]] = []
        if seen.fire:
            route = self._routes.get(schedule.queue, Deadline(_ROUTE_S, self._clock))
        for nominal in seen.fire:
            task = run_task(schedule, nominal, now_ms)
            key = task.id.encode()
            place = partition_for(key, route.partitions)
            messages.append(
                {
                    "topic": route.topic,
                    "key": key,
                    "value": self._codec.encode_task(task),
                    "partition": place,
                    "headers": route.headers[place],
                }
            )
        told: dict[str, Any] = {"written_at": now_ms, "scheduler": self._who}
        if seen.fire:
            told |= {
                "last_nominal": nominal,
                "last_task_id": task.id,
                "last_queue": schedule.queue,
                "fired_at": now_ms,
            }
        state = seen.state._replace(**told)
        value = self._codec.encode_schedule_state(state)
        messages.append(self._state(schedule.id.encode(), value, p))
        return Fired(entry, seen, state, messages)

    def removal(self, key: bytes, p: int) -> dict[str, Any]:
        """What removes the state of a schedule that is no more."""
        return self._state(key, None, p)

    def forget(self, queue: str) -> None:
        """Perhaps a queue has other partitions than it had."""
        self._routes.forget(queue)

    def _state(self, key: bytes, value: bytes | None, p: int) -> dict[str, Any]:
        return {"topic": self._state_topic, "key": key, "value": value, "partition": p}


def with_traces(fired: Fired) -> Fired:
    """`fired` as it is to be written now: each run begins a trace of its own. What is made ahead of
    its time has none yet, since not all of it is used."""
    if live_tracing() is None:
        return fired
    schedule = fired.entry.schedule
    runs = fired.messages[: len(fired.seen.fire)]
    traced = [{**one, "headers": [*one["headers"], *_trace(schedule, one)]} for one in runs]
    return fired._replace(messages=[*traced, *fired.messages[len(runs) :]])


def _trace(schedule: Schedule, message: dict[str, Any]) -> Headers:
    id = message["key"].decode()
    about = {"schedule": schedule.id}
    return created(id, schedule.task, schedule.queue, message["topic"], **about)
