"""How much of a queue is still to be done, and since when it waits: as Kafka tells it.

The lag of a partition is how many records lie between the group's committed offset and the end of
what is committed there. The committed offset is the lowest unfinished one: what is finished above
it counts until that one is, too. So the lag is what is not committed; of what is not done it is an
upper bound, which is reached where nothing above an unfinished task has finished.

Offsets alone would not read 0 when all is done: the markers of transactions have offsets too, and
the last record is mostly followed by one. So where the two differ it is looked whether a record
lies between them; a short stretch is counted, and the first record there tells, by the broker's
stamp, since when it waits. A longer stretch counts by its offsets, markers among them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

from taskmill.consumer.admin import Admin
from taskmill.consumer.admin import Place as TopicPlace
from taskmill.consumer.bounded import Reader
from taskmill.consumer.commit import AT_WORK
from taskmill.consumer.membership import group_of
from taskmill.consumer.replayed import ReplayedIndex
from taskmill.consumer.stretch import Found, Stretch, look_into
from taskmill.consumer.tally import DelayedTally, LetterTally, Waiting
from taskmill.consumer.tiers import tiers_of
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError, Unreachable
from taskmill.runtime.kafka import bootstrap_servers, client_config
from taskmill.runtime.topic_table import retry_group
from taskmill.runtime.topics import Topics

logger = logging.getLogger("taskmill.depth")

#: To be told a group's offsets.
_CALL_S = 5.0


class PartitionDepth(NamedTuple):
    """A partition of `tasks`. `committed`: the group's offset, None where it has none; `end`: of
    what is committed there; `lag`: records between them, an upper bound where not `is_exact`;
    `oldest_at`: the broker's time of the first of them (UTC ms), which is not done; `at_work`: its
    owner has said that it is at work, and not that it let go."""

    partition: int
    committed: int | None
    end: int
    lag: int
    is_exact: bool
    oldest_at: int | None
    at_work: bool


class QueueDepth(NamedTuple):
    """A queue at `at` (UTC ms). `retrying`: what waits in each retry tier; `delayed`: for its own
    time; `letters`: dead letters not replayed, None where they were not asked for."""

    queue: str
    at: int
    partitions: tuple[PartitionDepth, ...]
    retrying: Mapping[str, Waiting]
    delayed: Waiting | None
    letters: Waiting | None

    @property
    def lag(self) -> Waiting:
        """Records of `tasks` that are not committed: those that are not done, and those that are
        done above one that is not."""
        exact = all(one.is_exact for one in self.partitions)
        return Waiting(sum(one.lag for one in self.partitions), exact)

    @property
    def depth(self) -> Waiting:
        """What is on `tasks` and not committed, in retry tiers, delayed: all that is not done. Some
        on `tasks` may be done, above one that is not; and they are read one after another, so what
        moves on between two of them counts in both: of a queue at work it is an upper bound."""
        parts = [self.lag, *self.retrying.values(), self.delayed or Waiting(0)]
        return Waiting(sum(one.records for one in parts), all(one.is_exact for one in parts))

    @property
    def oldest_age_ms(self) -> int | None:
        """How long the oldest record of `tasks` that is not done has lain there; None: none does.
        Retries and delayed tasks count from when their time had come."""
        times = [one.oldest_at for one in self.partitions if one.oldest_at is not None]
        return max(0, self.at - min(times)) if times else None


class _Groups:
    """Asks for the offsets of groups, without joining them."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._consumers: dict[str, Consumer] = {}

    def committed(self, group: str, counts: Mapping[str, int]) -> dict[TopicPlace, TopicPartition]:
        """What the group committed, where it did. What an open transaction may yet commit is not
        told, nor waited for. Raises KafkaException.

        Not by an admin client: librdkafka #5040 (ARCHITECTURE.md, "Bounds").
        """
        asked = [TopicPartition(topic, p) for topic, n in counts.items() for p in range(n)]
        if not asked:
            return {}
        if group not in self._consumers:
            self._consumers[group] = Consumer(
                client_config(
                    self._settings,
                    "depth",
                    clock=self._clock,
                    group_id=group,
                    enable_auto_commit=False,
                    isolation_level="read_uncommitted",
                )
            )
        found = {}
        for tp in self._consumers[group].committed(asked, _CALL_S):
            if tp.error is not None:
                raise KafkaException(tp.error)
            if tp.offset >= 0:
                found[tp.topic, tp.partition] = tp
        return found

    def close(self) -> None:
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers.clear()


class _Tallies:
    """What is kept of a queue between two looks."""

    def __init__(self, topics: Topics) -> None:
        self.delayed = DelayedTally(topics.delayed)
        self.letters = LetterTally(topics.dlq)
        self.replayed = ReplayedIndex(topics.replayed, None)


