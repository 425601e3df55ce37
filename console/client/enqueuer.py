"""How an App's tasks get in where a console is its only way: by POST /tasks, not by Kafka."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeVar

from taskmill.console.api import models as m
from taskmill.console.client.calls import JSON_BODY
from taskmill.console.client.client import Client
from taskmill.console.client.failures import document, failure
from taskmill.console.client.wire import Answer, Operation, Request
from taskmill.producer.control import Ways
from taskmill.producer.definition import TaskCall
from taskmill.producer.encoding import TaskEncoder
from taskmill.producer.handle import Handle
from taskmill.producer.middleware import Hooks
from taskmill.producer.options import is_past
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ClosedError, ConfigError, EnqueueError, TaskmillError
from taskmill.schemas.codec import CODEC
from taskmill.schemas.json_form import iso
from taskmill.schemas.models import JSON, Task

logger = logging.getLogger("taskmill.producer")

T = TypeVar("T")

#: A batch is sent once it holds so many bytes; a console takes 16 MiB.
_BATCH_BYTES = 4 * 1024 * 1024


class _Sent(NamedTuple):
    """A call, its task as hooks left it, and its document."""

    call: TaskCall[Any]
    task: Task
    body: bytes


class ConsoleEnqueuer:
    """An App's way in by a console: what producer/enqueuer.py is by Kafka. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        hooks: Callable[[], Hooks],
        ways: Ways,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`settings` name a console. `hooks` is asked at each call; `ways`: of handles."""
        assert settings.api_url is not None, "the caller has looked"
        self._hooks, self._ways, self._clock = hooks, ways, clock
        # Encoded for its limit, as by Kafka; what is sent is the arguments' JSON.
        self._encode = TaskEncoder(CODEC, settings.max_task_bytes, hooks, clock).encode
        self._client = Client(
            settings.api_url, settings.api_token, timeout_s=settings.enqueue_timeout_s, clock=clock
        )
        self._closed = False

    def enqueue(self, call: TaskCall[T]) -> Handle[T]:
        """Send `call`; returns once the console has Kafka's acknowledgement.

        Raises InvalidInput, NotAllowed (nothing was sent), Unreachable, ClosedError.
        """
        sent = self._made(call)
        self._ask(Operation(_post("/tasks", sent.body), document(m.Enqueued)))
        return self._accepted(sent)

    async def aenqueue(self, call: TaskCall[T]) -> Handle[T]:
        """As `enqueue`, without blocking the event loop."""
        return await asyncio.to_thread(self.enqueue, call)

    def enqueue_many(self, calls: Iterable[TaskCall[T]]) -> list[Handle[T]]:
        """Send all of `calls` in batches; their handles, in order.

        All are checked before the first is sent. Raises InvalidInput and NotAllowed with nothing
        sent, and EnqueueError where some were accepted and some were not.
        """
        made = [self._made(call) for call in calls]
        failed: dict[int, TaskmillError] = {}
        accepted: dict[int, Handle[T]] = {}
        place = 0
        for batch in _batches(made):
            places = range(place, place + len(batch))
            place = places.stop
            try:
                wrong = self._send(batch)
            except TaskmillError as error:
                if not accepted and not failed:
                    raise
                failed.update(dict.fromkeys(range(places.start, len(made)), error))
                break
            failed.update({places[at]: error for at, error in wrong.items()})
            good = [(at, one) for at, one in zip(places, batch, strict=True) if at not in failed]
            accepted.update({at: self._accepted(one) for at, one in good})
        if failed:
            raise EnqueueError(failed, accepted, len(made))
        return list(accepted.values())

    def close(self) -> None:
        """Close its connections."""
        self._closed = True
        self._client.close()

    def _made(self, call: TaskCall[Any]) -> _Sent:
        call, task, _ = self._encode(call)
        return _Sent(call, task, _body(call, task))

    def _send(self, batch: list[_Sent]) -> dict[int, TaskmillError]:
        """What was not accepted, by its place in the batch."""
        body = b'{"mode":"all","tasks":[' + b",".join(one.body for one in batch) + b"]}"
        answer = self._ask(Operation(_post("/tasks:batch", body), document(m.BatchAnswer)))
        return {
            place: failure(_as_answer(one), self._client.address)
            for place, one in enumerate(answer.tasks)
            if one.problem is not None
        }

    def _ask(self, operation: Operation[T]) -> T:
        if self._closed:
            raise ClosedError("the App is closed; make a new one to go on")
        return self._client.send(operation)

    def _accepted(self, sent: _Sent) -> Handle[Any]:
        call, task, _ = sent
        if is_past(call, task.enqueued_at):
            logger.warning("task %s: %s is past, it runs at once", call.id, iso(call.start.at_ms))
        handle: Handle[Any] = Handle(call.id, call.queue, self._ways, call.definition, None)
        for hook in self._hooks().after_enqueue:
            hook(task, handle)
        return handle


def _post(path: str, body: bytes) -> Request:
    return Request("POST", path, body=body, headers=JSON_BODY)


def _body(call: TaskCall[Any], task: Task) -> bytes:
    """The document of a task. Its times go as durations, so that the console's clock counts."""
    if task.content_type != JSON or task.lock_key is not None:
        raise ConfigError(
            f"task {task.name!r}: what a hook made of it ({task.content_type!r}, lock "
            f"{task.lock_key!r}) does not go by a console; set TASKMILL_BOOTSTRAP_SERVERS"
        )
    start = max(task.enqueued_at, task.not_before or 0)
    since = partial(_duration, task.enqueued_at)
    said = {
        "name": task.name,
        "id": task.id,
        "queue": call.queue,
        "delay": since(task.not_before) if call.start.at_ms is None else None,
        "at": None if call.start.at_ms is None else iso(task.not_before),
        "timeout": _duration(0, task.timeout_ms),
        "expires": _duration(start, task.expires_at),
        "deadline": _duration(start, task.deadline),
        "max_attempts": task.max_attempts,
        "headers": task.headers or None,
    }
    head = {name: value for name, value in said.items() if value is not None}
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    return text[:-1] + b',"args":' + task.payload + b"}"


def _duration(since: int, until: int | None) -> str | None:
    return None if until is None else f"{max(0, until - since)}ms"


def _batches(made: list[_Sent]) -> Iterator[list[_Sent]]:
    batch: list[_Sent] = []
    size = 0
    for one in made:
        if batch and (size + len(one.body) > _BATCH_BYTES or len(batch) == m.MAX_BATCH):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += len(one.body)
    if batch:
        yield batch


def _as_answer(item: m.BatchItem) -> Answer:
    assert item.problem is not None
    return Answer(item.status, {}, item.problem.model_dump_json().encode())
