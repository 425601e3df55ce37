"""Records that no worker can run: dead letters with their bytes, and their partition goes on."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
from confluent_kafka import IsolationLevel

from support.brokers import delete_topics
from support.oracle import Oracle, Place
from support.wire import NOW_MS, partition_of, read_task, task_value
from support.witness import Seen
from support.workers import WorkerProcess, runs
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

pytestmark = pytest.mark.kafka

PARTITIONS = 2


class House:
    """One worker, shared by the tests of this file, and what they ask of it."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        ensure(settings, "default")
        self.folder = folder
        self.limit = settings.max_task_bytes
        self.oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
        self.worker = WorkerProcess(settings, folder)

    def position_key(self, place: Place) -> bytes:
        return b"\xff" + f"{self.oracle.tasks}/{place.partition}/{place.offset}".encode()

    def letter(self, place: Place) -> Seen:
        """The dead letter of the record at `place`; there is one."""
        found = [
            r
            for r in self.oracle.letters()
            if r.headers["taskmill-original-partition"] == b"%d" % place.partition
            and r.headers["taskmill-original-offset"] == b"%d" % place.offset
        ]
        assert len(found) == 1, found
        return found[0]

    def record(self, place: Place) -> Seen:
        (found,) = [
            r
            for r in self.oracle.read(self.oracle.tasks)
            if (r.partition, r.offset) == (place.partition, place.offset)
        ]
        return found

    def is_dead_by_place(self, place: Place, reason: str = "undecodable") -> Seen:
        """Waits for the mark of `place`; checks its letter, and that the partition goes on."""
        state = self.oracle.wait_state(self.position_key(place))
        assert state["status"] == "dead"
        assert (state["source_partition"], state["source_offset"]) == place
        assert state["name"] == ""
        self.goes_on(place.partition)
        letter = self.letter(place)
        assert letter.headers["taskmill-reason"] == reason.encode()
        record = self.record(place)
        assert (letter.key, letter.value) == (record.key, record.value)
        return letter

    def goes_on(self, partition: int) -> None:
        """A good task on the same partition, put there afterwards, runs."""
        ids = (f"after-{partition}-{len(self.worker.lines)}-{n}" for n in range(1000))
        id = next(id for id in ids if partition_of(id.encode(), PARTITIONS) == partition)
        assert self.oracle.put(id.encode(), task_value(id, "noop")).partition == partition
        assert self.oracle.wait_state(id)["status"] == "succeeded"


