"""The codec: what goes in comes out, by hand or by fastavro; what is not ours is refused."""

from __future__ import annotations

import tracemalloc
from io import BytesIO
from typing import Any

import pytest
from fastavro import schemaless_writer
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support import records
from support.records import CONTROL, NOW_MS, RESULT, STATE, TASK
from taskmill.runtime.errors import DecodeError, InvalidInput, InvalidTaskId, TaskmillError
from taskmill.schemas import fastpath, framing
from taskmill.schemas.avsc import released
from taskmill.schemas.codec import CODEC, Codec, check_id
from taskmill.schemas.models import Control, Task, TaskError, TaskResult, TaskState
from taskmill.schemas.states import Status

TASK_PREFIX = released("Task")[0].prefix
#: Off the common shape, so that fastavro reads it.
RETRIED = TASK._replace(attempt=2, seq=1, headers={"k": "v"})
FAILED = STATE._replace(status=Status.DEAD, result=None, error=TaskError("E", "m", "f"))
EXAMPLES = [CODEC.encode_task(TASK), CODEC.encode_task(RETRIED)]
EXAMPLES += [CODEC.encode_state(STATE), CODEC.encode_state(FAILED), CODEC.encode_result(RESULT)]
EXAMPLES += [CODEC.encode_control(CONTROL)]


def fastavro_bytes(record: Task | TaskState | TaskResult | Control) -> bytes:
    version = released(type(record).__name__)[0]
    fields: dict[str, Any] = record._asdict()
    if fields.get("error") is not None:
        fields["error"] = fields["error"]._asdict()
    out = BytesIO()
    schemaless_writer(out, version.schema, fields)
    return version.prefix + out.getvalue()


def outcome(decode: Any, value: bytes) -> Any:
    """What `decode` makes of `value`: a record, or that it refuses; anything else is raised."""
    try:
        return decode(value)
    except DecodeError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 400
    return DecodeError


@given(records.tasks)
@example(TASK)
@example(RETRIED)
def test_a_task_comes_back_as_it_was_and_its_bytes_are_fastavros(task: Task) -> None:
    value = CODEC.encode_task(task)
    assert value == fastavro_bytes(task)
    assert CODEC.decode_task(value) == task
    assert CODEC.decode(value) == task


@given(records.states)
@example(STATE)
@example(FAILED)
def test_a_state_comes_back_as_it_was_and_its_bytes_are_fastavros(state: TaskState) -> None:
    value = CODEC.encode_state(state)
    assert value == fastavro_bytes(state)
    back = CODEC.decode_state(value)
    assert back == state
    assert isinstance(back.status, Status)
    assert CODEC.decode(value) == state


@given(records.results)
@example(RESULT)
def test_a_result_comes_back_as_it_was_and_its_bytes_are_fastavros(result: TaskResult) -> None:
    value = CODEC.encode_result(result)
    assert value == fastavro_bytes(result)
    assert CODEC.decode_result(value) == result
    assert CODEC.decode(value) == result


@given(records.controls)
@example(CONTROL)
def test_a_control_comes_back_as_it_was_and_its_bytes_are_fastavros(control: Control) -> None:
    value = CODEC.encode_control(control)
    assert value == fastavro_bytes(control)
    assert CODEC.decode_control(value) == control
    assert CODEC.decode(value) == control


def test_a_plain_task_and_the_state_of_its_success_go_by_hand() -> None:
    value = fastpath.encode_task(TASK_PREFIX, TASK)
    assert value == CODEC.encode_task(TASK)
    assert fastpath.decode_task(TASK_PREFIX, value) == TASK
    assert fastpath.encode_state(b"", STATE) is not None
    assert fastpath.encode_state(b"", FAILED) is not None
    assert fastpath.decode_state(b"", fastpath.encode_state(b"", STATE)) == STATE
    assert fastpath.decode_state(b"", fastpath.encode_state(b"", FAILED)) == FAILED
    assert fastpath.decode_task(TASK_PREFIX, CODEC.encode_task(RETRIED)) is None


