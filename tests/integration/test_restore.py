"""Restores from a real broker: what was committed, all of it, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from support.brokers import PrivateBroker, quiet_port
from support.changelogs import Background, CleanerAtOnce, Heard, Topic, as_they_are, never
from support.records import STATE
from taskmill.consumer.table import Entry, Table
from taskmill.runtime.changelog import Change, Changelog, Committed, Stopped
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import StoreDamaged, Unreachable
from taskmill.runtime.store import MemoryStore, Put, Store
from taskmill.runtime.store_open import open_store
from taskmill.schemas.codec import CODEC
from taskmill.schemas.states import Status

pytestmark = pytest.mark.kafka

DAY_MS = 86_400_000


@pytest.fixture
def changelog(settings: Settings) -> Iterator[Changelog]:
    made = Changelog(settings)
    yield made
    made.close()


@pytest.fixture
def background() -> Iterator[Background]:
    with Background() as made:
        yield made


@pytest.fixture
def heard() -> Iterator[Callable[[str], Heard]]:
    """`heard("text")` listens from then on to everything that taskmill logs."""
    root = logging.getLogger("taskmill")
    level = root.level
    root.setLevel(logging.INFO)
    made: list[Heard] = []

    def listen(text: str) -> Heard:
        made.append(Heard(text))
        root.addHandler(made[-1])
        return made[-1]

    yield listen
    root.setLevel(level)
    for one in made:
        root.removeHandler(one)


def test_a_restore_holds_the_committed_and_passes_a_tail_of_markers_and_aborted_records(
    settings: Settings, changelog: Changelog
) -> None:
    topic = Topic(settings)
    topic.commit("a", "b", value="1")
    topic.abort("a", "c", value="aborted")
    topic.commit("b", value=None)
    topic.commit("a", value="2")
    topic.abort("a", value="aborted")
    # 2 + marker, 2 + marker, 1 + marker, 1 + marker, 1 + marker.
    topic.settled(changelog, 12)
    store = MemoryStore()
    result = changelog.restore(topic.name, 0, store, as_they_are, stop=never)
    assert list(store.items()) == [(b"a", b"2")]
    assert (result.entries, result.end_offset, store.checkpoint()) == (4, 12, 12)


def test_a_restore_goes_on_at_the_checkpoint(settings: Settings, changelog: Changelog) -> None:
    topic = Topic(settings)
    store = MemoryStore()
    topic.commit("a", "b")
    assert changelog.restore(topic.name, 0, store, as_they_are, stop=never).entries == 2
    assert changelog.restore(topic.name, 0, store, as_they_are, stop=never).entries == 0
    topic.commit("c")
    topic.abort("d")
    topic.settled(changelog, 7)
    result = changelog.restore(topic.name, 0, store, as_they_are, stop=never)
    assert (result.entries, store.count(), store.checkpoint()) == (1, 3, 7)
    # As an owner leaves it: its own mark applied, the marker behind it not known.
    topic.commit("e")
    store.apply([(b"e", b"v")], 8)
    topic.settled(changelog, 9)
    result = changelog.restore(topic.name, 0, store, as_they_are, stop=never)
    assert (result.entries, result.end_offset) == (0, 9)


def test_partitions_and_topics_restored_in_turn_do_not_mix(
    settings: Settings, changelog: Changelog
) -> None:
    one, two = Topic(settings), Topic(settings)
    wanted = {}
    for topic in (one, two):
        for p in (0, 1):
            keys = [f"{topic.name}-{p}-{n}" for n in range(500)]
            topic.commit(*keys, partition=p)
            wanted[topic.name, p] = sorted(key.encode() for key in keys)
    for _ in range(2):
        for (name, p), keys in wanted.items():
            store = MemoryStore()
            changelog.restore(name, p, store, as_they_are, stop=never)
            assert [key for key, _ in store.items()] == keys


def test_the_end_is_not_the_last_stable_offset(settings: Settings, changelog: Changelog) -> None:
    """The trap: a read_committed reader's watermark says 18 where the end is 23."""
    topic = Topic(settings)
    topic.commit(*(f"k{n}" for n in range(17)))
    topic.begin(*(f"open{n}" for n in range(5)))
    reader = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": f"{settings.prefix}.trap",
            "isolation.level": "read_committed",
        }
    )
    where = TopicPartition(topic.name, 0)
    while (marks := reader.get_watermark_offsets(where)) == (0, 0):
        pass  # the first transaction's marker is still to come
    assert marks == (0, 18)
    reader.close()
    assert changelog.end_offset(topic.name, 0, stop=never) == 23
    topic.writer.abort_transaction(20)


