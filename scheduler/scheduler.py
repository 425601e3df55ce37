"""The scheduler: fires schedules, passes on what waits, and looks after the topics for that."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from functools import partial

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from taskmill.consumer.slots import Slot
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.config import Settings, check_queue
from taskmill.runtime.errors import TaskmillError, Unreachable
from taskmill.runtime.kafka import client_config
from taskmill.runtime.meter import Meter
from taskmill.runtime.topic_table import Kind, queue_of, retry_topic_of
from taskmill.runtime.topics import TopicAdmin, ensure_retry
from taskmill.runtime.vitals import Pulse
from taskmill.runtime.wake import Wake
from taskmill.scheduler.board import Board
from taskmill.scheduler.declared import Declared
from taskmill.scheduler.delayed import Delayed
from taskmill.scheduler.member import Member
from taskmill.scheduler.observe import Watched
from taskmill.scheduler.reconcile import reconcile
from taskmill.scheduler.retries import Retries
from taskmill.scheduler.schedules import Schedules
from taskmill.schemas.codec import Codec

logger = logging.getLogger("taskmill.scheduler")

#: How often it looks for queues that are new.
LOOK_S = 2.0
#: How often what was passed on is deleted, where there are so many: a broker frees whole segments.
#: Fewer wait for an hour, or for the scheduler's end, and no longer: a group that is forgotten for
#: want of members starts with the first record there is, when its ID may be forgotten too.
DELETE_EVERY_S = 60.0
WORTH_RECORDS = 1_000
WAIT_S = 3_600.0
DELETE_TIMEOUT_S = 5.0
#: That the topics cannot be looked at is said so often.
TELL_S = 60.0
STOP_S = 15.0


class Scheduler:
    """Passes on what waits of `queues`, or of all queues that there are under the prefix, and fires
    all schedules.

    Any number may run, also beside each other on one machine: they share the partitions.
    """

    def __init__(
        self, settings: Settings, queues: Sequence[str] = (), clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Raises ConfigError for a queue's name, or a state directory that cannot be written."""
        self._settings = settings
        self._queues = frozenset(map(check_queue, queues))
        self._clock = clock
        self._wake = Wake()
        self._signals = 0
        # A place of its own: a worker's slot names its local store.
        self.slot = Slot(settings.state_dir / "scheduler")
        self.meter, self._pulse = Meter(clock=clock), Pulse(clock)
        self.retries = Retries(settings, self._name(Kind.RETRY), clock)
        self.delayed = Delayed(
            settings, self._name(Kind.DELAYED), self.slot.path / "delayed", clock
        )
        self.schedules = Schedules(settings, self.slot.name, clock, self.meter)
        self._declared: tuple[str, list[Declared]] | None = None
        self._tiered: set[str] = set()
        self._deleted: dict[tuple[str, int], int] = {}
        self._told_at: float | None = None
        self._members: list[Member | Schedules] = [self.retries, self.delayed, self.schedules]
        self._threads = [
            threading.Thread(target=one.run, name=f"taskmill-{one.group}", daemon=True)
            for one in self._members
        ]
        for one in self._members:
            one.moved = partial(self._pulse.beat, one.group)
        self._watched = None if settings.metrics_port is None else self._new_watched()

    def _new_watched(self) -> Watched:
        return Watched(
            self._settings,
            self.meter,
            self._pulse,
            lambda: {**self.retries.passed, **self.delayed.passed},
            lambda: self.schedules.count,
            self._unready,
            self._clock,
        )

    def _unready(self) -> str | None:
        if self._signals:
            return "stopping"
        return next((why for one in self._members if (why := one.unready())), None)

    def _name(self, kind: Kind) -> str:
        """The transactional ID under which that is passed on."""
        return self.slot.transactional_id(self._settings.prefix, f"{kind}.passing")

    def declare(self, app: str, declared: Iterable[Declared]) -> None:
        """Have `run` begin with bringing Kafka up to date with what the App `app` declares."""
        self._declared = app, list(declared)

    def run(self) -> int:
        """Work until SIGTERM or SIGINT; the exit code. What waits is passed on by the next one."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        logger.info("scheduler: slot %s, pid %d", self.slot.name, os.getpid())
        if self._watched is not None:
            self._watched.start()
        for thread in self._threads:
            thread.start()
        delete_at = self._clock.monotonic() + DELETE_EVERY_S
        all_at = self._clock.monotonic() + WAIT_S
        self._reconcile()
        while not self._signals and all(thread.is_alive() for thread in self._threads):
            self._pulse.beat("looking for queues")
            self._look()
            if (now := self._clock.monotonic()) >= delete_at:
                self._delete(1 if now >= all_at else WORTH_RECORDS)
                delete_at = now + DELETE_EVERY_S
                all_at = now + WAIT_S if now >= all_at else all_at
            self._wake.wait(LOOK_S)
        failed = not self._signals
        self._delete(1)
        self.stop()
        return 1 if failed else 0

    def _on_signal(self, number: int, frame: object) -> None:
        self._signals += 1
        self._wake.tell()

    def stop(self) -> None:
        """End: leave the group, so that others take over at once."""
        for member in self._members:
            member.stop()
        deadline = Deadline(STOP_S, self._clock)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(deadline.left())
        if self._watched is not None:
            self._watched.stop()
        self.slot.release()

    def _reconcile(self) -> None:
        """Tell what changed of the schedules that the App declares; wait for Kafka where it is
        away."""
        if self._declared is None:
            return
        app, declared = self._declared
        with closing(Codec(self._settings.schema_registry_url)) as codec:
            while not self._signals:
                try:
                    with Board(self._settings, codec, self._clock) as board:
                        report = reconcile(board, app, declared, self._clock.now_ms())
                    break
                except Unreachable as error:
                    logger.warning("schedules of App %r: %s; again in %g s", app, error, LOOK_S)
                    self._wake.wait(LOOK_S)
            else:
                return
        for change in report:
            if change.what == "refused":
                logger.error("schedule %r is not written: %s", change.id, change.why)
            elif change.what != "kept":
                why = f" ({change.why})" if change.why else ""
                logger.info("schedule %r %s%s", change.id, change.what, why)
        counts = Counter(change.what for change in report)
        told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "none"
        logger.info("schedules of App %r: %s", app, told)

    def _look(self) -> None:
        """Make the tiers of queues that have none yet, and serve all that there are."""
        try:
            topics = TopicAdmin(self._settings, clock=self._clock).metadata().topics
            prefix, tiers = self._settings.prefix, self._settings.retry_tiers
            queues = {q for name in topics if (q := queue_of(name, Kind.TASKS, prefix))}
            if self._queues:
                queues &= self._queues
            delayed = {n for n in topics if queue_of(n, Kind.DELAYED, prefix) in queues}
            served = {
                name
                for name in topics
                if (place := retry_topic_of(name, prefix)) and place[0] in queues
            }
            for queue in queues - self._tiered:
                served.update(ensure_retry(self._settings, queue, tiers, clock=self._clock))
                self._tiered.add(queue)
        except TaskmillError as error:
            now = self._clock.monotonic()
            if self._told_at is None or now - self._told_at >= TELL_S:
                self._told_at = now
                logger.warning("%s; looking again every %g s", error, LOOK_S)
            return
        self.retries.serve(served)
        self.delayed.serve(delayed)

    def _delete(self, worth: int) -> None:
        """Delete what was passed on (it lies on `tasks` by now), where there is so much of it."""
        asked = []
        for place, end in self.retries.done.items():
            if end - self._deleted.get(place, 0) >= worth:
                asked.append(TopicPartition(*place, end))
                self._deleted[place] = end
        if not asked:
            return
        admin = AdminClient(client_config(self._settings, "retries-admin", clock=self._clock))
        answers = admin.delete_records(asked, request_timeout=DELETE_TIMEOUT_S)
        for tp, answer in answers.items():
            try:
                answer.result(2 * DELETE_TIMEOUT_S)
            except KafkaException as error:
                logger.warning("what %s passed on stays there: %s", tp.topic, error.args[0].str())
