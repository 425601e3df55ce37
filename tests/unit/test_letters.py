"""What is made of records that came from strange clients, before anything is committed."""

from __future__ import annotations

from typing import Any

import pytest

from support.protocols import record
from support.wire import task_value
from taskmill.consumer.decode import Decoder
from taskmill.consumer.dlq import MAX_BESIDE_BYTES, dead_letter
from taskmill.consumer.record import Failure, Lease, Outcome, Reason, Source
from taskmill.runtime.partition import partition_for
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import TaskError
from taskmill.schemas.states import Status

LEASE = Lease(0, 1)
LIMIT = 1_000
FAILURE = Failure(Reason.UNDECODABLE, TaskError("DecodeError", "no", "f"))


class Message:
    """As much of a Kafka message as is looked at."""

    def __init__(self, key: bytes, value: bytes, headers: Any) -> None:
        self._key, self._value, self._headers = key, value, headers

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes:
        return self._value

    def offset(self) -> int:
        return 7

    def timestamp(self) -> tuple[int, int]:
        return 2, 0

    def headers(self) -> Any:
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers


def decoded(message: Message, partitions: int = 2) -> Any:
    return Decoder(CODEC, "tasks", partitions, LIMIT).decode(message, LEASE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error", [SystemError("error return"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "start")]
)
def test_a_header_name_that_is_not_utf_8_is_a_fault_of_its_record(error: Exception) -> None:
    one = decoded(Message(b"k", b"v", error))
    assert one.fault == (Reason.UNDECODABLE, "a header's name is not UTF-8")
    assert one.mark_key == b"\xfftasks/0/7"


def test_a_record_on_a_wrong_partition_that_would_not_be_taken_again_is_a_fault() -> None:
    key = next(k for k in (b"%d" % n for n in range(100)) if partition_for(k, 2) == 1)
    assert decoded(Message(key, b"v" * 10, None)).belongs_to == 1
    one = decoded(Message(key, b"v" * LIMIT, None))
    assert one.belongs_to is None
    assert one.fault == (Reason.UNDECODABLE, f"on a wrong partition, with {LIMIT + len(key)} bytes")


def test_a_letter_leaves_a_key_and_headers_behind_that_the_dlq_would_not_take() -> None:
    big = b"x" * (MAX_BESIDE_BYTES + 1)
    source = Source("tasks", 0, 7, 0, big, b"value", [("h", big), ("taskmill-reason", b"old")])
    outcome = Outcome(record(LEASE, 7)._replace(source=source), Status.DEAD, failure=FAILURE)
    letter = dead_letter(outcome, "dlq", 3, LIMIT)
    headers = dict(letter["headers"])
    assert letter["key"] is None
    assert letter["value"] == b"value"
    assert letter["partition"] == partition_for(big, 3)
    assert headers["taskmill-key-omitted"] == f"{len(big)} bytes".encode()
    assert headers["taskmill-headers-omitted"] == f"{len(big) + 35} bytes".encode()
    assert "h" not in headers
    assert headers["taskmill-reason"] == b"undecodable"


def test_a_replayed_task_is_enqueued_anew_its_times_counted_from_there() -> None:
    value = task_value(
        "k", "send", {}, enqueued_at=1_000, expires_at=1_500, deadline=3_000, attempt=3
    )
    headers = [("taskmill-generation", b"4"), ("taskmill-replayed-at", b"1700000000000")]
    one = decoded(Message(b"k", value, headers), 1)
    assert (one.generation, one.seq, one.fault) == (4, 0, None)
    assert one.task.enqueued_at == 1_700_000_000_000
    assert one.task.expires_at == 1_700_000_000_500
    assert one.task.deadline == 1_700_000_002_000
    assert one.source.value == value


@pytest.mark.parametrize("content", [b"-1", b"x", b"", b"9" * 17, None])
def test_a_time_of_replay_that_is_no_number_is_a_fault(content: bytes | None) -> None:
    one = decoded(Message(b"k", task_value("k", "send"), [("taskmill-replayed-at", content)]), 1)
    assert one.fault == (Reason.UNDECODABLE, "header taskmill-replayed-at is no number")
