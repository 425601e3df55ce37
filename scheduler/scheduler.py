"""The scheduler: finds the queues whose tasks it passes on, and looks after their topics."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Sequence

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from taskmill.consumer.slots import Slot
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.config import Settings, check_queue
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.kafka import client_config
from taskmill.runtime.topic_table import Kind, queue_of, retry_topic_of
from taskmill.runtime.topics import TopicAdmin, ensure_retry
from taskmill.runtime.wake import Wake
from taskmill.scheduler.delayed import Delayed
from taskmill.scheduler.member import Member
from taskmill.scheduler.retries import Retries

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
    """Passes on what waits of `queues`, or of all queues that there are under the prefix.

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
        self.retries = Retries(settings, self._name(Kind.RETRY), clock)
        self.delayed = Delayed(
            settings, self._name(Kind.DELAYED), self.slot.path / "delayed", clock
        )
        self._tiered: set[str] = set()
        self._deleted: dict[tuple[str, int], int] = {}
        self._told_at: float | None = None
        self._members: list[Member] = [self.retries, self.delayed]
        self._threads = [
            threading.Thread(target=one.run, name=f"taskmill-{one.group}", daemon=True)
            for one in self._members
        ]

    def _name(self, kind: Kind) -> str:
        """The transactional ID under which that is passed on."""
        return self.slot.transactional_id(self._settings.prefix, f"{kind}.passing")

    def run(self) -> int:
        """Work until SIGTERM or SIGINT; the exit code. What waits is passed on by the next one."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        logger.info("scheduler: slot %s, pid %d", self.slot.name, os.getpid())
        for thread in self._threads:
            thread.start()
        delete_at = self._clock.monotonic() + DELETE_EVERY_S
        all_at = self._clock.monotonic() + WAIT_S
        while not self._signals and all(thread.is_alive() for thread in self._threads):
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
        self.slot.release()

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
