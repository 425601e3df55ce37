"""From a call to the bytes that go to Kafka: hooks, codec, limit, in that order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskmill.producer.definition import TaskCall
from taskmill.producer.middleware import Hooks
from taskmill.producer.time_limits import AT_ONCE, NO_LIMITS, TimeLimits
from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import ConfigError, PayloadTooLarge
from taskmill.schemas.codec import Codec, check_id
from taskmill.schemas.models import JSON, Task

#: The call (under the ID that a hook gave it, if one did), its task, and the task's bytes. A plain
#: tuple, taken apart at once: what a batch keeps of it are the bytes, which the garbage collector
#: need not walk (a tracked object more for each task cost a microsecond of collections).
Encoded = tuple[TaskCall[Any], Task, bytes]


class TaskEncoder:
    """Encodes calls. Thread-safe."""

    def __init__(
        self, codec: Codec, max_task_bytes: int, hooks: Callable[[], Hooks], clock: Clock
    ) -> None:
        self._encode = codec.encode_task
        self._max_task_bytes = max_task_bytes
        self._hooks = hooks
        self._now_ms = clock.now_ms

    def encode(self, call: TaskCall[Any], parent_id: str | None = None) -> Encoded:
        """Raises PayloadTooLarge, InvalidInput for what a hook made of it, and a hook's errors."""
        task = Task(call.id, call.name, call.payload, JSON, self._now_ms())
        if call.headers or parent_id is not None:
            task = task._replace(headers=call.headers, parent_id=parent_id)
        if call.start is not AT_ONCE:
            task = task._replace(not_before=call.start.not_before(task.enqueued_at))
        if call.limits is not NO_LIMITS:
            task = _limited(task, call.limits)
        if call.max_attempts is not None:
            task = task._replace(max_attempts=call.max_attempts)
        for hook in self._hooks().before_enqueue:
            task = _changed(hook, task)
        if task.id != call.id:
            call = call._replace(id=task.id, key=check_id(task.id), is_generated=False)
        value = self._encode(task)
        if len(value) > self._max_task_bytes:
            raise PayloadTooLarge(
                f"task {task.name!r} is {len(value)} bytes encoded; the limit is "
                f"{self._max_task_bytes} (TASKMILL_MAX_TASK_BYTES)"
            )
        return call, task, value


def _limited(task: Task, limits: TimeLimits) -> Task:
    start = max(task.enqueued_at, task.not_before or 0)
    return task._replace(
        timeout_ms=limits.timeout_ms,
        expires_at=None if limits.expires_ms is None else start + limits.expires_ms,
        deadline=None if limits.deadline_ms is None else start + limits.deadline_ms,
    )


def _changed(hook: Callable[[Task], Task | None], task: Task) -> Task:
    other = hook(task)
    if other is None:
        return task
    if not isinstance(other, Task):
        raise ConfigError(f"{hook!r:.100} returned {other!r:.100}; allowed: a Task or None")
    return other