@pytest.fixture(scope="module")
def house(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("bad-records")
    prefix = f"t-bad-{os.getpid()}"
    settings = Settings(
        bootstrap_servers=broker, prefix=prefix, partitions=PARTITIONS, state_dir=folder / "state"
    )
    one = House(settings, folder)
    with one.worker:
        one.worker.wait_ready(PARTITIONS)
        yield one
    delete_topics(broker, prefix)


def _whole(id: str = "whole") -> bytes:
    return task_value(id, "noop")


GARBAGE = {
    "empty": b"",
    "no value": None,
    "text": b"hello",
    "json": b'{"id": "whole", "name": "noop"}',
    "cut short": _whole()[:-3],
    "bytes behind": _whole() + b"\x00",
    "foreign schema": b"\xc3\x01" + b"\x07" * 8 + _whole()[10:],
    "confluent without a registry": b"\x00" + struct.pack(">I", 7) + _whole()[10:],
    "no utf-8": _whole().replace(b"whole", b"\xff\xfe\xfd\xfc\xfb"),
    "wrong types": _whole()[:10] + b"\x01" * 40,
}


@pytest.mark.parametrize("value", GARBAGE.values(), ids=GARBAGE)
def test_a_value_that_is_no_task_is_a_dead_letter_and_its_partition_goes_on(
    house: House, value: bytes | None
) -> None:
    letter = house.is_dead_by_place(house.oracle.put(b"whole", value))
    assert letter.headers["taskmill-error-message"]
    assert "taskmill-task" not in letter.headers


@pytest.mark.parametrize("key", [None, b""], ids=["none", "empty"])
def test_a_record_without_a_key_is_a_dead_letter(house: House, key: bytes | None) -> None:
    letter = house.is_dead_by_place(house.oracle.put(key, _whole()))
    assert letter.headers["taskmill-error-message"] == b"no key: the key of a task is its ID"


def test_a_record_whose_id_differs_from_its_key_is_a_dead_letter(house: House) -> None:
    letter = house.is_dead_by_place(house.oracle.put(b"one", task_value("two", "noop")))
    assert letter.headers["taskmill-error-message"] == (
        b"the key 'one' differs from the task's ID 'two'"
    )


def test_an_id_of_more_than_512_bytes_is_a_dead_letter(house: House) -> None:
    house.is_dead_by_place(house.oracle.put(b"k" * 513, task_value("k" * 513, "noop")))


def test_an_id_of_512_bytes_runs(house: House) -> None:
    house.oracle.put(b"k" * 512, task_value("k" * 512, "noop"))
    assert house.oracle.wait_state("k" * 512)["status"] == "succeeded"


def test_a_dead_letter_has_the_original_bytes_and_exactly_these_headers(house: House) -> None:
    own = {"traceparent": b"00-1-2-01", "x-binary": b"\xff\x00"}
    place = house.oracle.put(b"exact", b"\xc3\x01\xff\xfegarbage", headers=own)
    letter = house.is_dead_by_place(place)
    assert (letter.key, letter.value) == (b"exact", b"\xc3\x01\xff\xfegarbage")
    stamp = b"%d" % house.record(place).timestamp
    headers = dict(letter.headers)
    assert headers.pop("taskmill-error-message")
    assert headers == {
        **own,
        "taskmill-original-topic": house.oracle.tasks.encode(),
        "taskmill-original-partition": b"%d" % place.partition,
        "taskmill-original-offset": b"%d" % place.offset,
        "taskmill-original-timestamp": stamp,
        "taskmill-first-failure": stamp,
        "taskmill-last-failure": stamp,
        "taskmill-attempts": b"0",
        "taskmill-reason": b"undecodable",
        "taskmill-error-type": b"undecodable",
        "taskmill-error-fingerprint": b"undecodable",
        "taskmill-error-stack": b"",
    }
    assert letter.partition == partition_of(b"exact", 3)


def test_garbage_under_a_key_does_not_block_that_id(house: House) -> None:
    place = house.oracle.put(b"blocked?", b"garbage")
    house.is_dead_by_place(place)
    house.oracle.put(b"blocked?", task_value("blocked?", "noop"))
    assert house.oracle.wait_state("blocked?")["status"] == "succeeded"
    # And more garbage under it is marked by its own place.
    house.is_dead_by_place(house.oracle.put(b"blocked?", b"garbage"))


def test_a_value_over_the_limit_is_rejected_with_its_size(house: House) -> None:
    value = task_value("over", "noop", payload=b" " * house.limit)
    place = house.oracle.put(b"over", value)
    assert house.oracle.wait_state("over")["status"] == "dead"
    letter = house.letter(place)
    assert letter.headers["taskmill-reason"] == b"rejected"
    assert letter.headers["taskmill-error-message"] == (
        f"{len(value)} bytes; the limit is {house.limit} (TASKMILL_MAX_TASK_BYTES)".encode()
    )
    assert letter.value == value
    house.goes_on(place.partition)


def test_a_value_too_large_for_the_dlq_leaves_a_letter_that_says_so(house: House) -> None:
    # Compressed, it passes the topic's limit.
    value = task_value("huge", "noop", payload=b" " * 5 * house.limit)
    place = house.oracle.put(b"huge", value)
    assert house.oracle.wait_state("huge")["status"] == "dead"
    letter = house.letter(place)
    assert letter.value is None
    assert letter.headers["taskmill-value-omitted"] == f"{len(value)} bytes".encode()
    house.goes_on(place.partition)


def test_headers_too_large_for_the_dlq_leave_a_letter_that_says_so(house: House) -> None:
    place = house.oracle.put(b"wide", b"garbage", headers={"h": b" " * 3 * house.limit})
    letter = house.is_dead_by_place(place)
    assert letter.headers["taskmill-headers-omitted"] == b"%d bytes" % (3 * house.limit + 9)


def test_a_misrouted_value_that_tasks_would_not_take_again_is_a_dead_letter(house: House) -> None:
    value = task_value("lost", "noop", payload=b" " * 5 * house.limit)
    wrong = 1 - partition_of(b"lost", PARTITIONS)
    place = house.oracle.put(b"lost", value, wrong)
    assert house.oracle.wait_state(house.position_key(place))["status"] == "dead"
    assert house.letter(place).headers["taskmill-value-omitted"] == b"%d bytes" % len(value)
    house.goes_on(wrong)


def test_what_this_version_cannot_keep_is_rejected_not_ignored(house: House) -> None:
    place = house.oracle.put(b"asks", task_value("asks", "noop", lock_key="customer:7"))
    assert house.oracle.wait_state("asks")["status"] == "dead"
    letter = house.letter(place)
    assert letter.headers["taskmill-reason"] == b"rejected"
    assert letter.headers["taskmill-error-message"].startswith(b"lock_key")
    assert "asks" not in runs(house.folder)


def test_a_not_before_that_has_passed_runs(house: House) -> None:
    house.oracle.put(b"passed", task_value("passed", "noop", not_before=NOW_MS))
    assert house.oracle.wait_state("passed")["status"] == "succeeded"


def test_an_expired_task_does_not_run(house: House) -> None:
    house.oracle.put(b"late", task_value("late", "noop", expires_at=NOW_MS))
    assert house.oracle.wait_state("late")["status"] == "expired"
    assert "late" not in runs(house.folder)


def test_a_record_on_the_wrong_partition_is_moved_to_the_right_one_and_runs_once(
    house: House,
) -> None:
    right = partition_of(b"misrouted", PARTITIONS)
    headers = {"x-own": b"kept", "taskmill-partition": b"7/9"}
    value = task_value("misrouted", "noop")
    place = house.oracle.put(b"misrouted", value, 1 - right, headers)
    state = house.oracle.wait_state("misrouted")
    assert state["status"] == "succeeded"
    assert state["source_partition"] == right
    there = [r for r in house.oracle.read(house.oracle.tasks) if r.key == b"misrouted"]
    assert {r.partition for r in there} == {0, 1}
    (moved,) = [r for r in there if r.partition == right]
    assert moved.value == value
    assert moved.headers == {"x-own": b"kept", "taskmill-partition": b"%d/2" % right}
    assert house.position_key(place) not in house.oracle.states()
    # Its twin on the wrong partition, and one on the right one, are duplicates.
    house.oracle.put(b"misrouted", value, 1 - right)
    house.oracle.put(b"misrouted", value)
    house.oracle.wait_consumed()
    assert runs(house.folder).count("misrouted") == 1


def test_a_generation_header_runs_the_task_again_with_its_bytes_left_alone(house: House) -> None:
    value = task_value("again", "noop")
    house.oracle.put(b"again", value)
    house.oracle.wait_state("again")
    assert read_task(value)["generation"] == 0
    for _ in range(2):  # the second is a duplicate in its generation
        house.oracle.put(b"again", value, headers={"taskmill-generation": b"1"})
    house.oracle.put(b"again", value)
    house.oracle.wait_consumed()
    found = [s for s in house.oracle.states()[b"again"] if s["status"] != "running"]
    assert [(s["generation"], s["status"]) for s in found] == [(0, "succeeded"), (1, "succeeded")]
    assert runs(house.folder).count("again") == 2


@pytest.mark.parametrize("content", [b"", b"one", b"-1", b"99999999999", b"1.0", "²".encode()])
def test_a_generation_header_that_is_no_number_is_a_dead_letter(
    house: House, content: bytes
) -> None:
    place = house.oracle.put(
        b"numbers", task_value("numbers", "noop"), headers={"taskmill-generation": content}
    )
    letter = house.is_dead_by_place(place)
    assert b"taskmill-generation" in letter.headers["taskmill-error-message"]


def test_all_promises_hold_after_all_of_that(house: House) -> None:
    house.oracle.wait_consumed()
    assert house.oracle.check([])


def test_a_header_name_that_is_not_utf_8_is_a_dead_letter(house: House, tmp_path: Path) -> None:
    # Last: the tests' own client cannot read the topic any more either.
    assert which("kcat"), "apt-get install kcat"
    (tmp_path / "value").write_bytes(b"garbage")
    kcat = ["kcat", "-P", "-b", house.oracle.bootstrap, "-t", house.oracle.tasks, "-p", "0"]
    header = ["-k", "strange", "-H", b"\xff=1", tmp_path / "value"]
    subprocess.run([*kcat, *header], check=True, timeout=30, capture_output=True)
    end = house.oracle.ends(house.oracle.tasks, IsolationLevel.READ_UNCOMMITTED)[0]
    state = house.oracle.wait_state(house.position_key(Place(0, end - 1)))
    assert state["status"] == "dead"
    assert state["error"]["message"] == "a header's name is not UTF-8"
    house.goes_on(0)
