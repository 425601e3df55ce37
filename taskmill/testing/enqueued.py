"""What was enqueued, as tests look at it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, to_jsonable_python

from taskmill.consumer.decode import headers_of
from taskmill.consumer.dlq import PREFIX
from taskmill.producer.definition import TaskDefinition
from taskmill.producer.routes import PARTITION_HEADER
from taskmill.producer.time_limits import Start
from taskmill.runtime.errors import DecodeError
from taskmill.runtime.topic_table import Kind, queue_of
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import Task
from taskmill.testing.broker import MemoryBroker


class Enqueued(NamedTuple):
    """A task as it was enqueued, by the test, by a handler or by a schedule. `args`: its arguments
    as they travel, JSON values by name."""

    queue: str
    task: Task
    args: dict[str, Any]

    @property
    def id(self) -> str:
        return self.task.id

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def at(self) -> datetime | None:
        """Before when it does not start (UTC); None: it may start at once."""
        if self.task.not_before is None:
            return None
        return datetime.fromtimestamp(self.task.not_before / 1000, UTC)

    def __repr__(self) -> str:
        told = f"{self.name} {self.args!r} id={self.id!r} queue={self.queue!r}"
        return told if self.at is None else f"{told} at={self.at.isoformat()}"


class Wanted(NamedTuple):
    """What a test expects of an enqueued task; None: whatever it is."""

    name: str
    args: Mapping[str, Any] | None
    id: str | None
    queue: str | None
    headers: Mapping[str, str] | None
    start: Start | None

    def takes(self, one: Enqueued, definition: TaskDefinition | None) -> bool:
        """Whether `one` is such a task."""
        task = one.task
        return (
            task.name == self.name
            and (self.id is None or task.id == self.id)
            and (self.queue is None or one.queue == self.queue)
            and (self.headers is None or self.headers.items() <= task.headers.items())
            and (self.start is None or self.start.not_before(task.enqueued_at) == task.not_before)
            and (self.args is None or _has(one, self.args, definition))
        )

    def __str__(self) -> str:
        said = {n: v for n, v in self._asdict().items() if n not in ("name", "args", "start")}
        told = [f"{name}={value!r}" for name, value in said.items() if value is not None]
        if self.start is not None:
            at = self.start.at_ms
            told.append(
                f"delay={(self.start.delay_ms or 0) / 1000:g}s"
                if at is None
                else f"at={datetime.fromtimestamp(at / 1000, UTC).isoformat()}"
            )
        args = [] if self.args is None else [repr(dict(self.args))]
        return " ".join([self.name, *args, *told])


def enqueued(broker: MemoryBroker, codec: Codec, prefix: str) -> Iterator[Enqueued]:
    """All that was enqueued, queue by queue, in order; not what came back from a wait."""
    for topic in broker.topics():
        queue = queue_of(topic, Kind.TASKS, prefix)
        for message in broker.log(topic) if queue is not None else ():
            if any(_is_handed_over(name) for name, _ in headers_of(message) or ()):
                continue
            try:
                task = codec.decode_task(message.value())
            except DecodeError:
                continue
            yield Enqueued(queue or "", task, _arguments(task))


def _is_handed_over(header: str) -> bool:
    """Whatever the platform hands over to itself says so in a header of its own."""
    return header.startswith(PREFIX) and header != PARTITION_HEADER


def _arguments(task: Task) -> dict[str, Any]:
    try:
        found = json.loads(task.payload or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _has(one: Enqueued, args: Mapping[str, Any], definition: TaskDefinition | None) -> bool:
    """Whether `args` are among the arguments of `one`: as JSON, or as its handler will get them."""
    try:
        as_json = {name: to_jsonable_python(value) for name, value in args.items()}
        if as_json.items() <= one.args.items():
            return True
    except PydanticSerializationError:
        pass
    if definition is None:
        return False
    try:
        loaded = definition.load(one.task.payload)
    except Exception:  # what cannot be validated is not equal either
        return False
    return all(name in loaded and loaded[name] == value for name, value in args.items())
