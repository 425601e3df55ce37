"""A declared task: its function, its options, and how its arguments and result travel."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from taskmill.producer.arguments import Arguments
from taskmill.producer.results import Results
from taskmill.producer.retry import ONCE, Retry
from taskmill.producer.time_limits import AT_ONCE, NO_LIMITS, Start, TimeLimits, time_limits
from taskmill.runtime.config import check_queue
from taskmill.runtime.duration import FORM, parse_duration
from taskmill.runtime.errors import ConfigError
from taskmill.schemas.models import MAX_NAME_BYTES

R_co = TypeVar("R_co", covariant=True)

DEFAULT_QUEUE = "default"

Isolation = Literal["process"]
#: How often a handler may start. "at_most_once": never again once it may have begun.
Promise = Literal["at_least_once", "at_most_once"]
#: Where the outside effects of a handler go, all of them, if they are to happen exactly once.
Effects = Literal["postgresql"]


class TaskDefinition:
    """What a worker needs to know of a task; what an enqueuer does with it is a TaskFunction's.

    `fn` is the function itself, `is_async` whether it is an `async def`, `context_parameter` the
    name of the parameter that takes the Context, if one does.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str = DEFAULT_QUEUE,
        aliases: Iterable[str] = (),
        isolate: Isolation | None = None,
        delivery: Promise = "at_least_once",
        effects: Effects | None = None,
        store_result: bool = True,
        result_ttl: str | None = None,
        timeout: str | None = None,
        expires: str | None = None,
        deadline: str | None = None,
        retry: Retry | None = None,
        default_retry: Retry = Retry(),  # noqa: B008  (a value)
        scope: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises ConfigError for a function or an option that cannot be a task's."""
        self.name = check_name(name if name is not None else _name_of(fn))
        if not inspect.isroutine(fn):
            raise ConfigError(f"task {self.name!r}: a task is a function, def or async def")
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise ConfigError(f"task {self.name!r}: a function that yields cannot be a task")
        if isinstance(aliases, str):
            raise ConfigError(f"task {self.name!r}: aliases is a tuple of names, not one string")
        if isolate not in (None, "process"):
            raise ConfigError(f'task {self.name!r}: isolate={isolate!r}; allowed: None, "process"')
        self.fn = fn
        self.queue = check_queue(queue)
        self.aliases = tuple(map(check_name, aliases))
        self.isolate: Isolation | None = isolate
        if delivery not in ("at_least_once", "at_most_once"):
            raise ConfigError(
                f"task {self.name!r}: delivery={delivery!r:.40}; "
                'allowed: "at_least_once", "at_most_once"'
            )
        self.delivery: Promise = delivery
        if not isinstance(store_result, bool):
            raise ConfigError(
                f"task {self.name!r}: store_result={store_result!r:.40}; allowed: True, False"
            )
        #: How long its result is kept, in milliseconds; None: as long as its state.
        self.result_ttl_ms = _ttl_ms(self.name, result_ttl, store_result)
        self.limits: TimeLimits = time_limits(f"task {self.name!r}: ", timeout, expires, deadline)
        self.retry = _check_retry(self, retry, default_retry)
        self.is_async = inspect.iscoroutinefunction(fn)
        arguments = Arguments(self.name, fn, scope)
        results = Results(self.name, arguments.returns if store_result else None)
        self.argument_names = arguments.names
        self.context_parameter = arguments.context_parameter
        self.effects: Effects | None = _check_effects(self, effects)
        # Bound here: one look-up less for each task that passes.
        self.dump_arguments = arguments.dump
        self.load = arguments.load
        #: To the bytes of a result; None where it is not to be stored.
        self.dump_result: Callable[[Any], bytes | None] = results.dump if store_result else _drop
        self.load_result = results.load

    def __repr__(self) -> str:
        return f"<task {self.name!r} of queue {self.queue!r}>"


class TaskCall(NamedTuple, Generic[R_co]):
    """One call of a task, validated and not yet sent: what `enqueue_many` takes.

    `is_generated` tells an ID made here, which no earlier task can have, from a given one.
    """

    name: str
    id: str
    key: bytes
    payload: bytes
    queue: str
    headers: dict[str, str]
    is_generated: bool
    definition: TaskDefinition | None
    limits: TimeLimits = NO_LIMITS
    max_attempts: int | None = None
    start: Start = AT_ONCE


#: Shared by all calls without headers; never changed.
NO_HEADERS: dict[str, str] = {}


def check_name(name: str) -> str:
    """`name` if it may be a task's, else ConfigError."""
    if isinstance(name, str) and name.isprintable():
        size = len(name.encode("utf-8", "surrogatepass"))
        if 1 <= size <= MAX_NAME_BYTES:
            return name
    raise ConfigError(
        f"task name {name!r:.100}: allowed are 1 to {MAX_NAME_BYTES} bytes of printable text"
    )


def _check_effects(task: TaskDefinition, effects: Effects | None) -> Effects | None:
    """`effects` if `task` may have them, else ConfigError."""
    if effects is None:
        return None
    if effects != "postgresql":
        raise ConfigError(
            f'task {task.name!r}: effects={effects!r:.40}; allowed: None, "postgresql"'
        )
    if task.isolate is not None:
        raise ConfigError(
            f"task {task.name!r}: effects={effects!r} with isolate={task.isolate!r}: the worker "
            "commits the transaction and its outcome together, and cannot for another process"
        )
    if task.delivery == "at_most_once":
        raise ConfigError(
            f"task {task.name!r}: effects={effects!r} with delivery={task.delivery!r}: what a "
            "crash has undone would not be done again; leave out the delivery"
        )
    if task.context_parameter is None:
        raise ConfigError(
            f"task {task.name!r}: effects={effects!r} needs a parameter annotated Context: the "
            "transaction is that of ctx.connection"
        )
    return effects


def _check_retry(task: TaskDefinition, retry: Retry | None, default: Retry) -> Retry:
    """The policy of `task`, else ConfigError."""
    for one in (retry, default):
        if one is not None and not isinstance(one, Retry):
            raise ConfigError(f"task {task.name!r}: retry={one!r:.60}; allowed: a Retry, or None")
    if task.delivery != "at_most_once":
        return default if retry is None else retry
    if retry is not None and retry.max_attempts > 1:
        raise ConfigError(
            f"task {task.name!r}: retry with delivery={task.delivery!r}: it never starts again "
            "once it may have begun; leave one of them out"
        )
    return ONCE


def _drop(value: Any) -> None:
    """What becomes of the result of a task declared store_result=False."""


def _ttl_ms(task: str, ttl: str | None, store_result: bool) -> int | None:
    if ttl is None:
        return None
    if not store_result:
        raise ConfigError(f"task {task!r}: result_ttl={ttl!r} with store_result=False: give one")
    if not isinstance(ttl, str):
        raise ConfigError(f"task {task!r}: result_ttl={ttl!r:.40}: expected {FORM}")
    try:
        milliseconds = int(parse_duration(ttl) * 1000)
    except ConfigError as error:
        raise ConfigError(f"task {task!r}: result_ttl: {error}") from None
    if not milliseconds:
        raise ConfigError(
            f"task {task!r}: result_ttl={ttl!r} keeps nothing; store_result=False says so"
        )
    return milliseconds


def _name_of(fn: Callable[..., Any]) -> str:
    name = getattr(fn, "__name__", None)
    if name is None or name == "<lambda>":
        raise ConfigError(f"{fn!r:.100} has no name of its own: give it one, @app.task(name=…)")
    return str(name)