def test_a_restore_waits_for_an_open_transaction_and_has_its_records(
    settings: Settings,
    changelog: Changelog,
    background: Background,
    heard: Callable[[str], Heard],
) -> None:
    topic = Topic(settings)
    topic.commit("a")
    other = topic.begin("late", by=topic.new_writer())
    topic.commit("behind")
    waits = heard("waits at 2 of 5, for an open transaction")
    store = MemoryStore()
    done = background.do(changelog.restore, topic.name, 0, store, as_they_are)
    assert waits.happened.wait(20)
    assert not done.done()
    assert [key for key, _ in store.items()] == [b"a"]
    other.commit_transaction(20)
    assert done.result(20).entries == 3
    assert [key for key, _ in store.items()] == [b"a", b"behind", b"late"]
    assert len(waits.lines) == 1


def test_a_restore_waits_out_a_transaction_whose_writer_is_gone(
    settings: Settings, changelog: Changelog
) -> None:
    topic = Topic(settings, timeout_ms=1000)
    topic.begin("left")
    store = MemoryStore()
    result = changelog.restore(topic.name, 0, store, as_they_are, stop=never)
    assert (result.entries, store.count(), result.end_offset) == (0, 0, 2)


def test_a_stopped_restore_keeps_what_it_read(
    settings: Settings,
    changelog: Changelog,
    background: Background,
    heard: Callable[[str], Heard],
) -> None:
    topic = Topic(settings)
    topic.commit("a")
    topic.begin("open")
    waits = heard("waits at")
    store = MemoryStore()
    done = background.do(changelog.restore, topic.name, 0, store, as_they_are)
    assert waits.happened.wait(20)
    background.stop.set()
    with pytest.raises(Stopped):
        done.result(20)
    assert (store.count(), store.checkpoint()) == (1, 2)
    topic.writer.abort_transaction(20)
    assert changelog.restore(topic.name, 0, store, as_they_are, stop=never).end_offset == 4


def test_a_restore_reads_on_when_the_registry_is_back(
    settings: Settings, changelog: Changelog, heard: Callable[[str], Heard]
) -> None:
    topic = Topic(settings)
    topic.commit("a")
    told = heard("registry away")
    tries = []

    def to_puts(changes: Sequence[Change]) -> list[Put]:
        tries.append(len(changes))
        if len(tries) < 3:
            raise Unreachable("registry away")
        return as_they_are(changes)

    store = MemoryStore()
    assert changelog.restore(topic.name, 0, store, to_puts, stop=never).entries == 1
    assert tries == [1, 1, 1]
    assert len(told.lines) == 1


def test_gaps_of_compaction_and_deletion_are_passed(
    settings: Settings, changelog: Changelog
) -> None:
    topic = Topic(
        settings,
        cleanup_policy="compact,delete",
        segment_ms="50",
        min_cleanable_dirty_ratio="0.0",
        max_compaction_lag_ms="50",
    )
    written = 0
    with CleanerAtOnce(topic.admin):
        while True:
            # Each opens a new segment, which lets the one before be compacted.
            topic.commit("a", "b", value=str(written))
            written += 2
            store = MemoryStore()
            read = changelog.restore(topic.name, 0, store, as_they_are, stop=never).entries
            last = b"%d" % (written - 2)
            assert list(store.items()) == [(b"a", last), (b"b", last)]
            if read < written:
                break
    topic.commit("c")
    end = changelog.end_offset(topic.name, 0, stop=never)
    where = TopicPartition(topic.name, 0, end)
    next(iter(topic.admin.delete_records([where]).values())).result(timeout=20)
    store = MemoryStore()
    result = changelog.restore(topic.name, 0, store, as_they_are, stop=never)
    assert result.entries == 0
    assert result.end_offset >= end


def test_a_topic_made_again_has_another_id_and_its_store_is_wiped(
    settings: Settings, changelog: Changelog, tmp_path: Path
) -> None:
    topic = Topic(settings)

    def opened() -> tuple[Store, str | None]:
        identity = changelog.topic_id(topic.name, stop=never)
        end = changelog.end_offset(topic.name, 0, stop=never)
        return open_store(tmp_path / "p0", identity, 0, end, DAY_MS)

    topic.commit("old")
    store, reason = opened()
    assert reason is None
    changelog.restore(topic.name, 0, store, as_they_are, stop=never)
    store.close(clean=True)
    store, reason = opened()
    assert (reason, store.count()) == (None, 1)
    store.close(clean=True)
    topic.delete()
    topic.create()
    topic.writer = topic.new_writer()
    topic.commit("new", "newer", "newest")
    store, reason = opened()
    assert reason is not None
    assert reason.startswith(f"it is a copy of {topic.name}/")
    changelog.restore(topic.name, 0, store, as_they_are, stop=never)
    assert [key for key, _ in store.items()] == [b"new", b"newer", b"newest"]
    store.close(clean=True)