@settings(max_examples=400)
@given(st.sampled_from(EXAMPLES[:2]), st.data())
def test_by_hand_and_by_fastavro_agree_on_damaged_bytes(value: bytes, data: st.DataObject) -> None:
    damaged = bytearray(value)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    by_hand = outcome(CODEC.decode_task, bytes(damaged))
    assert by_hand == outcome(CODEC._decode_any_task, bytes(damaged))


@settings(max_examples=1000)
@given(st.sampled_from([CODEC.encode_state(STATE), CODEC.encode_state(FAILED)]), st.data())
def test_of_states_by_hand_and_by_fastavro_agree_on_damaged_bytes(
    value: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(value)
    for _ in range(data.draw(st.integers(0, 3))):
        position = data.draw(st.integers(10, len(damaged) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    by_hand = outcome(CODEC.decode_state, bytes(damaged))
    assert by_hand == outcome(CODEC._decode_any_state, bytes(damaged))


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from(["", *[value[:10].hex() for value in EXAMPLES]]))
def test_random_bytes_are_refused_as_such_or_are_a_record(body: bytes, prefix: str) -> None:
    value = bytes.fromhex(prefix) + body
    for decode in (CODEC.decode_task, CODEC.decode_state, CODEC.decode_result, CODEC.decode):
        outcome(decode, value)


@settings(max_examples=300)
@given(st.sampled_from(EXAMPLES), st.data())
def test_a_record_with_bytes_cut_out_or_put_in_never_raises_anything_else(
    value: bytes, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(value)))
    end = data.draw(st.integers(start, len(value)))
    outcome(CODEC.decode, value[:start] + data.draw(st.binary(max_size=12)) + value[end:])


@pytest.mark.parametrize("value", EXAMPLES)
def test_every_truncation_is_refused(value: bytes) -> None:
    for length in range(len(value)):
        with pytest.raises(DecodeError):
            CODEC.decode(value[:length])


@pytest.mark.parametrize("length", [2**31, 2**40, 2**62, 2**63 - 1, -1, -(2**63)])
def test_a_hostile_length_allocates_nothing(length: int) -> None:
    for body in (
        fastpath.encode_long(length) + b"x" * 50,
        # A map's block count, behind every other field.
        EXAMPLES[0][10:-1] + fastpath.encode_long(length) + b"x" * 50,
    ):
        tracemalloc.start()
        with pytest.raises(DecodeError):
            CODEC.decode_task(TASK_PREFIX + body)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100_000


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "no value (a tombstone), where a Task should be"),
        (b"", "empty value, where a Task should be"),
        (b'{"id": 1}', "value starts with 7b226964223a2031: neither Avro single-object (c301) nor"),
        (b"\xc3\x01\x01", "Task is cut short at 3 bytes"),
        (b"\xc3\x01" + b"\x01" * 8, "schema fingerprint 0x0101010101010101 is not known here"),
        (EXAMPLES[2], "value is a TaskState, not a Task"),
        (EXAMPLES[0][:-1], "Task is cut short at "),
        (EXAMPLES[0] + b"\n", "1 byte too many after the Task: 0a"),
        (EXAMPLES[0] + b"x" * 9, "9 bytes too many after the Task: 7878787878787878…"),
        (
            EXAMPLES[0].replace(b"send", b"\xff\xfe\xfd\xfc"),
            "bytes are no Task: UnicodeDecodeError",
        ),
        (b"\x00\x00\x00\x00\x07abc", "(schema ID 7): set TASKMILL_SCHEMA_REGISTRY_URL"),
        (b"\x00\x00", "value starts with 0000: neither"),
    ],
)
def test_a_refusal_says_what_was_found(value: bytes | None, says: str) -> None:
    with pytest.raises(DecodeError) as caught:
        CODEC.decode_task(value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": ""}, "id of the Task is 0 characters long: 1 to 512 bytes"),
        ({"id": "é" * 257}, "id of the Task is 257 characters long: 1 to 512 bytes"),
        ({"name": ""}, "name of the Task is 0 characters long: 1 to 255 bytes"),
        ({"name": "n" * 256}, "name of the Task is 256 characters long"),
        ({"lock_key": "k" * 513}, "lock_key of the Task is 513"),
        ({"attempt": 0}, "attempt of the Task is 0: 1 to 2147483647 is allowed"),
        ({"generation": -1}, "generation of the Task is -1: 0 to 2147483647"),
        ({"seq": 2**31}, "seq of the Task is 2147483648"),
        ({"max_attempts": 0}, "max_attempts of the Task is 0"),
        ({"timeout_ms": 0}, "timeout_ms of the Task is 0: 1 or more"),
    ],
)
def test_values_out_of_range_are_refused_both_ways(change: dict[str, Any], says: str) -> None:
    task = TASK._replace(**change)
    with pytest.raises(InvalidInput, match="^" + says.replace("(", r"\(")):
        CODEC.encode_task(task)
    with pytest.raises(DecodeError, match="^" + says):
        CODEC.decode_task(fastavro_bytes(task))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "\ud800"}, "name"),
        ({"name": None}, "name"),
        ({"payload": "text"}, "payload"),
        ({"payload": ["a"]}, "payload"),
        ({"enqueued_at": "now"}, "enqueued_at"),
        ({"enqueued_at": 2**63}, "enqueued_at"),
        ({"not_before": 1.5}, "not_before"),
        ({"headers": {"k": 1}}, "headers"),
        ({"parent_id": b"bytes"}, "parent_id"),
    ],
)
def test_a_field_of_a_wrong_type_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{field} of the Task cannot be encoded: "):
        CODEC.encode_task(TASK._replace(**change))


