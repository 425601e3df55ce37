"""What a handler that asks for it is told about its task and the attempt."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any


class Context:
    """The attempt a handler runs in: a parameter annotated `Context` receives it.

    `enqueued_at` is UTC milliseconds; `attempt` counts from 1; `headers` are those given at
    enqueue; `resources` is what the App's lifespan yielded in this process.
    """

    __slots__ = (
        "attempt",
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
    ) -> None:
        self.id = id
        self.name = name
        self.queue = queue
        self.generation = generation
        self.seq = seq
        self.attempt = attempt
        self.enqueued_at = enqueued_at
        self.headers: Mapping[str, str] = headers if headers is not None else {}
        self.resources = resources

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger named `taskmill.task.<name>`; records carry task_id, queue and attempt."""
        return logging.LoggerAdapter(
            logging.getLogger(f"taskmill.task.{self.name}"),
            {"task_id": self.id, "queue": self.queue, "attempt": self.attempt},
        )

    def __repr__(self) -> str:
        return (
            f"Context(id={self.id!r}, name={self.name!r}, queue={self.queue!r}, "
            f"generation={self.generation}, attempt={self.attempt})"
        )
