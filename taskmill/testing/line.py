"""One queue at work: the protocol, its table and its commits, as in consumer/engine.py."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, cast

from confluent_kafka import Producer

from taskmill.consumer.children import Children
from taskmill.consumer.commit import Answer, Committer, Partitions
from taskmill.consumer.control_topic import ControlTopic
from taskmill.consumer.core import Core
from taskmill.consumer.decode import Decoder
from taskmill.consumer.protocol import Protocol, Transaction
from taskmill.consumer.record import Outcome, Record
from taskmill.consumer.state import StateEncoder
from taskmill.consumer.table import Table
from taskmill.consumer.tiers import Tiers
from taskmill.producer.middleware import Hooks
from taskmill.producer.routes import Routes
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.store import MemoryStore
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import Codec
from taskmill.testing.broker import MemoryBroker, MemoryProducer

logger = logging.getLogger("taskmill.worker")

#: The name of the worker that states are written by.
WORKER = "harness"
#: Records taken at once.
BATCH = 500


class Parts(NamedTuple):
    """What a line is built on, shared by all of them."""

    settings: Settings
    broker: MemoryBroker
    codec: Codec
    clock: Clock
    hooks: Hooks
    routes: Routes
    submit: Callable[[list[Record]], None]
    interrupt: Callable[[list[Record]], None]
    at_most_once: frozenset[str]
    stored: frozenset[str]


class _Tiers(Tiers):
    def _count(self, topic: str, deadline: Deadline) -> int | None:
        return 1


class _Committer(Committer):
    """Writes transactions to a broker in memory, in this thread."""

    def __init__(self, parts: Parts, topics: Topics) -> None:
        self._parts = parts
        super().__init__(
            parts.settings,
            topics,
            Partitions(1, 1),
            WORKER,
            StateEncoder(parts.codec, topics.queue, WORKER, topics.results),
            parts.clock,
        )
        self._memory = cast(Producer, MemoryProducer(parts.broker))

    def _new_tiers(self) -> Tiers:
        return _Tiers(self._settings, self._topics, self._clock)

    def _new_children(self) -> Children:
        return Children(self._settings, self._tiers, self._clock, self._parts.routes)

    def run(self, transaction: Transaction) -> tuple[Answer, dict[int, int]]:
        routes = self.children.routes_of(transaction)
        assert routes is not None, "in memory all queues can be reached"
        return self._transact(self._memory, transaction, routes)


class Line:
    """Owns the one partition of `queue`."""

    def __init__(self, parts: Parts, queue: str) -> None:
        settings, codec, clock = parts.settings, parts.codec, parts.clock
        self._parts = parts
        self._topics = Topics(settings.prefix, queue)
        self._committer = _Committer(parts, self._topics)
        self._decoder = Decoder(codec, self._topics.tasks, 1, settings.max_task_bytes)
        self._control = ControlTopic(settings, self._topics.control, 1, WORKER, codec, clock)
        protocol = Protocol(None, parts.at_most_once, queue, settings.crash_loop_limit)
        protocol.stored = parts.stored
        self.core = Core(protocol, clock, settings.dedup_window_ms)
        self.core.start = parts.submit
        self.core.interrupt = parts.interrupt
        self.core.vet = self._committer.children.vet
        (self._lease,) = protocol.assigned([0], WORKER).restore
        self.table = self.core.tables[0] = Table(MemoryStore(), codec)
        protocol.restored(self._lease, 0, {})
        protocol.control_from(self._lease, 0)
        protocol.fetching(self._lease)

    def step(self) -> bool:
        """Take in what has come, commit what is done. False: there was neither."""
        taken = self._take()
        obeyed = self._obey()
        return self._commit() or taken or obeyed

    def _take(self) -> bool:
        at = self.core.protocol.next_offset(0) or 0
        log = self._parts.broker.log(self._topics.tasks)
        if at >= len(log) or self.core.protocol.is_full():
            return False
        messages = log[at : at + BATCH]
        records = [self._decoder.decode(message, self._lease) for message in messages]
        self._parts.submit(self.core.deliver(self._lease, records))
        return True

    def _obey(self) -> bool:
        log = self._parts.broker.log(self._topics.control)
        at = self.core.protocol.control_places().get(self._lease) or 0
        if at >= len(log):
            return False
        return self.core.obey(self._lease, self._control.orders(log[at:], 0))

    def _commit(self) -> bool:
        core = self.core
        core.collect(0)
        transaction = core.begin()
        if transaction is None:
            return False
        answer, reached = self._committer.run(transaction)
        assert answer is Answer.COMMITTED, "in memory nothing is refused"
        core.commit_marks(transaction, reached)
        self._told(transaction.all_outcomes)
        return True

    def _told(self, every: list[Outcome]) -> None:
        for hook in self._parts.hooks.after_commit if every else ():
            try:
                hook(every)
            except Exception:  # they are committed, whatever its observers make of it
                logger.exception("after_commit hook")

    def forget_old(self) -> None:
        """Drop the IDs whose time in the deduplication window is over."""
        clock, store = self._parts.clock, self.table.store
        window_ms = self._parts.settings.dedup_window_ms
        self.table.sweep(clock.now_ms(), window_ms, store.count() + 1)
