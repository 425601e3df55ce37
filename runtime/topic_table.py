"""The topics of a queue as data: their names, the table of what each must be, and drift from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from taskmill.runtime.config import TIER, Settings, check_queue, table_segment_ms

_SECOND_MS = 1000
_MINUTE_MS = 60 * _SECOND_MS
_HOUR_MS = 60 * _MINUTE_MS
_DAY_MS = 24 * _HOUR_MS

#: How long letters lie.
_LETTERS_MS = 30 * _DAY_MS

#: Room above a task's own bytes for its key (at most 512), its headers and Kafka's framing; and
#: above that again for what a dead letter carries on top (a stack of 4 KiB, an error, its origin).
HEADROOM_BYTES = 64 * 1024

#: Letters are few, and read by people; what waits for its next attempt is passed on in batches:
#: parallelism buys little there.
_FEW_PARTITIONS = 3


class Kind(StrEnum):
    """What a topic is for; the middle part of its name."""

    TASKS = "tasks"
    STATE = "state"
    RESULTS = "results"
    DLQ = "dlq"
    RETRY = "retry"
    REPLAYED = "replayed"
    DELAYED = "delayed"
    CONTROL = "control"
    SCHEDULES = "schedules"
    SCHEDULE_STATE = "schedule-state"
    SETTINGS = "settings"
    TOKENS = "tokens"


#: What belongs to all queues together, from the first schedule on; partition p of the one belongs
#: to whoever owns p of the other.
OF_SCHEDULES = (Kind.SCHEDULES, Kind.SCHEDULE_STATE)

#: One each for all queues together, made with the first record: what people set while all runs
#: (pauses), and who may use the console. All that care read all of it: one partition.
OF_PEOPLE = (Kind.SETTINGS, Kind.TOKENS)

#: What every queue has. The topics of its retry tiers come into being with the first that waits,
#: and so does DELAYED; REPLAYED with the first replay, CONTROL with the first cancellation.
OF_EVERY_QUEUE = (Kind.TASKS, Kind.STATE, Kind.RESULTS, Kind.DLQ)


#: Partition p of one belongs to whoever owns p of the others, so their counts are equal.
CO_PARTITIONED = frozenset({Kind.TASKS, Kind.STATE, Kind.RESULTS})
#: Made with as many partitions as those have then; CONTROL is not moved by a migration, but made
#: anew.
SAME_COUNT = CO_PARTITIONED | {Kind.CONTROL}

#: As many partitions as those, when it is made: schedulers share them. It keeps its count.
_MANY_PARTITIONS = SAME_COUNT | {Kind.DELAYED}


@dataclass(frozen=True, slots=True)
class Topics:
    """The full names of a queue's topics: `<prefix>.<kind>.<queue>`."""

    prefix: str
    queue: str

    def __post_init__(self) -> None:
        check_queue(self.queue)

    def name(self, kind: Kind) -> str:
        """The topic of that kind."""
        return f"{self.prefix}.{kind}.{self.queue}"

    @property
    def tasks(self) -> str:
        """Where tasks are put."""
        return self.name(Kind.TASKS)

    @property
    def state(self) -> str:
        """The idempotency table and status feed."""
        return self.name(Kind.STATE)

    @property
    def results(self) -> str:
        """Results and errors too large for a state record."""
        return self.name(Kind.RESULTS)

    def retry(self, tier: str) -> str:
        """Where tasks wait for `tier` (a duration such as "10s") until their next attempt."""
        return f"{self.name(Kind.RETRY)}.{tier}"

    @property
    def delayed(self) -> str:
        """Where tasks wait for their exact time."""
        return self.name(Kind.DELAYED)

    @property
    def dlq(self) -> str:
        """Dead letters: the original bytes."""
        return self.name(Kind.DLQ)

    @property
    def replayed(self) -> str:
        """Which letters and tasks were replayed, and as which generation."""
        return self.name(Kind.REPLAYED)

    @property
    def control(self) -> str:
        """What is asked of tasks that were enqueued: to be cancelled."""
        return self.name(Kind.CONTROL)


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What a topic must be. `configs` are Kafka's topic settings, as the broker tells them."""

    name: str
    kind: Kind
    partitions: int
    configs: Mapping[str, str]


