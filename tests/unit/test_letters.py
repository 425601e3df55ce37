"""What is made of records that came from strange clients, before anything is committed."""

from __future__ import annotations

from typing import Any

import pytest

from support.protocols import record
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
