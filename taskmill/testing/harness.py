"""The harness: an App at work without Kafka, for its users' own tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from taskmill.app import App
from taskmill.consumer.letters import Letter
from taskmill.producer.control import Ways
from taskmill.producer.encoding import TaskEncoder
from taskmill.producer.handle import Handle
from taskmill.producer.time_limits import moment_ms
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.duration import FORM, parse_duration
from taskmill.runtime.errors import ConfigError, InvalidInput, ResultTimeout
from taskmill.runtime.topic_table import Kind, queue_of
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import TaskState
from taskmill.schemas.states import is_terminal
from taskmill.testing.broker import MemoryBroker
from taskmill.testing.clock import VirtualClock
from taskmill.testing.loop import VirtualLoop
from taskmill.testing.mill import FOREVER, Mill
from taskmill.testing.reading import End, MemoryReader
from taskmill.testing.sending import MemoryEnqueuer, MemorySender
from taskmill.testing.view import View

#: Who waits for a result looks so often whether somebody else is still at work (seconds).
_LOOK_S = 0.005


class Harness(View):
    """Runs an App's tasks in memory, when the test says so, on a clock that the test moves.

        with Harness(app) as mill:
            handle = send_receipt.enqueue(order_id=1, email="a@b.c")
            mill.drain()
            assert handle.result() == "sent"

    While it is entered, all that the App enqueues goes to it, and its handles ask it. `async with`
    runs async handlers on the loop that is running; then `adrain` and `aadvance` take the places of
    `drain` and `advance`. For one thread, and to be entered once.
    """

    def __init__(
        self,
        app: App,
        *,
        now: datetime | str | None = None,
        queues: Iterable[str] | None = None,
        schedules: bool = True,
    ) -> None:
        """`now`: what time it is at first, a datetime with a zone or ISO 8601 text; the machine's
        time by default. `queues`: those that are worked on, as by `taskmill worker -q`; by default
        all that the App's tasks lie on. `schedules`: whether `app.schedule(…)` is heeded.

        Raises ConfigError.
        """
        self._app = app
        start_ms = SYSTEM_CLOCK.now_ms() if now is None else moment_ms("now", now)
        #: The virtual clock. `mill.clock.sleep(seconds)` lets time pass inside a function.
        self.clock = VirtualClock(start_ms)
        self._queues = None if queues is None else tuple(queues)
        self._with_schedules = schedules
        self._stack = ExitStack()
        self._own_loop: VirtualLoop | None = None
        self._lifespan: AbstractAsyncContextManager[Any] | None = None
        self._is_driving = False
        self._helpers: set[asyncio.Task[None]] = set()

    # ---- its life -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if _loop_runs():
            raise ConfigError("a loop is running here: `async with Harness(app) as mill`")
        self._open()
        self._own_loop = VirtualLoop(self.clock)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        loop = self._own_loop
        assert loop is not None, "entered"
        try:
            loop.run_until_complete(self._end())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
            self._stack.close()

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._end()
        finally:
            self._stack.close()

    def _open(self) -> None:
        if self._mill is not None:
            raise ConfigError("this Harness was entered before; make a new one")
        app, clock = self._app, self.clock
        # Nothing of it is asked of the network.
        self._settings = settings = app.settings.model_copy(
            update={
                "bootstrap_servers": "memory:0",
                "schema_registry_url": None,
                "partitions": 1,
            }
        )
        self._broker = broker = MemoryBroker(clock)
        reader = MemoryReader(broker, settings, CODEC, clock, self._drive_for, self._waited)
        sender = MemorySender(broker, settings, app.name, CODEC, clock)
        ways = Ways(lambda: reader, lambda: sender)
        self._ways = ways
        hooks = lambda: app.hooks  # noqa: E731
        enqueuer = MemoryEnqueuer(broker, settings, app.name, CODEC, hooks, ways, clock)
        encode = TaskEncoder(CODEC, settings.max_task_bytes, hooks, clock).encode
        self._mill = mill = Mill(app, settings, CODEC, broker, encode, clock, self._queues)
        if self._with_schedules and app.schedules:
            mill.declare(app.name, app.schedules, reader)
        self._stack.enter_context(app.replaced(enqueuer, reader, sender))
        self._stack.callback(reader.close)

    async def _begin(self) -> Mill:
        """What comes before the first handler: the lifespan, as in a worker."""
        mill = self._working
        mill.jumps = 0
        mill.handlers.coroutines.use(asyncio.get_running_loop())
        if self._lifespan is None:
            self._lifespan = self._app.resources()
            mill.attempts.resources = await self._lifespan.__aenter__()
            mill.scopes.start(mill.attempts)
            for hook in mill.hooks.worker_started:
                hook()
        return mill

    async def _end(self) -> None:
        mill = self._working
        self._is_driving = True
        for helper in self._helpers:
            helper.cancel()
        if self._lifespan is not None:
            await mill.handlers.coroutines.end()
            for hook in mill.hooks.worker_stopping:
                hook()
            await self._lifespan.__aexit__(None, None, None)
        mill.timekeeper.stop()
        if mill.schedules is not None:
            mill.schedules.close()

    # ---- running ------------------------------------------------------------------------------

    def drain(self) -> list[TaskState]:
        """Run all that is due now, and what comes of it, to its end. The clock moves only where
        handlers wait. Returns the last states of the tasks that ended, in order.
        """
        return self._drive(None)

    def advance(self, by: str) -> list[TaskState]:
        """Let so much time pass ("5m"), and run what becomes due meanwhile, each at its time:
        retries, delayed tasks, schedules. A handler that waits longer goes on at the next call.
        Returns as `drain`. Raises ConfigError for no duration.
        """
        return self._drive(self.clock.now_ms() + _ms(by))

    async def adrain(self) -> list[TaskState]:
        """As `drain`, on the running loop, whose time handlers that wait wait for."""
        return await self._adrive(None)

    async def aadvance(self, by: str) -> list[TaskState]:
        """As `advance`, on the running loop, whose time handlers that wait wait for."""
        return await self._adrive(self.clock.now_ms() + _ms(by))

    def _drive(self, until_ms: int | None, stop: Callable[[], bool] = bool) -> list[TaskState]:
        self._working  # noqa: B018  (entered)
        loop = self._own_loop
        if loop is None or _loop_runs():
            raise ConfigError(
                "a loop is running here: `await mill.adrain()`, `await mill.aadvance(…)`"
            )
        with self._driving() as ended:
            mill = loop.run_until_complete(self._begin())
            while loop.run_until_complete(mill.turn(until_ms, stop, virtual=True)):
                mill.handlers.functions.call_next()
            mill.forget_old()
        return ended

    async def _adrive(
        self, until_ms: int | None, stop: Callable[[], bool] = bool
    ) -> list[TaskState]:
        with self._driving() as ended:
            mill = await self._begin()
            while await mill.turn(until_ms, stop, virtual=False):
                mill.handlers.functions.call_next()
            mill.forget_old()
        return ended

    @contextmanager
    def _driving(self) -> Iterator[list[TaskState]]:
        """Collects the states of what ends meanwhile."""
        self._working  # noqa: B018  (entered)
        if self._is_driving:
            raise ConfigError(
                "the harness is at work already: a handler cannot drain it, nor wait for a result "
                "but by `await handle.aresult()`"
            )
        ended: list[TaskState] = []

        def note(message: Any) -> None:
            if queue_of(message.topic(), Kind.STATE, self._settings.prefix) is not None:
                state = CODEC.decode_state(message.value())
                if is_terminal(state.status):
                    ended.append(state)

        self._is_driving = True
        self._broker.listeners.append(note)
        try:
            yield ended
        finally:
            self._broker.listeners.remove(note)
            self._is_driving = False

    # ---- who waits for a result ---------------------------------------------------------------

    def _drive_for(self, end: End, timeout: float | None) -> None:
        """Run tasks until `end` is there, for `timeout` virtual seconds at the most."""
        until = FOREVER if timeout is None else self.clock.now_ms() + round(timeout * 1000)
        self._drive(until, end.done)
        if not end.done():
            raise ResultTimeout(_not_ended(timeout))

    def _waited(self, end: End) -> None:
        """Somebody waits for `end`, in a loop perhaps: then nobody else has the tasks run."""
        if self._is_driving or not _loop_runs():
            return

        helper = asyncio.get_running_loop().create_task(self._help(end))
        self._helpers.add(helper)
        helper.add_done_callback(self._helpers.discard)

    async def _help(self, end: End) -> None:
        while self._is_driving and not end.done():
            await asyncio.sleep(_LOOK_S)
        if not end.done():
            await self._adrive(FOREVER, end.done)
        if not end.done():
            end.set_exception(ResultTimeout(_not_ended(None)))

    # ---- acts ---------------------------------------------------------------------------------

    def replay(self, *letters: Letter) -> int:
        """Put the tasks of these dead letters, of all by default, back on their queue, as
        `taskmill dlq replay` does; returns how many. They run at the next `drain`."""
        mill = self._working
        return mill.replay(list(letters) if letters else mill.letters())

    def trigger(self, schedule: str) -> Handle[Any]:
        """Run a declared schedule's task beside its times, at the next `drain`. Raises InvalidInput
        for one that is not declared, or not heeded."""
        schedules = self._working.schedules
        if schedules is None:
            raise InvalidInput(f"no schedule {schedule!r:.80}: none is declared, or heeded")
        queue, id = schedules.trigger(schedule)
        return Handle(id, queue, self._ways, None, None)

    def __repr__(self) -> str:
        return f"<Harness of {self._app!r} at {self.now:%Y-%m-%d %H:%M:%S}Z>"


def _ms(duration: str) -> int:
    if not isinstance(duration, str):
        raise ConfigError(f"advance({duration!r:.40}): expected {FORM}")
    return round(parse_duration(duration) * 1000)


def _loop_runs() -> bool:
    """Whether this thread is in a loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _not_ended(timeout: float | None) -> str:
    within = "" if timeout is None else f" within {timeout:g} s of the harness's time"
    return f"the task has not ended{within}, and nothing more of it is due; is its queue worked on?"
