"""The pure parts of `topics migrate`: where records go, what stays behind, what is written down."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.records import STATE
from support.wire import partition_of, task_value
from taskmill.consumer.migrate_copy import CLOSED_BYTES, copy_configs
from taskmill.consumer.migrate_journal import Entry, Origin, Phase, journal_topic
from taskmill.consumer.migrate_place import (
    Settled,
    check_place,
    place_as_staged,
    place_in_table,
    place_task,
)
from taskmill.consumer.migrate_steps import MOVED, first_wanted
from taskmill.consumer.table import position_key
from taskmill.runtime.config import NAME
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.topic_table import CO_PARTITIONED, Kind, Topics
from taskmill.runtime.topics import staging
from taskmill.schemas.codec import CODEC
from taskmill.schemas.states import Status

NOW_MS = 1_767_323_045_678


class Record:
    """What a Message tells, as far as it is asked here."""

    def __init__(
        self,
        key: bytes | None,
        value: bytes | None = b"value",
        p: int = 0,
        offset: int = 0,
        headers: list[tuple[str, bytes]] | None = None,
        time_ms: int = NOW_MS,
    ) -> None:
        self._told: dict[str, Any] = {
            "key": key,
            "value": value,
            "partition": p,
            "offset": offset,
            "headers": headers,
            "timestamp": (2, time_ms),
            "topic": "t",
        }

    def __getattr__(self, name: str) -> Any:
        return lambda: self._told[name]


keys = st.binary(min_size=1, max_size=40).filter(lambda key: key[:1] != b"\xff")


def test_all_topics_whose_partitions_belong_together_are_moved_and_tasks_last() -> None:
    assert set(MOVED) == CO_PARTITIONED
    assert MOVED[-1] is Kind.TASKS
    assert MOVED[0] is Kind.STATE


def test_no_queue_has_topics_of_the_names_used_meanwhile() -> None:
    name = staging(Topics("p" * 100, "q" * 100).results)
    assert len(name) <= 249, "Kafka's longest name"
    assert not NAME.match(name.split(".", 2)[2]), "no queue's name"
    assert journal_topic("taskmill") == "taskmill.migrations"


@given(keys, st.integers(1, 100))
def test_a_record_goes_where_its_key_belongs(key: bytes, new: int) -> None:
    assert place_in_table(new, 0)(Record(key)) == (partition_of(key, new), [])
    assert place_task(new, set())(Record(key)) == (partition_of(key, new), [])
    staged = Record(key, p=partition_of(key, new))
    assert place_as_staged(new)(staged) == (partition_of(key, new), [])


def test_a_tombstone_moves_as_its_entry_does() -> None:
    assert place_in_table(5, 0)(Record(b"k", None)) == (partition_of(b"k", 5), [])


def test_what_the_broker_could_have_deleted_is_left() -> None:
    place = place_in_table(5, NOW_MS)
    assert place(Record(b"k", time_ms=NOW_MS - 1)) is None
    assert place(Record(b"k", time_ms=NOW_MS)) is not None


def test_marks_by_place_are_left_since_the_places_go() -> None:
    assert place_in_table(5, 0)(Record(position_key("t", 0, 7))) is None


def test_the_partition_header_is_corrected_and_others_stay() -> None:
    headers = [("a", b"1"), ("taskmill-partition", b"1/2"), ("traceparent", b"x")]
    p = partition_of(b"k", 3)
    assert place_task(3, set())(Record(b"k", headers=headers)) == (
        p,
        [("a", b"1"), ("taskmill-partition", f"{p}/3".encode()), ("traceparent", b"x")],
    )


@pytest.mark.parametrize("key", [None, b""])
def test_a_task_without_a_key_goes_to_some_partition_that_there_is(key: bytes | None) -> None:
    assert place_task(3, set())(Record(key, p=7)) == (1, [])


def test_a_staged_record_on_a_wrong_partition_stops_everything() -> None:
    wrong = Record(b"k", p=(partition_of(b"k", 3) + 1) % 3, offset=9)
    with pytest.raises(TaskmillError, match=r"t \[\d\] has a record at 9 that belongs on another"):
        check_place(wrong, 3)


def mark(status: Status) -> bytes:
    return CODEC.encode_state(STATE._replace(status=status))


def test_records_known_by_place_that_are_done_do_not_move() -> None:
    settled = Settled(first=5)
    settled.note(
        [
            Record(b"an ID", mark(Status.DEAD)),
            Record(position_key("t", 0, 4), mark(Status.DEAD)),  # below the committed offset
            Record(position_key("t", 0, 5), mark(Status.DEAD)),
            Record(position_key("t", 0, 6), mark(Status.RUNNING)),
            Record(position_key("t", 0, 7), mark(Status.DEAD)),
            Record(position_key("t", 0, 7), None),
            Record(position_key("t", 0, 8), b"unreadable"),
        ]
    )
    assert settled.offsets == {5}
    place = place_task(3, settled.offsets)
    assert place(Record(b"k", offset=5)) is None
    assert place(Record(b"k", offset=6)) is not None


def entry(**fields: Any) -> Entry:
    origin = Origin("id", 1, {"retention.ms": "-1"}, [3, 0])
    known = {
        "queue": "q",
        "old": 2,
        "new": 3,
        "phase": Phase.STATE,
        "began_at": NOW_MS,
        "committed": [7, None],
        "origins": dict.fromkeys(MOVED, origin),
        "copied": {Kind.STATE: 5},
    }
    return Entry(**{**known, **fields})


def test_what_is_written_down_is_read_again() -> None:
    assert Entry.from_bytes(entry().to_bytes()) == entry()


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b'{"phase": "copying"}', b"\xff"])
def test_what_cannot_be_read_is_told(value: bytes) -> None:
    with pytest.raises(TaskmillError, match="the record of a migration cannot be read"):
        Entry.from_bytes(value)


def test_a_field_of_a_later_version_is_told_too() -> None:
    document = json.loads(entry().to_bytes())
    with pytest.raises(TaskmillError, match="cannot be read"):
        Entry.from_bytes(json.dumps({**document, "later": 1}).encode())


def test_only_tasks_that_are_not_done_are_copied() -> None:
    assert [first_wanted(entry(), Kind.TASKS, p) for p in (0, 1)] == [7, 0]
    assert first_wanted(entry(), Kind.STATE, 0) == 0


def test_a_copy_keeps_everything_and_takes_the_largest_record() -> None:
    configs = copy_configs(
        {"cleanup.policy": "compact,delete", "max.message.bytes": "20000000", "retention.ms": "1"}
    )
    assert configs["cleanup.policy"] == "delete"
    assert configs["retention.ms"] == configs["retention.bytes"] == "-1"
    assert configs["max.message.bytes"] == "20000000"
    assert copy_configs({})["max.message.bytes"] == str(8 * 1024 * 1024)


def test_a_closed_topic_has_room_for_a_marker_and_for_no_task() -> None:
    # A batch's head is 61 bytes; a record's own fields are 7 at the least, its key 1.
    smallest = (
        61 + 7 + 1 + len(task_value("", "", None, payload=b"", content_type="", enqueued_at=0))
    )
    marker = 78
    assert marker < CLOSED_BYTES < smallest