def topic_specs(
    settings: Settings, queue: str, kinds: Iterable[Kind] = OF_EVERY_QUEUE
) -> list[TopicSpec]:
    """The queue's topics as `settings` want them, replication aside (see `replication`)."""
    topics = Topics(settings.prefix, queue)
    configs = _configs(settings)
    return [
        TopicSpec(
            name=topics.name(kind),
            kind=kind,
            partitions=settings.partitions if kind in _MANY_PARTITIONS else _FEW_PARTITIONS,
            configs=configs[kind],
        )
        for kind in kinds
    ]


def retry_specs(settings: Settings, queue: str, tiers: Iterable[str]) -> list[TopicSpec]:
    """The topics of the queue's retry tiers."""
    topics = Topics(settings.prefix, queue)
    configs = _configs(settings)[Kind.RETRY]
    return [TopicSpec(topics.retry(t), Kind.RETRY, _FEW_PARTITIONS, configs) for t in tiers]


def schedules_topic(prefix: str) -> str:
    """Where schedules lie, and the group of those that serve them; no queue's topic has two parts
    only."""
    return f"{prefix}.{Kind.SCHEDULES}"


def schedule_state_topic(prefix: str) -> str:
    """How far each schedule has come."""
    return f"{prefix}.{Kind.SCHEDULE_STATE}"


def schedule_specs(settings: Settings) -> list[TopicSpec]:
    """The topics of schedules. Whoever takes over reads all of them, so they are kept near their
    live size; a schedule holds its task's arguments."""
    configs = {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "compact",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "segment.bytes": str(16 * 1024 * 1024),
        "segment.ms": str(6 * _HOUR_MS),
        "min.cleanable.dirty.ratio": "0.2",
        "delete.retention.ms": str(_DAY_MS),
        "max.message.bytes": str(max_task_record_bytes(settings)),
    }
    return [
        TopicSpec(f"{settings.prefix}.{kind}", kind, _FEW_PARTITIONS, configs)
        for kind in OF_SCHEDULES
    ]


def people_spec(settings: Settings, kind: Kind) -> TopicSpec:
    """A topic of OF_PEOPLE; no queue's topic has two parts only."""
    configs = {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "compact",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "segment.ms": str(_DAY_MS),
        "min.cleanable.dirty.ratio": "0.2",
        "delete.retention.ms": str(_DAY_MS),
        "max.message.bytes": str(1024 * 1024),
    }
    return TopicSpec(f"{settings.prefix}.{kind}", kind, 1, configs)


def retry_group(prefix: str) -> str:
    """The consumer group of all that pass on retries under `prefix`."""
    return f"{prefix}.retry"


def delayed_group(prefix: str) -> str:
    """The consumer group of all that pass on delayed tasks under `prefix`."""
    return f"{prefix}.delayed"


def queue_of(name: str, kind: Kind, prefix: str) -> str | None:
    """The queue whose topic of `kind` has that name; None where it is none under `prefix`."""
    stem = f"{prefix}.{kind}."
    queue = name.removeprefix(stem)
    return queue if name.startswith(stem) and "." not in queue else None


def retry_topic_of(name: str, prefix: str) -> tuple[str, str] | None:
    """Queue and tier of a retry topic's `name`; None where it is none under `prefix`."""
    stem = f"{prefix}.{Kind.RETRY}."
    queue, dot, tier = name.removeprefix(stem).partition(".")
    if not name.startswith(stem) or not dot or not TIER.fullmatch(tier):
        return None
    return queue, tier


def replication(settings: Settings, brokers: int) -> tuple[int, dict[str, str]]:
    """Replication factor in a cluster of so many brokers, and the topic settings that go with it.

    With three replicas an acknowledged record is on two of them, and one broker may be away.
    """
    factor = settings.replication_factor or (3 if brokers >= 3 else 1)
    return factor, {
        "min.insync.replicas": "2" if factor >= 3 else "1",
        "unclean.leader.election.enable": "false",
    }


def max_task_record_bytes(settings: Settings) -> int:
    """The largest record that `tasks` takes (max.message.bytes)."""
    return settings.max_task_bytes + HEADROOM_BYTES


