"""Finished tasks leave their topic, unread ones never do: DeleteRecords on a real broker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from support.clocks import HandClock
from support.oracle import Oracle
from support.protocols import owner
from support.wire import ids_on
from support.workers import WorkerProcess, runs
from taskmill.consumer.core import Core
from taskmill.consumer.record import Lease
from taskmill.consumer.retention import WAIT_S, WORTH_RECORDS, Retention
from taskmill.runtime.changelog import Changelog
from taskmill.runtime.clock import Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

pytestmark = pytest.mark.kafka

HOUR_MS = 3_600_000


class Clock(HandClock):
    """Says when it is asked for the wall time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Callable[[], object] = lambda: None

    def now_ms(self) -> int:
        self.asked()
        return super().now_ms()


class House:
    """A queue whose partitions are owned here, without a worker; its topic as anybody sees it."""

    def __init__(self, settings: Settings) -> None:
        ensure(settings, "default")
        self.settings = settings
        self.bootstrap = str(settings.bootstrap_servers)
        self.oracle = Oracle(self.bootstrap, settings.prefix)
        self.topic, self.group = self.oracle.tasks, self.oracle.group
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap})
        # A broker that has just started may still have to make the group's coordinator.
        changelog = Changelog(settings)
        changelog.stable_offsets(self.group, self.topic, [0], stop=lambda: False)
        changelog.close()
        self.clock = Clock()
        self.core = Core(owner(), self.clock, 10**9)

    def own(self, *partitions: int) -> None:
        self.core.protocol = owner(*partitions)

    def be_late(self, ms: int) -> None:
        """It is `ms` after the newest record was appended."""
        self.clock.ms = max(record.timestamp for record in self.oracle.read(self.topic)) + ms

    def retention(self, age_ms: int) -> Retention:
        settings = self.settings.model_copy(update={"tasks_retention_ms": age_ms})
        return Retention(self.core, settings, self.topic, self.group)

    def step(self, retention: Retention) -> None:
        """One look at the partitions, as the upkeep has it done: where Kafka gave no answer in the
        two seconds of a call, which a busy machine may not, it is done again."""
        give_up = Deadline(30.0)
        while True:
            try:
                return retention.step()
            except KafkaException as error:
                if error.args[0].code() != KafkaError._TIMED_OUT or give_up.over():
                    raise

    def put(self, partition: int, count: int, stem: str = "t") -> list[int]:
        """Put so many tasks on a partition; where they lie."""
        ids = ids_on(partition, self.settings.partitions, count, stem)
        return [place.offset for place in self.oracle.put_tasks(ids, "noop")]

    def commit(self, partition: int, offset: int) -> None:
        """Commit it for the group, which has no members."""
        with self.member() as consumer:
            at = TopicPartition(self.topic, partition, offset)
            consumer.commit(offsets=[at], asynchronous=False)

    def member(self) -> Consumer:
        """A client of the group that does not join it."""
        return Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.group})

    def start(self, partition: int) -> int:
        """Where the log of a partition starts."""
        at = TopicPartition(self.topic, partition)
        return self.admin.list_offsets({at: OffsetSpec.earliest()})[at].result(10).offset

    def configure(self, name: str, value: str) -> None:
        """Set one of the topic's settings."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, self.topic, incremental_configs=[entry])
        for answer in self.admin.incremental_alter_configs([resource]).values():
            answer.result(10)


@pytest.fixture
def house(settings: Settings) -> House:
    return House(settings)


def test_what_is_committed_goes_and_what_is_not_stays(house: House) -> None:
    house.put(0, 10)
    house.put(1, 10)
    house.commit(0, 7)
    house.own(0, 1)
    house.step(house.retention(0))
    assert house.start(0) == 7
    assert house.start(1) == 0  # the group has no offset for it


def test_what_is_younger_than_the_retention_stays(house: House) -> None:
    house.put(0, 5)
    old = house.oracle.read(house.topic)[-1]
    while (newest := house.oracle.read(house.topic)[-1]).timestamp == old.timestamp:
        house.put(0, 1, "young")
    house.commit(0, newest.offset + 1)
    house.own(0)
    house.be_late(HOUR_MS)
    house.step(house.retention(HOUR_MS))
    assert house.start(0) == newest.offset


def test_of_old_tasks_those_that_are_not_committed_stay(house: House) -> None:
    house.put(0, 10)
    house.commit(0, 4)
    house.own(0)
    house.be_late(HOUR_MS + 1)
    house.step(house.retention(HOUR_MS))
    assert house.start(0) == 4


def test_an_offset_that_an_open_transaction_may_yet_commit_does_not_count(house: House) -> None:
    house.put(0, 10)
    house.commit(0, 3)
    house.own(0)
    producer = Producer(
        {"bootstrap.servers": house.bootstrap, "transactional.id": f"{house.settings.prefix}-open"}
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    at = TopicPartition(house.topic, 0, 9)
    with house.member() as member:
        producer.send_offsets_to_transaction([at], member.consumer_group_metadata(), 20)
        retention = house.retention(0)
        house.step(retention)
        assert house.start(0) == 3
        producer.commit_transaction(20)
        assert member.committed([at], 20)[0].offset == 9  # waits for the transaction's end
    house.step(retention)
    assert house.start(0) == 9


def test_a_partition_that_is_not_owned_is_left_alone(house: House) -> None:
    for p in (0, 1):
        house.put(p, 10)
        house.commit(p, 10)
    house.own(1)
    house.step(house.retention(0))
    assert (house.start(0), house.start(1)) == (0, 10)


def test_a_partition_lost_while_its_offsets_are_asked_for_is_left_alone(house: House) -> None:
    house.put(0, 10)
    house.commit(0, 10)
    house.own(0)
    house.be_late(HOUR_MS + 1)
    lost: list[Lease] = []
    house.clock.asked = lambda: lost.extend(house.core.protocol.lost([0]))
    house.step(house.retention(HOUR_MS))
    assert [lease.partition for lease in lost] == [0]
    assert house.start(0) == 0


def test_a_few_records_wait_for_more_but_no_longer_than_an_hour(house: House) -> None:
    house.put(0, 10)
    house.own(0)
    house.be_late(HOUR_MS + 1)
    retention = house.retention(HOUR_MS)
    house.commit(0, 2)
    house.step(retention)  # the first look tells where the log starts
    assert house.start(0) == 2
    house.commit(0, 5)
    house.step(retention)
    assert house.start(0) == 2
    house.clock.seconds += WAIT_S
    house.step(retention)
    assert house.start(0) == 5
    offsets = house.put(0, WORTH_RECORDS)
    house.be_late(HOUR_MS + 1)
    house.commit(0, offsets[-1])
    house.step(retention)
    assert house.start(0) == offsets[-1]


def test_a_broker_that_refuses_is_told_of_once_and_the_worker_goes_on(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.configure("cleanup.policy", "compact")  # Kafka deletes no records of such a topic
    house.put(0, 10)
    house.commit(0, 10)
    house.own(0)
    retention = house.retention(0)
    with caplog.at_level(logging.INFO, "taskmill.worker"):
        house.step(retention)
        house.step(retention)
    (told,) = caplog.records
    assert told.levelno == logging.ERROR
    assert house.topic in told.getMessage()
    assert "DELETE" in told.getMessage()
    house.configure("cleanup.policy", "delete")
    house.step(retention)
    assert house.start(0) == 10


def test_a_worker_deletes_what_it_has_done_and_runs_the_next(
    house: House, settings: Settings, tmp_path: Path
) -> None:
    at_once = settings.model_copy(update={"tasks_retention_ms": 0})
    first = ids_on(0, 2, 20, "first")
    with WorkerProcess(at_once, tmp_path, env={"TASKMILL_LOG_LEVEL": "DEBUG"}) as worker:
        house.oracle.put_tasks(first, "noop")
        house.oracle.wait_states(first)
        worker.wait_for(r"deleted .*\[0\] below 20\b", timeout_s=40)
        assert house.start(0) == 20
        second = ids_on(0, 2, 20, "second")
        house.oracle.put_tasks(second, "noop")
        house.oracle.wait_states(second)
        assert worker.terminate() == 0
    assert sorted(runs(tmp_path)) == sorted(first + second)


def test_a_log_that_starts_beyond_the_committed_offset_loses_and_repeats_nothing(
    house: House, settings: Settings, tmp_path: Path
) -> None:
    done = ids_on(0, 2, 10, "done")
    with WorkerProcess(settings, tmp_path) as worker:
        house.oracle.put_tasks(done, "noop")
        house.oracle.wait_states(done)
        assert worker.terminate() == 0
    house.own(0)
    house.step(house.retention(0))
    start = house.start(0)
    assert start >= 10
    house.commit(0, 3)  # as an operator resets it, or a restored backup of the cluster has it
    waiting = ids_on(0, 2, 10, "waiting")
    house.oracle.put_tasks(waiting, "noop")
    with WorkerProcess(settings, tmp_path) as worker:
        house.oracle.wait_states(waiting)
        assert worker.terminate() == 0
    assert sorted(runs(tmp_path)) == sorted(done + waiting)
    assert house.oracle.committed()[0] >= start + 10
