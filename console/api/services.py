"""What the routes work with: made once by whoever serves them, closed in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from taskmill.console.api.access import TokenCheck
from taskmill.console.api.brokers import BrokerWatch
from taskmill.console.api.feed import Feed
from taskmill.console.api.problems import Refused
from taskmill.console.api.reads import Reads
from taskmill.producer.control import ControlSender, Ways
from taskmill.producer.counting import EnqueuedCount
from taskmill.producer.enqueuer import Enqueuer
from taskmill.producer.middleware import Hooks
from taskmill.producer.reader import StateReader
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.schemas.codec import CODEC, Codec

#: Of an App without middleware, made once.
NO_HOOKS = Hooks()

P = ParamSpec("P")
T = TypeVar("T")

#: An acknowledgement is waited for so long at the most: whoever asks over HTTP can ask again.
ENQUEUE_S = 5.0
#: Acts at once that need threads (schedules, replays that begin, letters that are read); batches.
_THREADS = 16
_LINGER_MS = "3"
#: … and how many wait for one of these before others are turned away.
_WAITING = 200
#: What an act may take before its request is given up.
_PATIENCE_S = 30.0


class Threads:
    """Threads for what blocks; from the event loop alone."""

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, name)
        self._acting = 0

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As Services.act."""
        if self._acting >= _THREADS + _WAITING:
            raise Refused("unavailable", "too much is under way: come again in a moment")
        self._acting += 1
        here = copy_context()
        future = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: here.run(do, *args, **kwargs)
        )
        future.add_done_callback(self._acted)
        try:
            return await asyncio.wait_for(asyncio.shield(future), _PATIENCE_S)
        except TimeoutError:
            future.add_done_callback(lambda one: one.cancelled() or one.exception())
            raise Refused(
                "unavailable", f"Kafka gave no answer in {_PATIENCE_S:g} s; it may yet be done"
            ) from None

    def _acted(self, _: object) -> None:
        self._acting -= 1


@dataclass
class Services:
    """All that routes share. `queues` tells how queues stand and pauses them (console/queues.py);
    `page`: the folder of the dashboard's files."""

    settings: Settings
    tokens: TokenCheck
    store: Any
    queues: Any = None
    page: Any = None
    clock: Clock = SYSTEM_CLOCK
    behind_ms: int = 30_000
    enqueuer: Enqueuer = field(init=False)
    counted: EnqueuedCount = field(init=False, default_factory=EnqueuedCount)
    control: ControlSender = field(init=False)
    codec: Codec = field(init=False)
    brokers: BrokerWatch = field(init=False)
    reads: Reads = field(init=False)
    feed: Feed = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings
        least = min(settings.enqueue_timeout_s, ENQUEUE_S)
        #: As the settings, but that no request hangs on a Kafka that is away.
        self.quick = settings.model_copy(update={"enqueue_timeout_s": least})
        url = settings.schema_registry_url
        self.codec = Codec(url) if url else CODEC
        self.control = ControlSender(self.quick, "console", self.codec, self.clock)
        ways = Ways(self._no_reader, lambda: self.control)
        # Under load, tasks of a few milliseconds go in one request: a third of the CPU, here and at
        # the broker.
        grouped = {"linger.ms": _LINGER_MS, **settings.kafka}
        grouping = self.quick.model_copy(update={"kafka": grouped})
        self.enqueuer = Enqueuer(
            grouping, "console", self.codec, lambda: NO_HOOKS, ways, self.clock, self.counted
        )
        self.brokers = BrokerWatch(settings, self.clock)
        self.reads = Reads(self.store, self.clock, self.behind_ms)
        self.feed = Feed(self.reads, self.clock)
        self._acts, self._sends = Threads("taskmill-act"), Threads("taskmill-send")
        #: Set once the console is to end: who waits is answered.
        self.ending = asyncio.Event()

    def start(self) -> None:
        """Begin to watch Kafka."""
        self.brokers.start()

    def close(self) -> None:
        """Deliver what is on its way, and end all."""
        self.ending.set()
        self._acts.close()
        self._sends.close()
        self.brokers.close()
        self.enqueuer.close()
        self.control.close()
        self.reads.close()
        if self.codec is not CODEC:
            self.codec.close()

    async def act(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what blocks on a thread. Raises Refused, 503, where too many wait, or for too long;
        what was begun goes on."""
        return await self._acts.run(do, *args, **kwargs)

    async def send(self, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `act`, for what is enqueued: replays that wait for their turn do not hold it up."""
        return await self._sends.run(do, *args, **kwargs)

    def _no_reader(self) -> StateReader:
        raise AssertionError("the console's handles are not asked")