def _configs(settings: Settings) -> dict[Kind, dict[str, str]]:
    # The broker's clock everywhere: a record stamped by a client in seconds instead of
    # milliseconds would be 50 years old at once, and deleted by any time retention.
    shared = {"message.timestamp.type": "LogAppendTime", "retention.bytes": "-1"}
    tasks_bytes = max_task_record_bytes(settings)
    letter_bytes = tasks_bytes + HEADROOM_BYTES
    window = settings.dedup_window_ms
    table = {
        "cleanup.policy": "compact,delete",
        "retention.ms": str(window),
        # Only closed segments are cleaned: small and short, so that the table stays near its
        # live size; with a short window, several to a window.
        "segment.bytes": str(64 * 1024 * 1024),
        "segment.ms": str(table_segment_ms(window)),
        "min.cleanable.dirty.ratio": "0.2",
        # How long a local copy may be away and still see every deletion.
        "delete.retention.ms": str(_DAY_MS),
    }
    return {
        Kind.TASKS: {
            **shared,
            "cleanup.policy": "delete",
            # Time must not delete a task that nobody has read; the owner deletes what is done.
            "retention.ms": "-1",
            "max.message.bytes": str(tasks_bytes),
        },
        # As tasks, which lie here for a time.
        Kind.RETRY: {
            **shared,
            "cleanup.policy": "delete",
            "retention.ms": "-1",
            "max.message.bytes": str(tasks_bytes),
        },
        # Compacted alone: what waits for a year is not forgotten. A local copy may be away for a
        # while and still see each deletion.
        Kind.DELAYED: {
            **shared,
            **table,
            "cleanup.policy": "compact",
            "retention.ms": "-1",
            "delete.retention.ms": str(7 * _DAY_MS),
            "segment.ms": str(6 * _HOUR_MS),
            "max.message.bytes": str(tasks_bytes),
        },
        Kind.STATE: {**shared, **table, "max.message.bytes": str(1024 * 1024)},
        Kind.RESULTS: {**shared, **table, "max.message.bytes": str(letter_bytes)},
        Kind.DLQ: {
            **shared,
            "cleanup.policy": "delete",
            "retention.ms": str(_LETTERS_MS),
            "max.message.bytes": str(letter_bytes),
        },
        # A letter may outlive its retention by the segment that it lies in, which is closed after
        # Kafka's default of a week; that it was replayed must be known for longer.
        Kind.REPLAYED: {
            **shared,
            "cleanup.policy": "delete",
            "retention.ms": str(_LETTERS_MS + 8 * _DAY_MS),
            "max.message.bytes": str(1024 * 1024),
        },
        # A worker's place here moves with its other transactions only, and brokers forget one that
        # has not moved for a week (their default): by then nothing may lie here that it had passed.
        Kind.CONTROL: {
            **shared,
            "cleanup.policy": "delete",
            "retention.ms": str(3 * _DAY_MS),
            "segment.ms": str(_DAY_MS),
            "max.message.bytes": str(1024 * 1024),
        },
    }


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference between a topic and its row in the table."""

    topic: str
    what: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class TopicState:
    """What a topic is."""

    partitions: int
    replication_factor: int
    configs: Mapping[str, str]


def drift(
    specs: Sequence[TopicSpec],
    found: Mapping[str, TopicState],
    replicas: tuple[int, Mapping[str, str]],
) -> list[Drift]:
    """All differences between `specs` and what was `found` (by topic name)."""
    factor, safety = replicas
    differences: list[Drift] = []
    for spec in specs:
        state = found.get(spec.name)
        if state is None:
            differences.append(Drift(spec.name, "topic", "exists", "missing"))
            continue
        rows = [
            ("partitions", str(spec.partitions), str(state.partitions)),
            ("replication factor", str(factor), str(state.replication_factor)),
            *(
                (name, value, state.configs.get(name, "unset"))
                for name, value in sorted({**spec.configs, **safety}.items())
            ),
        ]
        differences += [
            Drift(spec.name, what, want, have) for what, want, have in rows if want != have
        ]
    return differences
