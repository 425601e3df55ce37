"""One queue at work: a poll, a commit, a restore and a control thread round one Core."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from confluent_kafka import KafkaException

from taskmill.consumer import retry_watch
from taskmill.consumer.client_name import client_name
from taskmill.consumer.commit import Answer, Committer, Partitions
from taskmill.consumer.control_reader import CatchUp, ControlReader
from taskmill.consumer.control_topic import ControlTopic
from taskmill.consumer.core import Core
from taskmill.consumer.decode import Decoder
from taskmill.consumer.membership import Membership
from taskmill.consumer.poll import Poller
from taskmill.consumer.protocol import Limits, Protocol
from taskmill.consumer.record import Outcome
from taskmill.consumer.restorer import Restorer
from taskmill.consumer.retention import Retention
from taskmill.consumer.slots import Slot
from taskmill.consumer.state import StateEncoder
from taskmill.consumer.upkeep import Job
from taskmill.consumer.valve import Executors, Valve
from taskmill.producer.middleware import Hooks
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import StoreDamaged, Unreachable
from taskmill.runtime.kafka import client_config
from taskmill.runtime.meter import Meter
from taskmill.runtime.topics import Topics, ensure, partition_count
from taskmill.runtime.vitals import Pulse
from taskmill.schemas.codec import Codec

logger = logging.getLogger("taskmill.worker")

#: A consumer that failed for good is made anew after this long, doubling up to the maximum.
REBUILD_S, REBUILD_MAX_S = 0.5, 30.0
#: One that has worked for this long begins with the first pause again.
REBUILD_WELL_S = 60.0
#: An aborted transaction is tried again after this long, doubling up to the maximum: whatever
#: refused it (a rebalance, a leader that moves) needs a moment.
REDO_S, REDO_MAX_S = 0.02, 2.0
#: While more is under way than done, a transaction follows the last one after this. One costs the
#: broker milliseconds of CPU, whatever is in it: 200 tasks/s of 50 ms, committed as fast as they
#: could be, took 44 % of a core, not 24. A task alone, or the first after a pause, does not wait.
GATHER_S = 0.05
#: How long the commit thread waits for outcomes before it looks whether it should stop.
LOOK_S = 0.2


class Parts(NamedTuple):
    """What an engine is built on, shared by the engines of one worker."""

    settings: Settings
    slot: Slot
    codec: Codec
    clock: Clock
    hooks: Hooks
    executors: Executors
    meter: Meter
    pulse: Pulse


class Engine:
    """Consumes one queue until drained or stopped.

    Making one asks the broker for its topics, and creates them, and a schema registry how states
    are framed: raises Unreachable.
    """

    def __init__(
        self,
        parts: Parts,
        queue: str,
        limits: Limits | None,
        at_most_once: frozenset[str],
        stored: frozenset[str] = frozenset(),
    ) -> None:
        settings = parts.settings
        self.queue = queue
        self._parts = parts
        self.topics = Topics(settings.prefix, queue)
        ensure(settings, queue)
        parts.codec.prepare()
        tasks, dlq = _count(settings, self.topics.tasks), _count(settings, self.topics.dlq)
        self._membership = Membership(settings, queue, parts.slot.name, parts.clock)
        self.core = Core(
            Protocol(limits, at_most_once, queue, settings.crash_loop_limit),
            parts.clock,
            settings.dedup_window_ms,
        )
        #: Held while the queue is being paused, or let go on.
        self._pausing = threading.Lock()
        self._valve = Valve(queue, parts.executors)
        self.core.start = self._valve.submit
        self.core.interrupt = self._valve.interrupt
        self.core.protocol.stored = stored
        topic = ControlTopic(
            settings, self.topics.control, tasks, self._membership.group, parts.codec, parts.clock
        )
        self.restorer = self._new_restorer(topic)
        control = ControlReader(self.core, topic, self.restorer.restore)
        self.poller = Poller(
            self.core,
            Decoder(parts.codec, self.topics.tasks, tasks, settings.max_task_bytes),
            self.topics.tasks,
            self._membership.incremental,
            self._valve.submit,
            self._valve.cancel,
            self.restorer.restore,
            lambda: parts.pulse.beat(f"consuming {queue}"),
        )
        self.restorer.restored = self.poller.resume_at
        self.restorer.took = self._timed("taskmill_restore_seconds")
        self._committed_in = self._timed("taskmill_commit_seconds")
        self.poller.assigned = lambda: parts.meter.add("taskmill_rebalances_total", queue)
        self.committer = Committer(
            settings,
            self.topics,
            Partitions(tasks, dlq),
            parts.slot.transactional_id(settings.prefix, queue),
            StateEncoder(parts.codec, queue, parts.slot.name, self.topics.results),
            parts.clock,
        )
        self.core.vet = self.committer.children.vet
        retention = Retention(self.core, settings, self.topics.tasks, self._membership.group)
        watch = retry_watch.RetryWatch(settings, self.topics, parts.clock)
        #: What the worker's upkeep does for this queue.
        self.jobs = [
            Job(f"retention of {self.topics.tasks}", retention.every_s, retention.step),
            Job(f"retries of queue {queue}", retry_watch.EVERY_S, watch.step),
        ]
        #: What ended a thread that should have gone on; the worker stops on it.
        self.failure: BaseException | None = None
        self._threads = [
            self._thread("poll", self._poll),
            self._thread("commit", self._commit),
            self._thread("restore", self.restorer.run),
            self._thread("control", control.run),
        ]

    def _timed(self, name: str) -> Callable[[float], None]:
        """What enters seconds into this queue's histogram of that name."""
        return lambda seconds: self._parts.meter.observe(name, self.queue, seconds=seconds)

    def _new_restorer(self, control: ControlTopic) -> Restorer:
        return Restorer(
            self.core,
            self._parts.settings,
            self.topics,
            self._membership.group,
            self._parts.slot.path / self.queue,
            self._parts.codec,
            CatchUp(control),
        )

    def _thread(self, name: str, main: Callable[[], None]) -> threading.Thread:
        name = f"taskmill-{name}-{self.queue}"
        return threading.Thread(target=self._guarded, args=(main,), name=name)

    def start(self) -> None:
        for thread in self._threads:
            thread.daemon = True
            thread.start()
        self._beat()

    def pause(self, paused: bool) -> None:
        """Begin no record of the queue any more, or go on; what runs ends and commits."""
        with self._pausing:
            if paused == self.poller.paused:
                return
            self.poller.paused = paused
            if paused:
                self._valve.close()
            with self.core.changed:
                self.core.protocol.hold_gates(paused)
            if not paused:
                self._valve.open()
            self.core.nudge()
        logger.info("queue %s %s", self.queue, "is paused" if paused else "goes on")

    def settle(self, deadline: Deadline) -> bool:
        """Wait until every outcome handed in is committed; False: not all in time."""
        core = self.core
        arrived = threading.Event()
        core.outcomes.put(arrived)
        while not arrived.wait(LOOK_S):
            if deadline.over() or self.failure is not None:
                return False
        with core.changed:
            while not core.is_settled() or self.committer.children.waiting:
                if deadline.over() or self.failure is not None:
                    return False
                core.changed.wait(min(deadline.left(), LOOK_S))
            return True

    def stop(self) -> None:
        """End the threads: leave the group, close the stores. What is not committed runs again."""
        poll, commit, restore, control = self._threads
        self.core.stopping.set()
        self.restorer.stop()
        # Leaving the group commits what is done, so the commit thread goes last.
        poll.join()
        self.core.closed.set()
        self.core.nudge()
        commit.join()
        restore.join()
        control.join()
        self.committer.close()

    # ---- threads ------------------------------------------------------------------------------

    def _guarded(self, main: Callable[[], None]) -> None:
        try:
            main()
        except Exception as error:
            logger.exception("%s ended", threading.current_thread().name)
            with self.core.changed:
                self.failure = self.failure or error
                self.core.changed.notify_all()

    def _poll(self) -> None:
        pause = REBUILD_S
        while not self.core.stopping.is_set():
            began = self._parts.clock.monotonic()
            try:
                self.poller.run(self._consumer_config())
            except KafkaException as error:
                if self._parts.clock.monotonic() - began > REBUILD_WELL_S:
                    pause = REBUILD_S
                logger.error("consumer failed, a new one in %s s: %s", pause, error.args[0].str())
                self.core.stopping.wait(pause)
                pause = min(2 * pause, REBUILD_MAX_S)

    def _consumer_config(self) -> dict[str, Any]:
        return client_config(
            self._parts.settings,
            client_name(self._parts.slot.name, self.queue),
            clock=self._parts.clock,
            **self._membership.config(),
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="earliest",
            # Read only what is committed, and start only from stable offsets.
            isolation_level="read_committed",
            # Prefetch small: a pause throws it away, and a high priority must not wait behind it.
            queued_min_messages=1000,
            # A partition whose queue was full is fetched again after this, not after the default of
            # 1 s: with a small queue that was half of a worker's time.
            fetch_queue_backoff_ms=5,
            queued_max_messages_kbytes=16 * 1024,
            fetch_message_max_bytes=64 * 1024,
            fetch_wait_max_ms=50,
            fetch_error_backoff_ms=100,
        )

    def _commit(self) -> None:
        core, committer = self.core, self.committer
        pause, gathered = REDO_S, 0.0
        while not core.closed.is_set():
            self._beat()
            if not committer.is_open and not committer.open(self._is_closed):
                return
            core.collect(LOOK_S)
            while True:
                if due := committer.children.due():
                    core.outcomes.put(due)
                self._told(core.take_recovered())
                core.gather(gathered)
                transaction = core.begin()
                if transaction is None:
                    break
                began = self._beat()
                answer, reached = committer.run(transaction)
                now = core.clock.monotonic()
                gathered = now + GATHER_S
                if answer is Answer.COMMITTED:
                    self._committed_in(now - began)
                    try:
                        core.commit_marks(transaction, reached)
                    except StoreDamaged as error:
                        # It did commit, and a table cannot tell so: the restore will.
                        logger.error("%s (a full disk?)", error)
                        self.restorer.restore(core.unknown(transaction))
                    else:
                        self._told(transaction.all_outcomes)
                    pause = REDO_S
                elif answer is Answer.ABORTED:
                    self._failed(answer)
                    core.abort(transaction)
                    core.closed.wait(pause)
                    pause = min(2 * pause, REDO_MAX_S)
                else:
                    self._failed(answer)
                    leases = core.unknown(transaction)
                    # Its successor ends the transaction either way; only then can it be read.
                    if committer.open(self._is_closed):
                        self.restorer.restore(leases)
                if not committer.is_open or core.closed.is_set():
                    break
                core.collect(0)

    def _beat(self) -> float:
        """The commit thread moves; when that is (monotonic seconds)."""
        self._parts.pulse.beat(f"committing {self.queue}")
        return self.core.clock.monotonic()

    def _is_closed(self) -> bool:
        """Asked while a broker is waited for, which is moving too."""
        self._beat()
        return self.core.closed.is_set()

    def _failed(self, answer: Answer) -> None:
        self._parts.meter.add("taskmill_commit_failures_total", self.queue, answer.value)

    def _told(self, every: list[Outcome]) -> None:
        if not every:
            return
        for hook in self._parts.hooks.after_commit:
            try:
                hook(every)
            except Exception:  # they are committed, whatever its observers make of it
                logger.exception("after_commit hook")


def _count(settings: Settings, topic: str) -> int:
    count = partition_count(settings, topic)
    if count is None:
        raise Unreachable(f"topic {topic} is gone again, just after it was there")
    return count
