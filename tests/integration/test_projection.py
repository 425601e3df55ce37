"""What a console's projection finds, passes over, waits for, and says of itself."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from support.brokers import PrivateBroker
from support.postgres import Postgres
from support.projected import expected, picture, records_of
from support.projecting import Life, caught_up, child, kill, projecting, until
from support.states import make_state
from taskmill.console.projection.projector import Projector
from taskmill.console.store.open import open_store
from taskmill.console.store.rows import LetterFilter
from taskmill.consumer.admin import Admin
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Kind, Topics, ensure
from taskmill.schemas.states import Status

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


@pytest.fixture
def topics(settings: Settings) -> Topics:
    ensure(settings, "default")
    return Topics(settings.prefix, "default")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/console.db"


def test_garbage_is_counted_and_passed_over(
    settings: Settings, topics: Topics, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    life = Life(settings, 1)
    with projecting(settings, url) as (store, projector):
        for topic in (topics.tasks, topics.state, topics.results):
            life.put_raw(topic, b"\xc3\x01garbage")
        life.put_task("wrong", generation=-1)
        life.some(20)
        caught_up(store)
        assert projector.status.unreadable == 4
        assert projector.status.trouble is None
        assert picture(store) == expected(
            seen for seen in records_of(settings) if seen.record.id != "wrong"
        )
        fresh = store.freshness()
    assert fresh.lag == 0, "markers of transactions do not count"
    assert {topic.topic for topic in fresh.topics} == {
        *(topics.tasks, topics.state, topics.results, topics.dlq)
    }
    assert "cannot be read and is passed over" in caplog.text


def test_a_new_queue_is_found_and_a_topic_made_anew_is_read_anew(
    settings: Settings, topics: Topics, url: str
) -> None:
    first = Life(settings, 2)
    with projecting(settings, url) as (store, projector):
        first.some(10)
        caught_up(store)
        ensure(settings, "mail")
        Life(settings, 3, "mail").some(30)
        until(lambda: len(store.tasks()) > 10, "tasks of the new queue")
        caught_up(store)
        assert {row.queue for row in store.counts()} == {"default", "mail"}
        known = picture(store).tasks
        admin = Admin(settings, 30)
        admin.remove([topics.state])
        ensure(settings, "default")
        Life(settings, 4).some(5)
        until(lambda: projector.status.remade > 0, "the topic is known to be another")
        caught_up(store)
        # What was known stays, and what is new is taken in.
        assert known.keys() <= picture(store).tasks.keys()
        ids = {seen.record.id for seen in records_of(settings)}
        assert ids <= picture(store).tasks.keys()


def test_records_deleted_before_they_were_read_are_said_and_passed(
    settings: Settings, topics: Topics, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    life = Life(settings, 5)
    life.put_task("before")
    with projecting(settings, url) as (store, _):
        life.some(1)
        caught_up(store)
    for number in range(20):
        life.put_task(f"gone{number}")
    life.some(1)
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    ends = Admin(settings).ends(topics.tasks, settings.partitions)
    cuts = [TopicPartition(topics.tasks, p, end) for p, end in enumerate(ends)]
    for answer in admin.delete_records(cuts).values():
        answer.result(20)
    life.put_task("after")
    life.some(1)
    with caplog.at_level(logging.WARNING), projecting(settings, url) as (store, projector):
        caught_up(store)
        assert store.task("default", "after") is not None
        assert store.task("default", "gone0") is None
    assert projector.status.cut >= 1
    assert "was deleted before it was read" in caplog.text


def test_letters_and_that_they_were_replayed(settings: Settings, topics: Topics, url: str) -> None:
    ensure(settings, "default", [Kind.REPLAYED])
    dlq_id = Admin(settings).topic_id(topics.dlq)
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    headers = {
        *(("reason", "failed"), ("task", "add"), ("error-type", "ValueError"), ("attempts", "5")),
        *(("error-message", "no\0pe"), ("error-fingerprint", "f00"), ("generation", "2")),
    }
    named: list[tuple[str, str | bytes | None]] = [
        (f"taskmill-{n}", v.encode()) for n, v in headers
    ]
    producer.produce(topics.dlq, b"bytes", b"id1", 0, headers=named)
    producer.produce(topics.dlq, b"bytes", None, 0)
    told = {
        "replay": "r1",
        "at": int(time.time() * 1000),
        "generation": 3,
        "known": True,
        "letters": [[0, 1], [0, 9]],
    }
    for dlq in (dlq_id, "another"):
        producer.produce(topics.replayed, json.dumps({**told, "dlq_id": dlq}).encode(), b"id1", 0)
    producer.produce(topics.replayed, b"nonsense", b"id1", 0)
    producer.flush(10)
    with projecting(settings, url) as (store, projector):
        caught_up(store)
        (left,) = store.letters()
        assert (left.id, left.name, left.reason, left.attempts) == ("id1", "add", "failed", 5)
        assert (left.error_message, left.generation) == ("no\0pe", 2)
        both = store.letters(LetterFilter(replayed_too=True))
        assert [(one.offset, one.replay) for one in both] == [(1, "r1"), (0, None)]
        assert (both[0].id, both[0].reason, projector.status.unreadable) == (None, "unknown", 1)


def test_behind_an_open_transaction_it_knows_that_it_does_not_know(
    settings: Settings, topics: Topics, url: str
) -> None:
    life = Life(settings, 6)
    with projecting(settings, url) as (store, _):
        life.some(5)
        caught_up(store)
        with life._writer.transaction() as states:
            states.put(make_state("open", Status.SUCCEEDED))
            states._producer.flush(10)
            now = time.time() * 1000
            until(lambda: store.freshness().lag == 1, "a record that is not committed")
            assert store.task("default", "open") is None
            assert store.freshness().as_of <= now + 1000
        caught_up(store)
        assert store.task("default", "open") is not None
        assert store.freshness().lag == 0


@pytest.mark.postgres
def test_of_several_consoles_one_projects_and_another_takes_over(
    settings: Settings, topics: Topics, database: str
) -> None:
    life = Life(settings, 7)
    process = child(settings, database)
    with projecting(settings, database) as (store, second):
        life.some(20)
        caught_up(store)
        assert not second.status.leads
        kill(process)
        life.some(20)
        caught_up(store)
        assert second.status.leads
        third = open_store(database)
        other = Projector(settings, third)
        other.start()
        life.some(20)
        caught_up(third)
        assert not other.status.leads
        second.close()
        # Left in order, the lead is free at once: long before the lease of 6 s is over.
        until(lambda: other.status.leads, "the third leads", 3)
        life.some(20)
        caught_up(third)
        assert picture(third) == expected(records_of(settings))
        other.close()
        third.close()


@pytest.mark.postgres
def test_a_store_that_is_away_is_waited_for(
    settings: Settings, topics: Topics, private_postgres: Postgres
) -> None:
    life = Life(settings, 8)
    with projecting(settings, private_postgres.database("c")) as (store, projector):
        life.some(20)
        caught_up(store)
        private_postgres.kill()
        life.some(20)
        until(lambda: "the store at" in (projector.status.trouble or ""), "it says so")
        private_postgres.start()
        caught_up(store)
        assert projector.status.trouble is None
        assert picture(store) == expected(records_of(settings))


def test_kafka_away_is_waited_for(
    settings: Settings, url: str, private_broker: Callable[..., PrivateBroker]
) -> None:
    broker = private_broker()
    away = settings.model_copy(update={"bootstrap_servers": broker.bootstrap, "prefix": "away"})
    ensure(away, "default")
    life = Life(away, 9)
    with projecting(away, url) as (store, _):
        life.some(20)
        caught_up(store)
        broker.kill()
        stopped = store.freshness().as_of
        time.sleep(3)
        assert store.freshness().as_of <= stopped + 2000, "nothing newer is known"
        broker.restart()
        caught_up(store)
        Life(away, 10).some(20)
        caught_up(store)
        assert picture(store) == expected(records_of(away))
