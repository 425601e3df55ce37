"""The table of topics: names, sizes and settings, and what counts as drift from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError
from taskmill.runtime.topic_table import (
    CO_PARTITIONED,
    HEADROOM_BYTES,
    OF_EVERY_QUEUE,
    Drift,
    Kind,
    Topics,
    TopicState,
    drift,
    replication,
    retry_topic_of,
    schedule_specs,
    schedule_state_topic,
    schedules_topic,
    topic_specs,
)

SETTINGS = Settings(prefix="shop", partitions=6, max_task_bytes=2_000_000)


def test_a_topics_name_is_prefix_kind_queue() -> None:
    topics = Topics("shop", "mail")
    assert topics.tasks == "shop.tasks.mail"
    assert topics.state == "shop.state.mail"
    assert topics.results == "shop.results.mail"
    assert topics.dlq == "shop.dlq.mail"
    assert [spec.name for spec in topic_specs(SETTINGS, "mail")] == [
        topics.name(kind) for kind in OF_EVERY_QUEUE
    ]
    assert topics.retry("10s") == "shop.retry.mail.10s"
    assert retry_topic_of("shop.retry.mail.10s", "shop") == ("mail", "10s")
    for other in ("shop.retry.mail", "shop.tasks.mail", "shop.retry.mail.soon", "x.retry.mail.1s"):
        assert retry_topic_of(other, "shop") is None


def test_the_topics_of_schedules_belong_to_no_queue_and_keep_what_is_newest() -> None:
    specs = {spec.name: spec for spec in schedule_specs(SETTINGS)}
    assert specs.keys() == {schedules_topic("shop"), schedule_state_topic("shop")}
    assert specs.keys() == {"shop.schedules", "shop.schedule-state"}
    assert {spec.partitions for spec in specs.values()} == {3}, "partition p has one owner"
    assert {spec.configs["cleanup.policy"] for spec in specs.values()} == {"compact"}


def test_a_queue_with_a_dot_is_refused_before_it_becomes_a_topic() -> None:
    with pytest.raises(ConfigError, match="queue"):
        Topics("shop", "mail.out")


def test_topics_that_share_an_owner_have_equal_partition_counts() -> None:
    counts = {s.partitions for s in topic_specs(SETTINGS, "mail") if s.kind in CO_PARTITIONED}
    assert counts == {6}


def test_time_never_deletes_a_task_and_a_client_never_sets_its_time() -> None:
    by_kind = {spec.kind: spec.configs for spec in topic_specs(SETTINGS, "mail")}
    assert by_kind[Kind.TASKS]["retention.ms"] == "-1"
    assert by_kind[Kind.TASKS]["retention.bytes"] == "-1"
    for configs in by_kind.values():
        assert configs["message.timestamp.type"] == "LogAppendTime"


def test_what_the_tasks_topic_takes_fits_as_a_letter_with_its_headers() -> None:
    by_kind = {spec.kind: spec.configs for spec in topic_specs(SETTINGS, "mail")}
    tasks = int(by_kind[Kind.TASKS]["max.message.bytes"])
    assert tasks == 2_000_000 + HEADROOM_BYTES
    for kind in (Kind.DLQ, Kind.RESULTS):
        assert int(by_kind[kind]["max.message.bytes"]) == tasks + HEADROOM_BYTES


@given(window=st.integers(60_000, 10**12))
def test_a_segment_of_the_state_topic_closes_well_inside_the_window(window: int) -> None:
    settings = Settings(dedup_window_ms=window)
    (state,) = topic_specs(settings, "default", [Kind.STATE])
    assert int(state.configs["retention.ms"]) == window
    assert int(state.configs["segment.ms"]) <= min(window // 4, 6 * 3_600_000)


@pytest.mark.parametrize(
    ("wanted", "brokers", "factor", "in_sync"),
    [(None, 1, 1, "1"), (None, 2, 1, "1"), (None, 3, 3, "2"), (2, 3, 2, "1"), (3, 5, 3, "2")],
)
def test_three_brokers_hold_three_replicas_two_of_them_in_sync(
    wanted: int | None, brokers: int, factor: int, in_sync: str
) -> None:
    found, safety = replication(Settings(replication_factor=wanted), brokers)
    assert found == factor
    assert safety["min.insync.replicas"] == in_sync
    assert safety["unclean.leader.election.enable"] == "false"


def test_drift_names_each_difference_and_nothing_else() -> None:
    wanted = topic_specs(SETTINGS, "mail", [Kind.TASKS, Kind.DLQ])
    replicas = replication(SETTINGS, brokers=1)
    tasks, dlq = wanted
    right = TopicState(dlq.partitions, 1, {**dlq.configs, **replicas[1], "flush.ms": "9"})
    wrong = TopicState(5, 1, {**tasks.configs, **replicas[1], "retention.ms": "60000"})
    assert drift(wanted, {tasks.name: wrong, dlq.name: right}, replicas) == [
        Drift("shop.tasks.mail", "partitions", "6", "5"),
        Drift("shop.tasks.mail", "retention.ms", "-1", "60000"),
    ]
    assert drift(wanted, {tasks.name: wrong}, replicas)[-1] == Drift(
        "shop.dlq.mail", "topic", "exists", "missing"
    )
