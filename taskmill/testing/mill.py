"""All that runs between the topics, on one thread and a virtual clock: workers and schedulers.

A turn takes in what has come, commits what is done and passes on what is due, until nothing of that
is left; then the clock goes to whatever is due next. Async handlers run on the loop of whoever
drives; functions are called between turns, where no loop is running, as in a thread of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from confluent_kafka import Message

from taskmill.consumer.app import AppLike
from taskmill.consumer.attempt import Attempts, definitions_by_name
from taskmill.consumer.core import Core
from taskmill.consumer.failure_log import FailureLog
from taskmill.consumer.letters import Letter
from taskmill.consumer.record import Outcome, Record
from taskmill.consumer.scope import Scopes
from taskmill.consumer.watch import Watch
from taskmill.producer.context import Encode
from taskmill.producer.reader import StateReader
from taskmill.runtime.config import Settings, check_queue
from taskmill.runtime.errors import DecodeError
from taskmill.runtime.topic_table import queue_of
from taskmill.runtime.topics import Kind
from taskmill.scheduler.declared import Declared
from taskmill.schemas.codec import Codec
from taskmill.testing.broker import MemoryBroker
from taskmill.testing.clock import VirtualClock
from taskmill.testing.handlers import Handlers, NoDatabase, TurnKeeper
from taskmill.testing.letters import MemoryLetters
from taskmill.testing.line import WORKER, Line, Parts
from taskmill.testing.sending import MemoryRoutes
from taskmill.testing.waits import MemoryDelayed, MemoryRetries, MemorySchedules

#: Until when, where there is no end to it.
FOREVER = 2**62
#: So much beyond the end of a turn, handlers that wait until that very end have gone on.
JUST_BEYOND_S = 1e-6
#: Jumps of the clock, after which a result does not seem to come.
MOST_JUMPS = 10_000


class Mill:
    """Runs the tasks of `app`. `queues`: those it works on; None: whichever tasks of its lie on."""

    def __init__(
        self,
        app: AppLike,
        settings: Settings,
        codec: Codec,
        broker: MemoryBroker,
        encode: Encode,
        clock: VirtualClock,
        queues: tuple[str, ...] | None,
    ) -> None:
        self.broker = broker
        self.clock = clock
        self._settings = settings
        self._codec = codec
        self._queues = None if queues is None else frozenset(map(check_queue, queues))
        self._definitions = definitions_by_name(app.tasks)
        self.scopes = Scopes(lambda queue: WORKER, self._definitions)
        self.hooks = app.hooks.then(FailureLog(), self.scopes)
        self.timekeeper = TurnKeeper(clock, settings.timeout_grace_ms / 1000)
        self.attempts = Attempts(
            self._definitions, clock, self.hooks, settings.max_task_bytes, self.timekeeper
        )
        self.attempts.encode = encode
        self.attempts.keep = self._keep
        stored = frozenset(n for n, d in self._definitions.items() if d.effects is not None)
        if stored:
            self.attempts.effects = NoDatabase(self.attempts, stored)
        self.handlers = Handlers(self._definitions, self.attempts, self._sink, clock)
        routes = MemoryRoutes(settings, clock)
        self._parts = Parts(
            settings,
            broker,
            codec,
            clock,
            self.hooks,
            routes,
            self.handlers.submit,
            self.handlers.interrupt,
            frozenset(n for n, d in self._definitions.items() if d.delivery == "at_most_once"),
            stored,
        )
        self._lines: dict[str, Line] = {}
        self._cores: dict[str, Core] = {}
        self._watch = Watch(self.handlers.running, self._cores, settings.dedup_window_ms, clock)
        self._retries = MemoryRetries(broker, settings, routes, clock)
        self._delayed = MemoryDelayed(broker, settings, routes, clock)
        self.schedules: MemorySchedules | None = None
        #: Times that the clock was moved on for somebody who waits without a limit.
        self.jumps = 0
        self._waiter: asyncio.Future[None] | None = None
        broker.listeners.append(self._appended)

    def declare(self, app: str, declared: Mapping[str, Declared], reader: StateReader) -> None:
        """Serve the schedules that the App of this name declares."""
        self.schedules = MemorySchedules(
            self.broker, self._settings, self._codec, self._parts.routes, reader, self.clock
        )
        self.schedules.declare(app, declared.values())

    # ---- turns --------------------------------------------------------------------------------

    async def turn(self, until_ms: int | None, stop: Callable[[], bool], *, virtual: bool) -> bool:
        """Go on until `stop`, or until nothing more is due by `until_ms` (None: now). True: a
        function is to be called first. `virtual`: the loop moves the clock."""
        functions, coroutines = self.handlers.functions, self.handlers.coroutines
        while True:
            while self._step() and not functions.wait and not stop():
                pass
            if functions.wait or stop():
                return functions.wait
            due = self._next_at()
            if coroutines.is_quiet():
                end = self.clock.now_ms() if until_ms is None else until_ms
                if due is None or due > end or self.jumps > MOST_JUMPS:
                    if end != FOREVER:
                        self.clock.move_to(end)
                    return False
                self.jumps += until_ms == FOREVER
                self.clock.move_to(due)
            elif not virtual:
                await self._change(None)
            elif until_ms is not None and self.clock.left(until_ms) < 0:
                return False  # they go on at the next turn
            else:
                ends = [] if due is None else [max(0.0, self.clock.left(due))]
                if until_ms is not None and until_ms != FOREVER:
                    ends.append(self.clock.left(until_ms) + JUST_BEYOND_S)
                await self._change(min(ends, default=None))

    def _step(self) -> bool:
        """Whether there was anything to be done."""
        self._watch.look()
        self._serve()
        worked = False
        for line in list(self._lines.values()):
            worked |= line.step()
        worked |= self._retries.step()
        worked |= self._delayed.step()
        return worked | (self.schedules is not None and self.schedules.step())

    def _serve(self) -> None:
        """Begin with queues that have come into being."""
        for topic in self.broker.topics():
            queue = queue_of(topic, Kind.TASKS, self._settings.prefix)
            if queue is not None and queue not in self._lines and self._is_ours(queue, topic):
                line = self._lines[queue] = Line(self._parts, queue)
                self._cores[queue] = line.core

    def _is_ours(self, queue: str, topic: str) -> bool:
        if self._queues is not None:
            return queue in self._queues
        if any(one.queue == queue for one in self._definitions.values()):
            return True
        return any(self._is_known(message) for message in self.broker.log(topic))

    def _is_known(self, message: Message) -> bool:
        try:
            return self._codec.decode_task(message.value()).name in self._definitions
        except DecodeError:
            return False

    def _next_at(self) -> int | None:
        """When something is due, as far as it is no handler's own."""
        times = [self._retries.next_at, self._delayed.next_at]
        if self.schedules is not None:
            times.append(self.schedules.next_at)
        return min((at for at in times if at is not None), default=None)

    async def _change(self, seconds: float | None) -> None:
        """Wait until something has come, or for so long."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _appended(self, _: Message) -> None:
        if self._waiter is not None:
            # Perhaps by a thread of a handler's.
            self._waiter.get_loop().call_soon_threadsafe(self._wake)

    def _sink(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self._cores[outcome.record.lease.queue].outcomes.put([outcome])
        self._wake()

    def _keep(self, record: Record, started_at: int, saved: bytes) -> None:
        self._cores[record.lease.queue].note(record, started_at, saved)

    # ---- what came of it ----------------------------------------------------------------------

    def forget_old(self) -> None:
        """Drop what the deduplication window is over for."""
        for line in self._lines.values():
            line.forget_old()

    def letters(self) -> list[Letter]:
        """The dead letters of all queues that were not replayed."""
        return [letter for one in self._letters() for letter in one.all()]

    def replay(self, letters: list[Letter]) -> int:
        """Put these back; returns how many there were."""
        count = 0
        for one in self._letters():
            theirs = [x for x in letters if x.told.get("original-topic") == one.topics.tasks]
            count += one.replay(theirs) if theirs else 0
        return count

    def _letters(self) -> list[MemoryLetters]:
        prefix = self._settings.prefix
        queues = [queue_of(topic, Kind.DLQ, prefix) for topic in self.broker.topics()]
        return [
            MemoryLetters(self.broker, self._settings, queue, self._codec, self.clock)
            for queue in queues
            if queue is not None
        ]
