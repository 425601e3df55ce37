"""Creates a queue's topics, checks them against the table, all within one deadline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, by its own note
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    NewTopic,
    TopicMetadata,
)

from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError, TaskmillError, Unreachable
from taskmill.runtime.kafka import bootstrap_servers, client_config
from taskmill.runtime.topic_table import (
    CO_PARTITIONED,
    OF_EVERY_QUEUE,
    OF_PEOPLE,
    SAME_COUNT,
    Drift,
    Kind,
    Topics,
    TopicSpec,
    TopicState,
    drift,
    people_spec,
    replication,
    retry_specs,
    retry_topic_of,
    schedule_specs,
    topic_specs,
)

__all__ = [
    "Drift",
    "Kind",
    "Topics",
    "check",
    "ensure",
    "ensure_people",
    "ensure_retry",
    "ensure_schedules",
    "partition_count",
    "staging",
]

DEFAULT_TIMEOUT_S = 10.0
_POLL_S = 0.02
_SILENCE = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
        KafkaError.REQUEST_TIMED_OUT,
    }
)


def staging(topic: str) -> str:
    """Where the copy of `topic` lies while the queue is migrated. No queue's name has a dot."""
    return f"{topic}.migrating"


class TopicAdmin:
    """An admin client whose calls share one deadline and end in our own errors.

    Not thread-safe; made for a handful of calls, then dropped.
    """

    def __init__(
        self, settings: Settings, timeout_s: float = DEFAULT_TIMEOUT_S, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._clock = clock
        self._deadline = Deadline(timeout_s, clock)
        try:
            self._client = AdminClient(client_config(settings, "admin", clock=clock))
        except KafkaException as error:
            raise ConfigError(f"Kafka settings: {error.args[0].str()}") from None

    def metadata(self) -> ClusterMetadata:
        """The cluster's brokers and topics."""
        with self._named_errors():
            return self._client.list_topics(timeout=self._left())

    def create(self, specs: Sequence[TopicSpec], brokers: int) -> list[str]:
        """Create them, and return the names that were new; one that exists by now is no error."""
        factor, safety = replication(self._settings, brokers)
        topics = [
            NewTopic(
                spec.name,
                num_partitions=spec.partitions,
                replication_factor=factor,
                config={**spec.configs, **safety},
            )
            for spec in specs
        ]
        created = []
        left = self._left()
        with self._named_errors():
            asked = self._client.create_topics(topics, operation_timeout=left, request_timeout=left)
        for name, answer in asked.items():
            try:
                self._result(answer)
            except _AlreadyExists:
                continue
            created.append(name)
        return created

    def configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """The topics' settings, by topic name."""
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        if not resources:
            return {}
        with self._named_errors():
            asked = self._client.describe_configs(resources, request_timeout=self._left())
        return {
            resource.name: {k: str(entry.value) for k, entry in self._result(answer).items()}
            for resource, answer in asked.items()
        }

    def wait_until_led(self, names: Iterable[str]) -> None:
        """Wait until every partition of these topics has a leader: from then on they serve."""
        waiting = set(names)
        while waiting:
            topics = self.metadata().topics
            waiting = {name for name in waiting if not _is_led(topics.get(name))}
            if waiting and self._deadline.over():
                raise self._unreachable(f"topic {min(waiting)} has no leader")
            if waiting:
                self._clock.sleep(_POLL_S)

    def _left(self) -> float:
        # librdkafka takes 0 for "no wait at all", and a late call may still be answered at once.
        return max(0.1, self._deadline.left())

    def _result(self, answer: Future[Any]) -> Any:
        with self._named_errors():
            return answer.result(timeout=self._left() + 1.0)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                raise _AlreadyExists from None
            if cause.code() in _SILENCE:
                raise self._unreachable(cause.str()) from None
            raise TaskmillError(f"Kafka refused: {cause.str()} ({cause.name()})") from None
        except TimeoutError:
            raise self._unreachable("no answer") from None

    def _unreachable(self, why: str) -> Unreachable:
        address = bootstrap_servers(self._settings)
        # The default address is a guess: say what else there is.
        guessed = self._settings.bootstrap_servers is None
        hint = "; `taskmill broker up` starts a local one" if guessed else ""
        return Unreachable(
            f"Kafka at {address} did not answer within {self._timeout_s:g} s ({why}){hint}"
        )


class _AlreadyExists(Exception):
    """Another creator was quicker."""


def _is_led(topic: TopicMetadata | None) -> bool:
    return (
        topic is not None
        and topic.error is None
        and bool(topic.partitions)
        and all(partition.leader >= 0 for partition in topic.partitions.values())
    )


def ensure(
    settings: Settings,
    queue: str,
    kinds: Iterable[Kind] = OF_EVERY_QUEUE,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    clock: Clock = SYSTEM_CLOCK,
) -> list[str]:
    """Create what is missing of the queue's topics; the names created. Existing ones are left.

    Safe beside other creators. A missing topic takes the partition count of the queue's existing
    ones rather than the settings'. Raises Unreachable at the deadline, ConfigError where existing
    topics disagree on their count, or one is missing because the queue is being migrated.
    """
    wanted = topic_specs(settings, queue, kinds)  # a wrong name is told before any broker is asked
    admin = TopicAdmin(settings, timeout_s, clock)
    cluster = admin.metadata()
    _refuse_half_migrated(settings, queue, cluster)
    counts = {
        spec.name: len(cluster.topics[spec.name].partitions)
        for spec in topic_specs(settings, queue, CO_PARTITIONED)
        if spec.name in cluster.topics
    }
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in sorted(counts.items()))
        raise ConfigError(f"queue {queue!r}: its topics must have equally many partitions ({told})")
    count = next(iter(counts.values()), settings.partitions)
    missing = [
        replace(spec, partitions=count) if spec.kind in SAME_COUNT else spec
        for spec in wanted
        if spec.name not in cluster.topics
    ]
    created = admin.create(missing, len(cluster.brokers)) if missing else []
    admin.wait_until_led(spec.name for spec in wanted)
    return created


