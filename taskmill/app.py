"""The App: tasks are declared on it, enqueued through it, and run by workers that load it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar, Unpack

from taskmill.producer.context import Encode
from taskmill.producer.control import ControlSender, Ways
from taskmill.producer.counting import EnqueuedCount
from taskmill.producer.declare import Declare
from taskmill.producer.definition import DEFAULT_QUEUE, TaskCall, TaskDefinition
from taskmill.producer.encoding import TaskEncoder
from taskmill.producer.enqueuer import Enqueuer
from taskmill.producer.function import WayIn
from taskmill.producer.handle import Handle, foreign_since
from taskmill.producer.lifespan import Lifespan, LifespanFunction, as_lifespan, no_lifespan
from taskmill.producer.middleware import Hooks, Middleware, as_middleware
from taskmill.producer.options import CallOptions, Options
from taskmill.producer.process import PerProcess
from taskmill.producer.reader import StateReader
from taskmill.producer.reads import Orders, Reads
from taskmill.producer.registry import Registry
from taskmill.producer.retry import Retry
from taskmill.producer.undeclared import dump_undeclared
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import NAME, Settings, check_queue, load_settings
from taskmill.runtime.errors import ConfigError
from taskmill.schemas.codec import CODEC, Codec, check_id
from taskmill.schemas.older import FirstStates

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from taskmill.runtime.meter import Meter
    from taskmill.scheduler.declared import Declared

R = TypeVar("R")
F = TypeVar("F", bound=LifespanFunction)


class _Parts:
    """What the App's clients are made from. Knows nothing of the App, which can be dropped."""

    def __init__(self, settings: Settings | None, overrides: dict[str, Any], clock: Clock) -> None:
        self._given = settings
        self._overrides = overrides
        self.clock = clock
        self.hooks = Hooks()
        self.enqueued = EnqueuedCount()
        #: In a worker, which has a Kafka, whether or not a setting names it.
        self.is_at_work = False

    @cached_property
    def settings(self) -> Settings:
        if self._given is None:
            return load_settings(**self._overrides)
        if not self._overrides:
            return self._given
        return load_settings(**{**self._given.model_dump(), **self._overrides})

    @cached_property
    def codec(self) -> Codec:
        url = self.settings.schema_registry_url
        if url:
            # With the registry's help every version reads every other.
            return Codec(url)
        return FirstStates() if self.settings.oldest_worker == "0.1" else CODEC

    @cached_property
    def encoder(self) -> TaskEncoder:
        limit = self.settings.max_task_bytes
        return TaskEncoder(self.codec, limit, lambda: self.hooks, self.clock)

    def close(self) -> None:
        if "codec" in self.__dict__ and self.codec is not CODEC:
            self.codec.close()

    def reader(self) -> Reads:
        settings = self.settings
        if settings.api_url is None:
            return StateReader(settings, self.codec, self.clock)
        # Its HTTP client is imported by those who ask a console.
        from taskmill.console.client.handles import ConsoleReads

        return ConsoleReads(settings.api_url, settings.api_token, self.clock)

    def sender(self, name: str) -> Orders:
        settings = self.settings
        by_kafka: Callable[[], Orders]
        by_kafka = partial(ControlSender, settings, name, self.codec, self.clock)
        if settings.api_url is None:
            return by_kafka()
        if settings.is_by_console and not self.is_at_work:
            by_kafka = partial(_refuse, "reschedule")
        from taskmill.console.client.handles import ConsoleOrders

        return ConsoleOrders(settings.api_url, settings.api_token, by_kafka, self.clock)

    def enqueuer(self, name: str, ways: Ways) -> WayIn:
        settings, hooks, clock = self.settings, (lambda: self.hooks), self.clock
        if settings.is_by_console and not self.is_at_work:
            from taskmill.console.client.enqueuer import ConsoleEnqueuer

            return ConsoleEnqueuer(settings, hooks, ways, clock)
        return Enqueuer(settings, name, self.codec, hooks, ways, clock, self.enqueued)


def _refuse(what: str) -> NoReturn:
    """For what a console has no route for: a Kafka that nobody named may be another one's."""
    raise ConfigError(
        f"{what} goes by Kafka, not by a console: set TASKMILL_BOOTSTRAP_SERVERS to the Kafka of "
        "that console"
    )


