"""Middleware: hooks before and after what happens to a task, each with a word on when.

Subclass Middleware, override what you need, pass it to `app.use`. Hooks run in the order of use,
in the thread where the thing happens (an async handler's: on its event loop), so they are plain
functions and quick. Only overridden hooks are called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from taskmill.producer.context import Context
from taskmill.producer.handle import Handle
from taskmill.runtime.errors import ConfigError
from taskmill.schemas.models import Task


class Middleware:
    """Every hook does nothing here."""

    def before_enqueue(self, task: Task) -> Task | None:
        """Before a task is encoded. Return another to send it instead; raise to refuse it."""

    def after_enqueue(self, task: Task, handle: Handle[Any]) -> None:
        """After the broker acknowledged it, in the thread that enqueued."""

    def worker_started(self) -> None:
        """In each worker process, after the lifespan's start, before any task; not in the children
        that run `isolate="process"`."""

    def worker_stopping(self) -> None:
        """In each such process, after its last task, before the lifespan's end."""

    def before_run(self, context: Context, arguments: dict[str, Any]) -> None:
        """Before a handler starts; `arguments` are those it will get."""

    def after_run(self, context: Context, outcome: Any) -> None:
        """After a handler returned or raised; nothing is committed yet, it may yet run again.

        `outcome` has `status`, `result`, `failure` (with its `error`) and `duration` in seconds.
        """

    def after_commit(self, outcomes: Sequence[Any]) -> None:
        """After outcomes were committed to Kafka, many at once: now they are final."""


class Hooks:
    """The overridden hooks of some middleware, one tuple a name: empty where there are none."""

    def __init__(self, middleware: Sequence[Middleware] = ()) -> None:
        self._middleware = tuple(middleware)

        def of(name: str) -> tuple[Callable[..., Any], ...]:
            plain = getattr(Middleware, name)
            return tuple(
                getattr(one, name) for one in middleware if getattr(type(one), name) is not plain
            )

        self.before_enqueue = of("before_enqueue")
        self.after_enqueue = of("after_enqueue")
        self.worker_started = of("worker_started")
        self.worker_stopping = of("worker_stopping")
        self.before_run = of("before_run")
        self.after_run = of("after_run")
        self.after_commit = of("after_commit")
        #: Whether anything at all wants to know of runs, and so a Context for each.
        self.run = bool(self.before_run or self.after_run)

    def then(self, *more: Middleware) -> Hooks:
        """These hooks, and after them those of `more`."""
        return Hooks((*self._middleware, *more))


def as_middleware(given: Middleware | type[Middleware]) -> Middleware:
    """An instance of `given`, a Middleware or a class of one without arguments."""
    one = given() if isinstance(given, type) else given
    if not isinstance(one, Middleware):
        raise ConfigError(f"app.use takes a Middleware, an object or its class, not {given!r:.100}")
    return one