def ensure_retry(
    settings: Settings,
    queue: str,
    tiers: Iterable[str],
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    clock: Clock = SYSTEM_CLOCK,
) -> list[str]:
    """Create what is missing of the topics of these retry tiers; the names created. As `ensure`."""
    return _ensure_all(retry_specs(settings, queue, tiers), TopicAdmin(settings, timeout_s, clock))


def ensure_schedules(
    settings: Settings, *, timeout_s: float = DEFAULT_TIMEOUT_S, clock: Clock = SYSTEM_CLOCK
) -> list[str]:
    """Create what is missing of the topics of schedules; the names created. As `ensure`."""
    return _ensure_all(schedule_specs(settings), TopicAdmin(settings, timeout_s, clock))


def ensure_people(
    settings: Settings,
    kind: Kind,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    clock: Clock = SYSTEM_CLOCK,
) -> list[str]:
    """Create that topic of OF_PEOPLE, where it is missing; the names created. As `ensure`."""
    return _ensure_all([people_spec(settings, kind)], TopicAdmin(settings, timeout_s, clock))


def _ensure_all(specs: Sequence[TopicSpec], admin: TopicAdmin) -> list[str]:
    cluster = admin.metadata()
    missing = [spec for spec in specs if spec.name not in cluster.topics]
    created = admin.create(missing, len(cluster.brokers)) if missing else []
    admin.wait_until_led(spec.name for spec in specs)
    return created


def _refuse_half_migrated(settings: Settings, queue: str, cluster: ClusterMetadata) -> None:
    """A topic that is missing beside its copy is about to be filled from that: an empty one in its
    place would have forgotten what is done."""
    for spec in topic_specs(settings, queue, CO_PARTITIONED):
        copy = cluster.topics.get(staging(spec.name))
        if copy is not None and spec.name not in cluster.topics:
            raise ConfigError(
                f"queue {queue!r} is being migrated ({spec.name} is still to be made): finish "
                f"`taskmill topics migrate -q {queue} --partitions {len(copy.partitions)}`"
            )


def check(
    settings: Settings,
    queues: Sequence[str],
    kinds: Iterable[Kind] = OF_EVERY_QUEUE,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    clock: Clock = SYSTEM_CLOCK,
) -> list[Drift]:
    """Every difference between the queues' topics and the table; empty when there is none."""
    wanted = list(kinds)
    specs = [spec for queue in queues for spec in topic_specs(settings, queue, wanted)]
    admin = TopicAdmin(settings, timeout_s, clock)
    cluster = admin.metadata()
    # Of the retry tiers there are those that were needed.
    for name in sorted(cluster.topics):
        found_queue, tier = retry_topic_of(name, settings.prefix) or ("", "")
        if found_queue in queues:
            specs += retry_specs(settings, found_queue, [tier])
    # Likewise, where something was replayed, waits for its time, or was cancelled.
    for queue in queues:
        for spec in topic_specs(settings, queue, [Kind.REPLAYED, Kind.DELAYED, Kind.CONTROL]):
            if spec.name in cluster.topics:
                count = len(cluster.topics[spec.name].partitions)
                # Whatever it was made with: nothing rests on the number.
                is_free = spec.kind is Kind.DELAYED
                specs.append(replace(spec, partitions=count) if is_free else spec)
    # And where something is scheduled; where there is a token, or something was paused.
    shared = [*schedule_specs(settings), *(people_spec(settings, kind) for kind in OF_PEOPLE)]
    specs += [spec for spec in shared if spec.name in cluster.topics]
    there = [spec.name for spec in specs if spec.name in cluster.topics]
    configs = admin.configs(there)
    found = {}
    for name in there:
        partitions = cluster.topics[name].partitions
        fewest = min((len(one.replicas) for one in partitions.values()), default=0)
        found[name] = TopicState(len(partitions), fewest, configs[name])
    return drift(specs, found, replication(settings, len(cluster.brokers)))


def partition_count(
    settings: Settings,
    topic: str,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    clock: Clock = SYSTEM_CLOCK,
) -> int | None:
    """How many partitions `topic` has; None where there is no such topic."""
    found = TopicAdmin(settings, timeout_s, clock).metadata().topics.get(topic)
    return len(found.partitions) if found is not None and found.error is None else None
