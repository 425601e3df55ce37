"""Finished tasks leave their topic: the owner of a partition deletes them once they are old.

A retention by time would delete what nobody has read, so `tasks` has none. Deleted is what lies
below both the group's committed offset and the first record that is younger than the retention.
The offset is the group's own, not one that this worker remembers: it is what a successor starts
from, and goes with the topic where that is deleted and made again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from taskmill.consumer.core import Core
from taskmill.consumer.record import Lease
from taskmill.runtime.config import Settings
from taskmill.runtime.kafka import client_config

logger = logging.getLogger("taskmill.worker")

#: How often a worker looks: seldom beside any retention, often enough that each look finds little.
EVERY_S = 60.0
#: The same where tasks are to go as soon as they are committed.
EVERY_AT_LEAST_S = 10.0
#: A broker notes each deletion, in its log too, and frees whole segments only: fewer records than
#: this wait for more, but no longer than an hour (the dedup window has a day to spare).
WORTH_RECORDS = 1_000
WAIT_S = 3_600.0
#: Other jobs of the upkeep wait for these calls. Replicas that take longer than half of it to
#: delete go on without us.
CALL_S = 2.0

#: The broker will not let us, now and in a minute.
_REFUSED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.POLICY_VIOLATION,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError._UNSUPPORTED_FEATURE,
    }
)


class _Start(NamedTuple):
    """Where a partition's log starts, as last told under `lease`, and when that was."""

    lease: Lease
    offset: int
    at: float


class Retention:
    """Deletes from the partitions of `topic` that `core` owns. For one thread."""

    def __init__(self, core: Core, settings: Settings, topic: str, group: str) -> None:
        self._core = core
        self._settings = settings
        self._topic = topic
        self._group = group
        self._age_ms = settings.finished_tasks_age_ms
        self._starts: dict[int, _Start] = {}
        self._is_refused = False
        #: How often to call `step`, in seconds.
        self.every_s = min(EVERY_S, max(EVERY_AT_LEAST_S, self._age_ms / 10_000))

    def step(self) -> None:
        """Look at every partition that is owned now, and delete what is done and old there.

        Raises KafkaException; what could not be done is done the next time.
        """
        core = self._core
        with core.changed:
            held = {p: core.protocol.lease(p) for p in core.protocol.partitions}
        leases = {p: lease for p, lease in held.items() if lease is not None}
        self._starts = {p: s for p, s in self._starts.items() if leases.get(p) is s.lease}
        if not leases:
            return
        # New ones each time: a client that was through a broker's restart may answer as before it
        # for good (FENCED_LEADER_EPOCH), and an idle one keeps connections.
        consumer = self._consumer()
        try:
            ends = self._ends(consumer, leases)
        finally:
            consumer.close()
        self._delete(leases, ends)

    def _consumer(self) -> Consumer:
        """A client of the group that does not join it.

        An admin client would do, were it not for librdkafka #5040: told NOT_COORDINATOR when it
        asks for a group's offsets, it takes the process with it.
        """
        return Consumer(
            client_config(
                self._settings,
                "retention",
                clock=self._core.clock,
                group_id=self._group,
                enable_auto_commit=False,
                # What an open transaction may yet commit is not told, nor waited for.
                isolation_level="read_uncommitted",
            )
        )

    def _ends(self, consumer: Consumer, leases: Iterable[int]) -> dict[int, int]:
        """The offset below which all of a partition is done, and old enough."""
        asked = [TopicPartition(self._topic, p) for p in leases]
        done = offsets_of(consumer.committed(asked, CALL_S))
        if not self._age_ms or not done:
            return done
        since = self._core.clock.now_ms() - self._age_ms
        asked = [TopicPartition(self._topic, p, since) for p in done]
        # Without one so young, a partition is not in the answer.
        young = offsets_of(consumer.offsets_for_times(asked, CALL_S))
        return {p: min(end, young.get(p, end)) for p, end in done.items()}

    def _delete(self, leases: Mapping[int, Lease], ends: Mapping[int, int]) -> None:
        now = self._core.clock.monotonic()
        places = [
            TopicPartition(self._topic, p, end)
            for p, end in ends.items()
            # Lost meanwhile: its next owner's to do.
            if leases[p].held and self._is_worth_it(self._starts.get(p), end, now)
        ]
        if not places:
            return
        admin = AdminClient(client_config(self._settings, "retention", clock=self._core.clock))
        asked = admin.delete_records(places, request_timeout=CALL_S, operation_timeout=CALL_S / 2)
        failures: list[KafkaException] = []
        for tp, answer in asked.items():
            try:
                start = answer.result(2 * CALL_S).low_watermark
            except KafkaException as error:
                if error.args[0].code() in _REFUSED:
                    self._say_refused(error.args[0])
                else:
                    failures.append(error)
            else:
                self._starts[tp.partition] = _Start(leases[tp.partition], start, now)
                logger.debug("deleted %s [%d] below %d", self._topic, tp.partition, start)
        if failures:
            raise failures[0]

    def _is_worth_it(self, start: _Start | None, end: int, now: float) -> bool:
        if start is None:
            return True  # the answer tells where the log starts
        is_due = not self._age_ms or now - start.at >= WAIT_S
        return end - start.offset >= (1 if is_due else WORTH_RECORDS)

    def _say_refused(self, error: KafkaError) -> None:
        if not self._is_refused:
            self._is_refused = True
            logger.error(
                "finished tasks stay on %s, the broker refuses to delete them (%s): allow this "
                "user DELETE on the topic and cleanup.policy=delete; else its disk fills up, or a "
                "retention.ms of its own deletes tasks that no worker has read in that time",
                self._topic,
                error.str(),
            )


def offsets_of(answer: Iterable[TopicPartition]) -> dict[int, int]:
    """The offsets that there are, by partition. Raises KafkaException."""
    found = {}
    for tp in answer:
        if tp.error is not None:
            raise KafkaException(tp.error)
        if tp.offset >= 0:
            found[tp.partition] = tp.offset
    return found
