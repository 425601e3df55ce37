"""What is asked of Kafka's admin API, each call in time and with errors of our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, by its own note
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    MemberDescription,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

from taskmill.consumer.group_members import GroupMember, GroupMembers
from taskmill.runtime.changelog import Changelog, Stopped
from taskmill.runtime.clock import Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError, TaskmillError
from taskmill.runtime.topics import Kind, TopicAdmin, Topics

Place = tuple[str, int]

#: Between two looks at what Kafka is about to do.
_LOOK_S = 0.05
#: Transactions of workers that died are ended by the broker within 15 s (ARCHITECTURE.md).
_STABLE_S = 60.0

_NO_GROUP = frozenset({KafkaError.GROUP_ID_NOT_FOUND})
_NO_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
_EXISTS = frozenset({KafkaError.TOPIC_ALREADY_EXISTS})
#: A topic that was just made, a group whose coordinator moves: answered in a moment.
_SETTLING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    }
)


class Admin(TopicAdmin):
    """Made anew for each step: an admin client that outlives a restart of its broker may be refused
    for good (ARCHITECTURE.md), and a deadline belongs to one step."""

    # ---- topics -------------------------------------------------------------------------------

    def topic_id(self, topic: str) -> str | None:
        """The topic's UUID, another one when it was deleted and made again; None: no such topic."""
        found = self._ask(
            lambda: self._client.describe_topics(
                TopicCollection([topic]), request_timeout=self._left()
            )[topic],
            _NO_TOPIC,
        )
        return None if found is None else str(found.topic_id)

    def partitions(self, topic: str) -> int | None:
        """How many partitions it has; None: no such topic."""
        found = self.metadata().topics.get(topic)
        return len(found.partitions) if found is not None and found.error is None else None

    def queue_partitions(self, topics: Topics) -> int:
        """How many partitions the queue has. Raises ConfigError where there is no such queue."""
        found = self.partitions(topics.tasks)
        if found is None:
            stem = f"{topics.prefix}.{Kind.TASKS}."
            names = [n.removeprefix(stem) for n in self.metadata().topics if n.startswith(stem)]
            there = ", ".join(sorted(n for n in names if "." not in n)) or "none"
            raise ConfigError(f"queue {topics.queue!r} has no topics; queues here: {there}")
        return found

    def replicas(self, topic: str) -> int:
        """The fewest replicas that one of its partitions has."""
        found = self.metadata().topics[topic].partitions.values()
        return min(len(partition.replicas) for partition in found)

    def own_configs(self, topic: str) -> dict[str, str]:
        """The settings that were made on the topic itself, not those it has by default."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        found = self._ask(
            lambda: self._client.describe_configs([resource], request_timeout=self._left())[
                resource
            ]
        )
        return {
            name: str(entry.value)
            for name, entry in found.items()
            if ConfigSource(entry.source) is ConfigSource.DYNAMIC_TOPIC_CONFIG
        }

    def set_configs(self, topic: str, configs: Mapping[str, str | None]) -> None:
        """Set these on the topic; None: back to the default."""
        entries = [
            ConfigEntry(
                name,
                value or "",
                source=ConfigSource.DYNAMIC_TOPIC_CONFIG,
                incremental_operation=(
                    AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
                ),
            )
            for name, value in configs.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
        self._ask(
            lambda: self._client.incremental_alter_configs(
                [resource], request_timeout=self._left()
            )[resource]
        )

    def make(self, topic: str, partitions: int, replicas: int, configs: Mapping[str, str]) -> None:
        """Create the topic and wait until it serves; one that is there by now is left as it is."""
        wanted = NewTopic(
            topic, num_partitions=partitions, replication_factor=replicas, config=dict(configs)
        )
        self._ask(
            lambda: self._client.create_topics([wanted], request_timeout=self._left())[topic],
            _EXISTS,
        )
        self.wait_until_led([topic])

    def widen(self, topic: str, partitions: int) -> None:
        """Add partitions up to so many."""
        more = [NewPartitions(topic, partitions)]
        self._ask(lambda: self._client.create_partitions(more, request_timeout=self._left())[topic])
        self.wait_until_led([topic])

    def remove(self, topics: Sequence[str]) -> None:
        """Delete those of the topics that are there, and wait until they are gone."""
        there = [topic for topic in topics if self.partitions(topic) is not None]
        for topic in there:
            self._ask(
                lambda topic=topic: self._client.delete_topics(  # type: ignore[misc]
                    [topic], request_timeout=self._left()
                )[topic],
                _NO_TOPIC,
            )
        while any(self.partitions(topic) is not None for topic in there):
            if self._deadline.over():
                raise self._unreachable(f"topic {there[0]} is deleted, and still there")
            self._clock.sleep(_LOOK_S)

    def starts(self, topic: str, partitions: int) -> list[int]:
        """The offset of the first record of each partition."""
        return self._offsets(topic, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]

    def ends(self, topic: str, partitions: int) -> list[int]:
        """The offset behind the last record of each partition, of open transactions too."""
        return self._offsets(topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def offsets_at(self, topic: str, partitions: int, time_ms: int) -> list[int | None]:
        """The first record of each partition that is of `time_ms` (UTC) or later; None: no such."""
        found = self._offsets(topic, partitions, OffsetSpec.for_timestamp(max(time_ms, 0)))
        return [offset if offset >= 0 else None for offset in found]

    def spans(self, counts: Mapping[str, int]) -> dict[Place, tuple[int, int]]:
        """Of each partition of topics with so many: the offset of its first record, and the end of
        what is committed (the last stable offset)."""
        where = [TopicPartition(topic, p) for topic, count in counts.items() for p in range(count)]

        def ask(spec: Any) -> list[Future[Any]]:
            asked = self._client.list_offsets(
                dict.fromkeys(where, spec),
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=self._left(),
            )
            return [asked[one] for one in where]

        if not where:
            return {}
        starts = self._ask_all(lambda: ask(OffsetSpec.earliest()))  # type: ignore[no-untyped-call]
        ends = self._ask_all(lambda: ask(OffsetSpec.latest()))  # type: ignore[no-untyped-call]
        return {
            (one.topic, one.partition): (int(start.offset), int(end.offset))
            for one, start, end in zip(where, starts, ends, strict=True)
        }

    def _offsets(self, topic: str, partitions: int, spec: Any) -> list[int]:
        where = [TopicPartition(topic, p) for p in range(partitions)]

        def ask() -> list[Future[Any]]:
            asked = self._client.list_offsets(
                dict.fromkeys(where, spec),
                isolation_level=IsolationLevel.READ_UNCOMMITTED,
                request_timeout=self._left(),
            )
            return [asked[one] for one in where]

        return [int(found.offset) for found in self._ask_all(ask)]

    # ---- groups -------------------------------------------------------------------------------

    def members(self, group: str) -> list[str]:
        """Who is in the group: `client id (host)` of each member."""
        return [f"{m.client_id} ({m.host})" for m in self.described(group)]

    def described(self, group: str) -> tuple[GroupMember, ...]:
        """The members of the group; none where there is no group."""
        return GROUPS.of(self._settings, group, self._left())

    def _describe(self, group: str) -> tuple[GroupMember, ...]:
        """As `described`, by this very process, which may die of it (group_members.py)."""
        found = self._ask(
            lambda: self._client.describe_consumer_groups([group], request_timeout=self._left())[
                group
            ],
            _NO_GROUP,
        )
        return tuple(_member(one) for one in found.members) if found else ()

    def committed(self, group: str, topic: str, partitions: int) -> list[int | None]:
        """The stable offsets of the group, by partition; None where there is none.

        Waits for transactions that are about to move one (KIP-447).
        """
        give_up = Deadline(_STABLE_S, self._clock)
        changelog = Changelog(self._settings, self._clock)
        try:
            found = changelog.stable_offsets(group, topic, range(partitions), stop=give_up.over)
        except Stopped:
            raise TaskmillError(
                f"group {group}: a worker's transaction is still open after {_STABLE_S:g} s"
            ) from None
        finally:
            changelog.close()
        offsets = (found.get(p) for p in range(partitions))
        return [None if one is None else one.offset for one in offsets]

    def remove_group(self, group: str) -> None:
        """Delete the group and its offsets, if there are any. Refused while it has members."""
        self._ask(
            lambda: self._client.delete_consumer_groups([group], request_timeout=self._left())[
                group
            ],
            _NO_GROUP,
        )

    def begin_at(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Commit these offsets for a group without members."""
        request = ConsumerGroupTopicPartitions(
            group, [TopicPartition(topic, p, offset) for p, offset in offsets.items()]
        )
        self._ask(
            lambda: self._client.alter_consumer_group_offsets(
                [request], request_timeout=self._left()
            )[group]
        )

    # ---- asking -------------------------------------------------------------------------------

    def _ask(self, ask: Callable[[], Future[Any]], harmless: frozenset[int] = frozenset()) -> Any:
        """The answer; None where it is one of these errors."""
        (answer,) = self._ask_all(lambda: [ask()], harmless)
        return answer

    def _ask_all(
        self, ask: Callable[[], list[Future[Any]]], harmless: frozenset[int] = frozenset()
    ) -> list[Any]:
        """The answers, asked for again while a leader or coordinator is being found."""
        while True:
            with self._named_errors():
                asked = ask()
            try:
                return [self._answer(one, harmless) for one in asked]
            except _NotYet:
                self._clock.sleep(_LOOK_S)

    def _answer(self, answer: Future[Any], harmless: frozenset[int]) -> Any:
        try:
            return answer.result(timeout=self._left() + 1.0)
        except KafkaException as error:
            code = error.args[0].code()
            if code in harmless:
                return None
            if code in _SETTLING and not self._deadline.over():
                raise _NotYet from None
        except TimeoutError:
            pass
        return self._result(answer)


class _NotYet(Exception):
    """Who would know is not known yet."""


def _member(told: MemberDescription) -> GroupMember:
    partitions = sorted(tp.partition for tp in told.assignment.topic_partitions)
    return GroupMember(told.client_id, told.host.lstrip("/"), tuple(partitions))


def _described(settings: Settings, group: str, timeout_s: float) -> tuple[GroupMember, ...]:
    return Admin(settings, timeout_s)._describe(group)


#: Whom this process asks for members.
GROUPS = GroupMembers(_described)
