"""Topics on a real broker: created once by many, found to drift, refused in time."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Message, Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
)

from taskmill.cli.main import cli
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError, Unreachable
from taskmill.runtime.partition import partition_for
from taskmill.runtime.topic_table import OF_EVERY_QUEUE
from taskmill.runtime.topics import Kind, Topics, check, ensure, partition_count

pytestmark = pytest.mark.kafka


def admin(settings: Settings) -> AdminClient:
    return AdminClient({"bootstrap.servers": settings.bootstrap_servers})


def set_config(settings: Settings, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(
        name,
        value,
        source=ConfigSource.DYNAMIC_TOPIC_CONFIG,
        incremental_operation=AlterConfigOpType.SET,
    )
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    client = admin(settings)  # held: its answers end with it
    for answer in client.incremental_alter_configs([resource]).values():
        answer.result(timeout=10)


def run(settings: Settings, *arguments: str) -> Result:
    env = {
        "TASKMILL_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "TASKMILL_PREFIX": settings.prefix,
        "TASKMILL_PARTITIONS": str(settings.partitions),
    }
    return CliRunner(env=env).invoke(cli, arguments)


def test_topics_are_created_once_and_then_have_no_drift(settings: Settings) -> None:
    topics = Topics(settings.prefix, "default")
    assert ensure(settings, "default", [Kind.TASKS]) == [topics.tasks]
    assert set(ensure(settings, "default")) == {topics.state, topics.results, topics.dlq}
    assert ensure(settings, "default") == []
    assert check(settings, ["default"]) == []
    assert partition_count(settings, topics.state) == 2
    assert partition_count(settings, f"{settings.prefix}.nothing") is None


def test_many_creators_at_once_all_succeed_and_each_topic_is_created_by_one(
    settings: Settings,
) -> None:
    with ThreadPoolExecutor(4) as pool:
        created = list(pool.map(lambda _: ensure(settings, "default"), range(4)))
    names = [name for one in created for name in one]
    assert sorted(names) == sorted(
        Topics(settings.prefix, "default").name(kind) for kind in OF_EVERY_QUEUE
    )


def test_a_missing_topic_takes_the_partition_count_of_the_queues_others(
    settings: Settings,
) -> None:
    ensure(settings, "default", [Kind.TASKS])
    wider = settings.model_copy(update={"partitions": 3})
    ensure(wider, "default")
    topics = Topics(settings.prefix, "default")
    assert partition_count(settings, topics.state) == 2
    assert {(d.topic, d.what) for d in check(wider, ["default"])} == {
        (topics.tasks, "partitions"),
        (topics.state, "partitions"),
        (topics.results, "partitions"),
    }


def test_topics_of_one_owner_with_unequal_counts_are_refused(settings: Settings) -> None:
    topics = Topics(settings.prefix, "default")
    ensure(settings, "default", [Kind.TASKS])
    client = admin(settings)
    (created,) = client.create_topics([NewTopic(topics.state, 5, 1)]).values()
    created.result(timeout=10)
    with pytest.raises(ConfigError, match=r"state\.default has 5, .*tasks\.default has 2"):
        ensure(settings, "default")


def test_the_commands_create_check_and_end_with_1_on_drift(settings: Settings) -> None:
    topics = Topics(settings.prefix, "default")
    missing = run(settings, "topics", "check", "--json")
    assert missing.exit_code == 1
    assert {row["found"] for row in json.loads(missing.stdout)["drift"]} == {"missing"}

    created = run(settings, "topics", "create", "-q", "default", "--json")
    assert created.exit_code == 0
    rows = {row["topic"]: row["created"] for row in json.loads(created.stdout)["topics"]}
    tiers = [topics.retry(tier) for tier in settings.retry_tiers]
    assert rows == dict.fromkeys([*map(topics.name, OF_EVERY_QUEUE), *tiers], True)
    again = run(settings, "topics", "create")
    assert again.exit_code == 0
    assert again.stdout.count("exists") == 8

    assert run(settings, "topics", "check").exit_code == 0
    set_config(settings, topics.tasks, "retention.ms", "60000")
    drifted = run(settings, "topics", "check")
    assert drifted.exit_code == 1
    (line,) = [line for line in drifted.stdout.splitlines() if topics.tasks in line]
    assert line.split() == [topics.tasks, "retention.ms", "-1", "60000"]


def test_a_broker_that_is_away_is_unreachable_in_time_and_named(settings: Settings) -> None:
    # The discard port: nobody listens there.
    away = settings.model_copy(update={"bootstrap_servers": "127.0.0.1:9"})
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 did not answer within 0\.5 s"):
        ensure(away, "default", timeout_s=0.5)
    assert time.monotonic() - began < 3


def test_a_record_as_large_as_a_task_may_be_passes_with_its_key_and_headers(
    settings: Settings,
) -> None:
    small = settings.model_copy(update={"max_task_bytes": 100_000})
    ensure(small, "default", [Kind.TASKS, Kind.DLQ])
    topics = Topics(settings.prefix, "default")
    value, key = bytes(100_000), b"k" * 512
    headers = [("h", b"x" * 30_000)]
    assert delivered(small, topics.tasks, [(key, value)], headers)
    assert delivered(small, topics.dlq, [(key, value)], [*headers, ("stack", b"s" * 8192)])


def test_our_partition_of_a_key_is_the_producers(settings: Settings) -> None:
    ensure(settings, "default", [Kind.TASKS])
    topic = Topics(settings.prefix, "default").tasks
    keys = [f"id-{n}".encode() for n in range(200)]
    for message in delivered(settings, topic, [(key, b"") for key in keys]):
        assert message.partition() == partition_for(message.key(), 2)


def delivered(
    settings: Settings,
    topic: str,
    records: Sequence[tuple[bytes, bytes]],
    headers: list[tuple[str, bytes]] | None = None,
) -> list[Message]:
    """Produce by the Java client's rule and return what the broker acknowledged: all of it."""
    done: list[Message] = []

    def report(error: object, message: Message) -> None:
        assert error is None
        done.append(message)

    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "partitioner": "murmur2_random",
            "message.max.bytes": 10_000_000,
        }
    )
    for key, value in records:
        producer.produce(topic, value, key, headers=headers or [], on_delivery=report)
    assert producer.flush(20) == 0
    assert len(done) == len(records)
    return done
