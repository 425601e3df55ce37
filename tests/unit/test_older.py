"""What is written for older workers: their own bytes, and nothing lost that they could read."""

from __future__ import annotations

import json
from io import BytesIO

from fastavro import parse_schema, schemaless_reader
from hypothesis import given
from hypothesis import strategies as st

from taskmill.consumer.dlq import ATTEMPT, NOT_BEFORE, SEQ
from taskmill.scheduler.older import for_older
from taskmill.schemas.avsc import released, text
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import Task, TaskError, TaskState
from taskmill.schemas.older import FirstStates
from taskmill.schemas.states import Status

FIRST = released("TaskState")[-1]
TASK = Task("a", "noop", b"{}", "application/json", 1_700_000_000_000)

states = st.builds(
    TaskState,
    id=st.text(min_size=1, max_size=20),
    name=st.text(max_size=20),
    queue=st.just("default"),
    status=st.sampled_from(Status),
    generation=st.integers(0, 5),
    seq=st.integers(0, 200),
    attempt=st.integers(0, 9),
    worker=st.just("node.0"),
    enqueued_at=st.integers(0, 2**44),
    started_at=st.none() | st.integers(0, 2**44),
    finished_at=st.none() | st.integers(0, 2**44),
    next_attempt_at=st.none() | st.integers(0, 2**44),
    result=st.none() | st.binary(max_size=300),
    content_type=st.none() | st.just("application/json"),
    error=st.none() | st.builds(TaskError, st.text(), st.text(), st.text()),
    source_partition=st.integers(0, 96),
    source_offset=st.integers(-1, 2**40),
    large=st.none() | st.just("t.results.default"),
    deliveries=st.integers(0, 3),
    saved=st.none() | st.binary(max_size=20),
    result_expires_at=st.none() | st.integers(0, 2**44),
)


@given(states)
def test_a_state_for_0_1_is_one_of_its_schema_and_lacks_only_what_that_lacks(
    state: TaskState,
) -> None:
    value = FirstStates().encode_state(state)
    assert value.startswith(FIRST.prefix)
    body = BytesIO(value[len(FIRST.prefix) :])
    raw = json.loads(text("TaskState-v1.avsc"))
    fields = schemaless_reader(body, parse_schema(raw), None)
    assert isinstance(fields, dict)
    assert body.read() == b""
    assert fields["id"] == state.id
    back = state._replace(deliveries=0, saved=None, result_expires_at=None)
    assert CODEC.decode_state(value) == back


def test_what_headers_say_of_an_attempt_stands_in_the_body_too() -> None:
    headers: list[tuple[str, bytes | None]] = [
        (ATTEMPT, b"3"),
        (SEQ, b"2"),
        (NOT_BEFORE, b"1700000001000"),
        ("mine", b"\xff"),
    ]
    value, told = for_older(CODEC.encode_task(TASK._replace(not_before=5)), headers)
    assert CODEC.decode_task(value) == TASK._replace(attempt=3, seq=2)
    assert told == headers


def test_a_time_that_the_body_told_goes_to_the_headers() -> None:
    value, told = for_older(CODEC.encode_task(TASK._replace(not_before=1_700_000_001_000)), [])
    assert CODEC.decode_task(value) == TASK
    assert told == [(NOT_BEFORE, b"1700000001000")]


def test_what_is_no_task_is_passed_on_as_it_is() -> None:
    assert for_older(b"garbage", [(SEQ, b"2")]) == (b"garbage", [(SEQ, b"2")])
    assert for_older(None, []) == (None, [])