class Depths:
    """Looks at queues, and keeps its clients between two looks. To be closed; for one thread."""

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._tiers = tiers_of(settings)
        self._groups = _Groups(settings, clock)
        self._looker: Consumer | None = None
        self._reader: Reader | None = None
        self._tallies: dict[str, _Tallies] = {}

    def close(self) -> None:
        """Close its clients."""
        self._groups.close()
        if self._looker is not None:
            self._looker.close()
            self._looker = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def look(
        self,
        queue: str,
        there: Mapping[str, int],
        admin: Admin | None = None,
        *,
        letters: bool = True,
    ) -> QueueDepth:
        """The queue as it is now. `there`: how many partitions each topic of the cluster has;
        `letters`: read, too, what is needed to count dead letters and delayed tasks.

        Raises Unreachable, TaskmillError.
        """
        admin = admin or Admin(self._settings, clock=self._clock)
        try:
            return self._look(queue, there, admin, letters)
        except KafkaException as failure:
            # Made anew the next time: it may know a coordinator that was.
            self.close()
            raise Unreachable(
                f"Kafka at {bootstrap_servers(self._settings)} did not tell how far queue "
                f"{queue!r} is ({failure.args[0].str()})"
            ) from None
        except Exception:
            self.close()
            raise

    def _look(
        self, queue: str, there: Mapping[str, int], admin: Admin, letters: bool
    ) -> QueueDepth:
        topics = Topics(self._settings.prefix, queue)
        tiers = {topics.retry(tier.name): tier.name for tier in self._tiers}
        tiers = {topic: name for topic, name in tiers.items() if topic in there}
        tasks, waiting = {topics.tasks: there.get(topics.tasks, 0)}, {t: there[t] for t in tiers}
        # The ends after the offsets, which can only move on: a lag is never below what it was.
        done = self._groups.committed(group_of(self._settings.prefix, queue), tasks)
        done |= self._groups.committed(retry_group(self._settings.prefix), waiting)
        kept = {t: there[t] for t in (topics.delayed, topics.dlq) if letters and t in there}
        spans = admin.spans({**tasks, **waiting, **kept})
        stretches = [
            Stretch(*place, max(start, done[place].offset if place in done else start), end)
            for place, (start, end) in spans.items()
            if place[0] not in kept
        ]
        found = look_into(self._peek(), stretches, self._clock)
        retrying = {
            name: _sum([one for place, one in found.items() if place[0] == topic])
            for topic, name in tiers.items()
        }
        partitions = tuple(
            _partition(p, done.get((topics.tasks, p)), spans[topics.tasks, p][1], one)
            for (topic, p), one in sorted(found.items())
            if topic == topics.tasks
        )
        delayed = dead = None
        if letters:
            delayed, dead = self._counted(topics, admin, spans)
        return QueueDepth(queue, self._clock.now_ms(), partitions, retrying, delayed, dead)

    def _counted(
        self, topics: Topics, admin: Admin, spans: Mapping[TopicPlace, tuple[int, int]]
    ) -> tuple[Waiting, Waiting]:
        """Delayed tasks, and dead letters that were not replayed."""
        tallies = self._tallies.setdefault(topics.queue, _Tallies(topics))
        if self._reader is None:
            name = f"{self._settings.prefix}.depth"
            self._reader = Reader(self._settings, name, "look at queues", self._clock)
        delayed = tallies.delayed.count(self._reader, _of(topics.delayed, spans))
        letters = _of(topics.dlq, spans)
        if letters and (dlq_id := admin.topic_id(topics.dlq)) != tallies.replayed.dlq_id:
            tallies.letters.forget()
            tallies.replayed = ReplayedIndex(topics.replayed, dlq_id)
        try:
            tallies.replayed.refresh(admin, self._reader)
        except Unreachable:
            raise
        except TaskmillError as error:
            # Which of them were replayed is not known.
            logger.warning("%s", error)
            count = tallies.letters.count(self._reader, letters)
            return delayed, count._replace(is_exact=False)
        return delayed, tallies.letters.count(self._reader, letters, tallies.replayed.letters)

    def _peek(self) -> Consumer:
        if self._looker is None:
            self._looker = Consumer(
                client_config(
                    self._settings,
                    "depth-look",
                    clock=self._clock,
                    group_id=f"{self._settings.prefix}.depth",
                    enable_auto_commit=False,
                    isolation_level="read_committed",
                    auto_offset_reset="earliest",
                    enable_partition_eof=True,
                    # A few records of each partition are enough.
                    queued_max_messages_kbytes=1024,
                    fetch_message_max_bytes=16 * 1024,
                    fetch_wait_max_ms=5,
                    fetch_error_backoff_ms=50,
                    fetch_queue_backoff_ms=10,
                )
            )
        return self._looker


def _of(topic: str, spans: Mapping[TopicPlace, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    return {p: span for (name, p), span in spans.items() if name == topic}


def _sum(found: list[Found]) -> Waiting:
    return Waiting(sum(one.records for one in found), all(one.is_exact for one in found))


def _partition(p: int, done: TopicPartition | None, end: int, found: Found) -> PartitionDepth:
    committed = None if done is None else done.offset
    at_work = done is not None and done.metadata == AT_WORK
    return PartitionDepth(p, committed, end, found.records, found.is_exact, found.first_at, at_work)
