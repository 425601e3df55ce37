"""What a handler that asks for it is told about its task and the attempt, and may do within it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from taskmill.producer.tracing import created, sibling
from taskmill.runtime.errors import ConfigError, InvalidResult, PayloadTooLarge
from taskmill.runtime.tracing import Headers, tracing
from taskmill.schemas.models import Task

if TYPE_CHECKING:  # a definition looks for parameters that take a Context
    from taskmill.producer.definition import TaskCall

#: What `save` keeps lies in the task's state record, whose topic every restore reads.
MAX_SAVED_BYTES = 16 * 1024


class Encode(Protocol):
    """TaskEncoder.encode."""

    def __call__(
        self, call: TaskCall[Any], parent_id: str | None = None
    ) -> tuple[TaskCall[Any], Task, bytes]: ...


class Context:
    """The attempt a handler runs in: a parameter annotated `Context` receives it.

    `enqueued_at` is UTC milliseconds, as is `deadline`, when this attempt's time is over (its
    timeout, or the task's deadline), or None; `attempt` counts from 1; `headers` are those given at
    enqueue; `resources` is what the App's lifespan yielded in this process.
    """

    __slots__ = (
        "_connection",
        "_encode",
        "_is_over",
        "_keep",
        "_saved",
        "_topic",
        "attempt",
        "children",
        "deadline",
        "enqueued_at",
        "generation",
        "headers",
        "id",
        "name",
        "queue",
        "resources",
        "seq",
    )

    def __init__(
        self,
        id: str,
        name: str,
        queue: str,
        generation: int = 0,
        seq: int = 0,
        attempt: int = 1,
        enqueued_at: int = 0,
        headers: Mapping[str, str] | None = None,
        resources: Any = None,
        *,
        deadline: int | None = None,
        cancelled: Callable[[], bool] = bool,
        saved: bytes | None = None,
        keep: Callable[[bytes], None] | None = None,
        encode: Encode | None = None,
        topic: str = "",
    ) -> None:
        """`saved`: what an earlier attempt kept; `keep` and `encode`: what `save` and `enqueue`
        hand on to, where there is somebody to take it; `topic`: where the task came from."""
        self._topic = topic
        self._saved = saved
        self._keep = keep
        self._encode = encode
        #: What `enqueue` was given, as queue, key, value, name and headers of each.
        self.children: list[tuple[str, bytes, bytes, str, Headers]] = []
        self.id = id
        self.name = name
        self.queue = queue
        self.generation = generation
        self.seq = seq
        self.attempt = attempt
        self.enqueued_at = enqueued_at
        self.headers: Mapping[str, str] = headers if headers is not None else {}
        self.resources = resources
        self.deadline = deadline
        self._is_over = cancelled
        self._connection: Any = None

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger named `taskmill.task.<name>`; records carry task_id, task, queue, attempt."""
        told = {"task_id": self.id, "task": self.name}
        return logging.LoggerAdapter(
            logging.getLogger(f"taskmill.task.{self.name}"),
            {**told, "queue": self.queue, "attempt": self.attempt},
        )

    @property
    def cancelled(self) -> bool:
        """Whether to stop: this attempt's time is over, its task was cancelled, or another worker
        has its partition. For what runs where it cannot be interrupted (C code, a lock) and asks
        now and then."""
        return self._is_over()

    @property
    def connection(self) -> Any:
        """The PostgreSQL transaction of a task declared `effects="postgresql"`, while it runs.

        A psycopg.AsyncConnection for an async def, a psycopg.Connection for a def. The worker
        commits it together with the task's outcome, or rolls it back where the handler raises.
        """
        if self._connection is None:
            raise AttributeError(
                f"task {self.name!r}: ctx.connection is there while the handler runs, of a task "
                'declared @app.task(effects="postgresql")'
            )
        return self._connection

    def connect(self, connection: Any) -> None:
        """The worker's: lend the handler `connection`; None takes it back."""
        self._connection = connection

    @property
    def saved(self) -> Any:
        """What `save` was given last, by this attempt or one before it; None: nothing yet."""
        return None if self._saved is None else json.loads(self._saved)

    def save(self, state: Any) -> None:
        """Keep `state`, a JSON value, for the next attempt: `saved` is it then.

        It is committed to Kafka with the worker's next transaction, within some 50 ms, and
        survives retries, crashes and moves to another worker from then on; each `save` replaces
        the one before. Never blocks. Raises InvalidResult for what is no JSON, PayloadTooLarge
        over 16 KiB: keep such a thing elsewhere, and save where.
        """
        try:
            data = json.dumps(state, allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidResult(f"ctx.save of task {self.name!r}: no JSON value: {error}") from None
        if len(data) > MAX_SAVED_BYTES:
            raise PayloadTooLarge(
                f"ctx.save of task {self.name!r}: {len(data)} bytes; the limit is {MAX_SAVED_BYTES}"
            )
        self._saved = data
        if self._keep is not None:
            self._keep(data)

    def enqueue(self, *calls: TaskCall[Any]) -> None:
        """Enqueue tasks with this attempt: they are sent in the transaction that commits its
        success, all of them, and not at all where it fails or is run by another worker instead.

        `ctx.enqueue(send_receipt.call(order_id=1))`; the call's `id` is the task's. Raises
        InvalidInput as any other enqueue does, and ConfigError where this Context belongs to no
        worker.
        """
        if self._encode is None:
            raise ConfigError("ctx.enqueue needs the Context that a worker gave")
        for given in calls:
            call, _, value = self._encode(given, self.id)
            headers: Headers = []
            if tracing() is not None:
                topic = sibling(self._topic, self.queue, call.queue)
                headers = created(call.id, call.name, call.queue, topic)
            self.children.append((call.queue, call.key, value, call.name, headers))

    def __repr__(self) -> str:
        return (
            f"Context(id={self.id!r}, name={self.name!r}, queue={self.queue!r}, "
            f"generation={self.generation}, attempt={self.attempt})"
        )