class App:
    """A set of tasks and their way to Kafka.

    Making one reads nothing and connects to nothing; the first use does. Safe to use from any
    thread, and after a fork (a child connects anew). Close it, or let it end with the process:
    whatever `enqueue` returned is acknowledged by then.
    """

    def __init__(
        self,
        name: str,
        settings: Settings | None = None,
        *,
        retry: Retry = Retry(),  # noqa: B008  (a value)
        clock: Clock = SYSTEM_CLOCK,
        **overrides: Any,
    ) -> None:
        """`name` tells this program from others in Kafka's logs; settings come from `settings`,
        else from TASKMILL_… and taskmill.toml, with `overrides` (`prefix="shop"`) over both.
        `retry` is the policy of its tasks that declare none.

        Raises ConfigError for a name; for settings at the first use.
        """
        if not NAME.match(name):
            raise ConfigError(f"App {name!r:.100}: a name is 1 to 100 letters, digits, '-' or '_'")
        self.name = name
        self._parts = parts = _Parts(settings, overrides, clock)
        self._middleware: list[Middleware] = []
        self._lifespan: Lifespan = no_lifespan
        owner = f"App {name!r}"
        self._reader = PerProcess(parts.reader, owner)
        self._sender = PerProcess(lambda: parts.sender(name), owner)
        self._ways = ways = Ways(self._reader.get, self._sender.get)
        self._enqueuer = PerProcess(lambda: parts.enqueuer(name, ways), owner)
        #: Declared tasks, by name and alias.
        self.tasks = Registry()
        #: The decorator that declares one: `@app.task`, `@app.task(queue="mail")`.
        self.task = Declare(self.tasks, self._enqueuer.get, {"default_retry": retry})
        #: Declared schedules, by ID.
        self.schedules: dict[str, Declared] = {}

    # ---- what it is made of ------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The effective settings. Raises ConfigError, one line, for a bad one."""
        return self._parts.settings

    @property
    def codec(self) -> Codec:
        """What encodes and decodes records under these settings."""
        return self._parts.codec

    @property
    def encode(self) -> Encode:
        """What makes a call into the task that goes to Kafka, and its bytes."""
        return self._parts.encoder.encode

    def use(self, middleware: Middleware | type[Middleware]) -> None:
        """Add hooks before and after what happens to tasks: an object of Middleware, or a class."""
        self._middleware.append(as_middleware(middleware))
        self._parts.hooks = Hooks(self._middleware)

    @property
    def hooks(self) -> Hooks:
        """The hooks of all middleware in use."""
        return self._parts.hooks

    @property
    def metrics(self) -> Collector:
        """What this process enqueues through this App, for its own Prometheus registry:
        `prometheus_client.REGISTRY.register(app.metrics)`. In a worker it is on the worker's page.
        """
        from taskmill.runtime.metric_page import Page

        return Page(self._parts.enqueued.read)

    def count_into(self, meter: Meter) -> None:
        """Have what is enqueued counted in a worker's meter, and sent to the worker's Kafka."""
        self._parts.enqueued.use(meter)
        self._parts.is_at_work = True

    def lifespan(self, fn: F) -> F:
        """Declare what is set up once a process, before its tasks: a function that yields once.

        What it yields is `Context.resources`; what follows the yield tears down.
        """
        if self._lifespan is not no_lifespan:
            raise ConfigError(f"App {self.name!r} has a lifespan already; let one call the other")
        self._lifespan = as_lifespan(fn)
        return fn

    def schedule(
        self,
        id: str,
        task: TaskDefinition | str,
        *,
        cron: str | None = None,
        every: str | None = None,
        tz: str | None = None,
        args: Mapping[str, Any] | None = None,
        queue: str | None = None,
        misfire: Literal["skip", "fire_once", "fire_all"] | None = None,
        misfire_max: int | None = None,
        catch_up: str | None = None,
        overlap: Literal["skip", "queue", "allow"] | None = None,
        jitter: str | None = None,
        start: str | datetime | None = None,
        end: str | datetime | None = None,
        max_runs: int | None = None,
        timeout: str | None = None,
        expires: str | None = None,
        deadline: str | None = None,
        max_attempts: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Have `task` (a declared one, or its name) enqueued by the clock, with `args` by name.

        `cron`: five fields, or six of which the last is seconds, or `@hourly` and the like, by the
        clock of `tz` (an IANA zone; UTC). Or `every="5m"`, from `start` on, else from the epoch.
        `misfire`, `catch_up`: what becomes of times reached more than a minute late (`fire_once`,
        `1d`); `overlap`: what becomes of one while the last run goes on (`skip`). `jitter`: each is
        put off by up to so much. `start`, `end`: ISO 8601, or a datetime, by the clock of `tz`
        where it does not say. More in docs/schedules.md; for others see `TaskFunction.options`.

        `taskmill scheduler -A` puts it on Kafka when it starts, and removes it from there once it
        is no longer declared. Raises ConfigError, UnknownTask, InvalidArguments: one line.
        """
        given = dict(locals())
        # croniter is imported by those who need it.
        from taskmill.scheduler.declared import OPTIONS, Declared, add_declared

        said = {name: value for name, value in given.items() if name in OPTIONS}
        if headers is not None:
            said["headers"] = dict(headers)
        definition = self.tasks[task] if isinstance(task, str) else task
        add_declared(self.schedules, Declared.of(id, definition, args or {}, said))

    @property
    def resources(self) -> Lifespan:
        """The lifespan as an async context manager: `async with app.resources() as resources`."""
        return self._lifespan

    # ---- enqueueing --------------------------------------------------------------------------

    def call(
        self,
        name: str,
        args: Mapping[str, Any],
        *,
        declared: bool = True,
        **options: Unpack[CallOptions],
    ) -> TaskCall[Any]:
        """A call of the task `name` with arguments by name, for `enqueue_many`.

        `declared=False` is for a task that another program declares: its arguments are then not
        validated here, and its queue is `default` unless given. Other options: see CallOptions.
        Raises UnknownTask, InvalidArguments, InvalidTaskId, ConfigError.
        """
        if name in self.tasks or declared:
            definition = self.tasks[name]
            payload = definition.dump_arguments((), dict(args))
            checked = Options.of(options, definition.queue)
            return checked.call(definition.name, payload, definition)
        checked = Options.of(options, DEFAULT_QUEUE)
        return checked.call(name, dump_undeclared(name, args), None)

    def enqueue(
        self,
        name: str,
        args: Mapping[str, Any],
        *,
        declared: bool = True,
        **options: Unpack[CallOptions],
    ) -> Handle[Any]:
        """Put a task on Kafka by its name; arguments as for `call`.

        Returns once the broker has acknowledged it. Raises what `call` does, PayloadTooLarge,
        Unreachable, ClosedError.
        """
        return self.enqueue_call(self.call(name, args, declared=declared, **options))

    def enqueue_call(self, call: TaskCall[R]) -> Handle[R]:
        """Put a call on Kafka that was made, and validated, before."""
        return self._enqueuer.get().enqueue(call)

    def enqueue_many(self, calls: Iterable[TaskCall[R]]) -> list[Handle[R]]:
        """Put many calls on Kafka, pipelined; their handles, in order, once all are acknowledged.

        All are checked before the first is sent, and held in memory: give it a list of a size you
        would make. Raises InvalidInput, Unreachable and ClosedError with nothing sent; EnqueueError
        where some were accepted and some were not.
        """
        return self._enqueuer.get().enqueue_many(calls)

    def handle(self, id: str, queue: str = DEFAULT_QUEUE) -> Handle[Any]:
        """A handle of a task enqueued elsewhere. Raises InvalidTaskId, ConfigError."""
        check_id(id)
        return Handle(id, check_queue(queue), self._ways, None, foreign_since(id))

    @contextmanager
    def replaced(
        self, enqueuer: WayIn, reader: StateReader, sender: ControlSender
    ) -> Iterator[None]:
        """Meanwhile all that goes to Kafka, or is read from there, goes by these: for a harness."""
        with (
            self._enqueuer.replaced(enqueuer),
            self._reader.replaced(reader),
            self._sender.replaced(sender),
        ):
            yield

    # ---- its end -----------------------------------------------------------------------------

    def close(self) -> None:
        """Deliver what is on its way (five seconds at the most) and close all connections.

        Every later use raises ClosedError.
        """
        self._enqueuer.close()
        self._sender.close()
        self._reader.close()
        self._parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<App {self.name!r}, {len(self.tasks)} tasks>"
