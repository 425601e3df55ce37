"""Records as people see them."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given

from support import records
from support.records import NOW_MS, RESULT, STATE, TASK
from taskmill.schemas.json_form import as_json, iso
from taskmill.schemas.models import Control, Task, TaskError, TaskResult, TaskState


def test_a_task_shows_its_times_in_iso_8601_and_its_payload_as_json() -> None:
    assert as_json(TASK._replace(not_before=NOW_MS + 1000)) == {
        "id": "receipt:1",
        "name": "send_receipt",
        "payload": {"order_id": 1, "email": "a@b.c"},
        "content_type": "application/json",
        "enqueued_at": "2026-01-02T03:04:05.678Z",
        "not_before": "2026-01-02T03:04:06.678Z",
        "expires_at": None,
        "deadline": None,
        "timeout_ms": None,
        "max_attempts": None,
        "attempt": 1,
        "generation": 0,
        "seq": 0,
        "lock_key": None,
        "parent_id": None,
        "headers": {},
    }


def test_a_state_shows_its_error_as_an_object() -> None:
    shown = as_json(STATE._replace(error=TaskError("ValueError", "no", "f1"), result=None))
    assert shown["error"] == {"type": "ValueError", "message": "no", "fingerprint": "f1"}
    assert shown["status"] == "succeeded"
    assert shown["result"] is None
    assert shown["finished_at"] == "2026-01-02T03:04:05.703Z"


def test_a_result_stands_as_the_value_it_is() -> None:
    assert as_json(RESULT)["result"] == {"lines": [1, 2, 3]}


@pytest.mark.parametrize(
    ("payload", "content_type"),
    [
        (b"\x00\xff", "application/octet-stream"),
        (b'{"a":', "application/json"),
        (b"NaN", "application/json"),
        (b"1e999", "application/json"),
        (b'"\\ud800"', "application/json"),
        (b"\xff", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"1" * 5000, "application/json"),
    ],
)
def test_bytes_that_are_no_json_stand_in_base64(payload: bytes, content_type: str) -> None:
    shown = as_json(TASK._replace(payload=payload, content_type=content_type))
    assert base64.b64decode(shown["payload_base64"]) == payload
    assert "payload" not in shown


@pytest.mark.parametrize("depth", range(300, 1100, 50))
def test_a_payload_of_any_depth_can_be_printed(depth: int) -> None:
    shown = as_json(TASK._replace(payload=b"[" * depth + b"]" * depth))
    json.dumps(shown, indent=2)


def test_a_time_beyond_the_calendar_stays_a_number() -> None:
    assert iso(2**62) == 2**62
    assert iso(-(2**62)) == -(2**62)
    assert iso(None) is None
    assert iso(1_700_000_000_123) == "2023-11-14T22:13:20.123Z"
    assert iso(-1) == "1969-12-31T23:59:59.999Z"


@given(records.tasks | records.states | records.results | records.controls)
def test_every_record_has_a_json_form(record: Task | TaskState | TaskResult | Control) -> None:
    assert json.loads(json.dumps(as_json(record), allow_nan=False, indent=2))["id"] == record.id