def test_a_store_that_reaches_beyond_the_end_is_refused(
    settings: Settings, changelog: Changelog
) -> None:
    topic = Topic(settings)
    topic.commit("a")
    topic.settled(changelog, 2)
    store = MemoryStore()
    store.apply([], 3)
    with pytest.raises(StoreDamaged, match="reaches offset 3, its topic 2"):
        changelog.restore(topic.name, 0, store, as_they_are, stop=never)


def test_an_empty_partition_is_restored_at_once(settings: Settings, changelog: Changelog) -> None:
    topic = Topic(settings)
    store = MemoryStore()
    result = changelog.restore(topic.name, 1, store, as_they_are, stop=never)
    assert (result.entries, result.end_offset, store.checkpoint()) == (0, 0, 0)


def test_stable_offsets_wait_for_the_transaction_that_moves_them(
    settings: Settings,
    changelog: Changelog,
    background: Background,
    heard: Callable[[str], Heard],
) -> None:
    topic = Topic(settings)
    group = f"{settings.prefix}.group"
    reader = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": 0,
        }
    )
    reader.subscribe([topic.name])
    while len(reader.assignment()) < 2:
        reader.poll(0.1)

    def stable() -> dict[int, Committed | None]:
        return changelog.stable_offsets(group, topic.name, [0, 1], stop=never)

    assert stable() == {0: None, 1: None}
    writer = topic.begin("a")
    moved = [TopicPartition(topic.name, 0, 7, "at work")]
    writer.send_offsets_to_transaction(moved, reader.consumer_group_metadata(), 20)
    unstable = heard("unstable offsets")
    answer = background.do(changelog.stable_offsets, group, topic.name, [0, 1])
    assert unstable.happened.wait(20)
    assert not answer.done()
    writer.commit_transaction(20)
    assert answer.result(20) == stable() == {0: Committed(7, "at work"), 1: None}
    reader.close()


def test_a_table_is_restored_with_the_broker_s_times(
    settings: Settings, changelog: Changelog
) -> None:
    topic = Topic(settings)
    running = STATE._replace(id="a", status=Status.RUNNING)
    topic.begin()
    for state in (running, running._replace(status=Status.DEAD), running._replace(id="b")):
        value = CODEC.encode_state(state)
        topic.writer.produce(
            topic.name, key=state.id.encode(), value=value, partition=0, timestamp=1000
        )
    topic.writer.produce(topic.name, key=b"c", value=b"no state", partition=0)
    topic.writer.commit_transaction(20)
    table = Table(MemoryStore())
    result = changelog.restore(topic.name, 0, table.store, table.to_puts, stop=never)
    a, b, c = table.lookup([b"a", b"b", b"c"])
    assert (result.entries, table.unreadable, c) == (4, 1, None)
    assert a is not None
    assert b is not None
    assert a.status is Status.DEAD
    assert b[:3] == Entry(0, 0, Status.RUNNING, 0)[:3]
    # The broker's append time, not the producer's.
    assert a.time_ms > 1_000_000


def test_a_restore_goes_on_when_the_broker_is_back(
    settings: Settings,
    private_broker: Callable[..., PrivateBroker],
    background: Background,
    heard: Callable[[str], Heard],
) -> None:
    broker = private_broker()
    own = settings.model_copy(update={"bootstrap_servers": broker.bootstrap})
    topic = Topic(own, timeout_ms=120_000)
    topic.commit("a", "b")
    topic.begin("open when the broker was killed")
    changelog = Changelog(own)
    store = MemoryStore()
    waits = heard("waits at")
    done = background.do(changelog.restore, topic.name, 0, store, as_they_are)
    assert waits.happened.wait(20)
    away = heard(f"Kafka at {broker.bootstrap}")
    broker.kill()
    assert away.happened.wait(60)
    assert not done.done()
    broker.restart()
    topic.writer.abort_transaction(60)
    assert done.result(60).entries == 2
    # The leader's epoch is another one since, which a client that knows the old one must notice.
    result = changelog.restore(topic.name, 0, store, as_they_are, stop=never)
    assert (result.entries, store.count()) == (0, 2)
    changelog.close()


def test_a_broker_that_is_not_there_can_be_given_up(
    settings: Settings, background: Background, heard: Callable[[str], Heard]
) -> None:
    address = f"127.0.0.1:{quiet_port()}"
    nowhere = settings.model_copy(update={"bootstrap_servers": address})
    changelog = Changelog(nowhere)
    away = heard("changelog: ")
    done = background.do(changelog.end_offset, "t", 0)
    assert away.happened.wait(30)
    background.stop.set()
    with pytest.raises(Stopped):
        done.result(5)
    changelog.close()