def test_an_unknown_status_is_refused_both_ways() -> None:
    state: Any = STATE._replace(status="paused")
    says = "^status 'paused' is none of scheduled, queued, "
    with pytest.raises(InvalidInput, match=says):
        CODEC.encode_state(state)
    with pytest.raises(DecodeError, match=says):
        CODEC.decode_state(fastavro_bytes(state))


@pytest.mark.parametrize("change", [{"seq": -1}, {"generation": 2**31}, {"attempt": -1}])
def test_a_state_with_a_count_out_of_range_is_refused_both_ways(change: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        CODEC.encode_state(STATE._replace(**change))
    with pytest.raises(DecodeError):
        CODEC.decode_state(fastavro_bytes(STATE._replace(**change)))


def test_a_machine_out_of_memory_does_not_make_a_record_bad(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(framing, "schemaless_reader", exhausted)
    with pytest.raises(MemoryError):
        CODEC.decode_task(CODEC.encode_task(RETRIED))


def test_every_error_of_the_codec_is_one_of_ours() -> None:
    assert issubclass(DecodeError, TaskmillError)
    assert issubclass(InvalidInput, TaskmillError)


def test_an_empty_registry_url_is_no_registry() -> None:
    assert Codec("").encode_task(TASK) == CODEC.encode_task(TASK)


def test_the_common_state_fits_512_bytes_with_room_for_its_result() -> None:
    assert len(CODEC.encode_state(STATE._replace(id="i" * 36, result=b""))) <= 150


@pytest.mark.parametrize("task_id", ["a", "é" * 256, "/ ? %", "a" * 512, "\x00"])
def test_an_id_becomes_its_key(task_id: str) -> None:
    assert check_id(task_id) == task_id.encode()


@pytest.mark.parametrize(
    ("task_id", "says"),
    [
        ("", "task ID is 0 bytes long: 1 to 512 bytes of UTF-8 are allowed"),
        ("a" * 513, "task ID is 513 bytes long"),
        ("é" * 257, "task ID is 514 bytes long"),
        ("\ud800", r"task ID '\\ud800' is not valid Unicode"),
        (7, "task ID is a int: a string is allowed"),
        (None, "task ID is a NoneType"),
    ],
)
def test_what_cannot_be_an_id_is_refused_with_the_limit(task_id: Any, says: str) -> None:
    with pytest.raises(InvalidTaskId, match="^" + says):
        check_id(task_id)


@given(st.integers(-(2**63), 2**63 - 1))
@example(NOW_MS)
def test_a_long_is_written_as_fastavro_writes_it(number: int) -> None:
    out = BytesIO()
    schemaless_writer(out, "long", number)
    assert fastpath.encode_long(number) == out.getvalue()


def test_a_number_beyond_64_bits_is_no_long() -> None:
    for number in (2**63, -(2**63) - 1):
        with pytest.raises(ValueError, match="64 bits"):
            fastpath.encode_long(number)
