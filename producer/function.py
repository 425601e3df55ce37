"""What `@app.task` makes of a function: still callable, and with ways to enqueue it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, Unpack

from taskmill.producer.definition import NO_HEADERS, TaskCall, TaskDefinition
from taskmill.producer.handle import Handle
from taskmill.producer.ids import new_id
from taskmill.producer.options import CallOptions, Options

#: The function's own parameters and what calling it returns; the arguments without the Context,
#: and the result, a coroutine's awaited.
Call = ParamSpec("Call")
Returned = TypeVar("Returned")
Args = ParamSpec("Args")
Result = TypeVar("Result")
T = TypeVar("T")


class Sender(Protocol):
    """Whatever sends calls: the App's enqueuer in this process."""

    def enqueue(self, call: TaskCall[T]) -> Handle[T]: ...

    async def aenqueue(self, call: TaskCall[T]) -> Handle[T]: ...


class WayIn(Sender, Protocol):
    """How all that an App enqueues gets in: straight to Kafka, or by a console."""

    def enqueue_many(self, calls: Iterable[TaskCall[T]]) -> list[Handle[T]]: ...

    def close(self) -> None: ...


class TaskFunction(TaskDefinition, Generic[Call, Returned, Args, Result]):
    """A declared task. Calling it runs the function here and now; `enqueue` puts it on Kafka."""

    def __init__(
        self, fn: Callable[..., Any], sender: Callable[[], Sender], **options: Any
    ) -> None:
        super().__init__(fn, **options)
        self._sender = sender
        update_wrapper(self, fn)

    def __call__(self, *args: Call.args, **kwargs: Call.kwargs) -> Returned:
        return self.fn(*args, **kwargs)  # type: ignore[no-any-return]

    def call(self, *args: Args.args, **kwargs: Args.kwargs) -> TaskCall[Result]:
        """A call with these arguments, for `app.enqueue_many`. Raises InvalidArguments."""
        payload = self.dump_arguments(args, kwargs)
        made = new_id()
        return TaskCall(self.name, made, made.encode(), payload, self.queue, NO_HEADERS, True, self)

    def enqueue(self, *args: Args.args, **kwargs: Args.kwargs) -> Handle[Result]:
        """Put a call on Kafka; returns once the broker has acknowledged it.

        Raises InvalidArguments, PayloadTooLarge, Unreachable, ClosedError.
        """
        return self._sender().enqueue(self.call(*args, **kwargs))

    async def aenqueue(self, *args: Args.args, **kwargs: Args.kwargs) -> Handle[Result]:
        """As `enqueue`, for asyncio. Cancelled, the task may or may not have been accepted."""
        return await self._sender().aenqueue(self.call(*args, **kwargs))

    def options(self, **options: Unpack[CallOptions]) -> TaskOptions[Args, Result]:
        """This task with options for one call: `id`, `queue`, `headers`, `delay`, `at`, `timeout`,
        `expires`, `deadline`, `max_attempts`; see CallOptions.

        Raises InvalidTaskId, InvalidArguments for headers, ConfigError.
        """
        return TaskOptions(self, self._sender, Options.of(options, self.queue))


class TaskOptions(Generic[Args, Result]):
    """A task with its options for a call: `send.options(id="receipt:1").enqueue(order_id=1)`."""

    __slots__ = ("_definition", "_options", "_sender")

    def __init__(
        self, definition: TaskDefinition, sender: Callable[[], Sender], options: Options
    ) -> None:
        self._definition = definition
        self._sender = sender
        self._options = options

    def call(self, *args: Args.args, **kwargs: Args.kwargs) -> TaskCall[Result]:
        """A call with these arguments and options, for `app.enqueue_many`."""
        payload = self._definition.dump_arguments(args, kwargs)
        return self._options.call(self._definition.name, payload, self._definition)

    def enqueue(self, *args: Args.args, **kwargs: Args.kwargs) -> Handle[Result]:
        """Put it on Kafka; returns once the broker has acknowledged it."""
        return self._sender().enqueue(self.call(*args, **kwargs))

    async def aenqueue(self, *args: Args.args, **kwargs: Args.kwargs) -> Handle[Result]:
        """As `enqueue`, for asyncio."""
        return await self._sender().aenqueue(self.call(*args, **kwargs))

    def __repr__(self) -> str:
        return f"<{self._definition.name!r} with {self._options}>"
