"""The common shapes of Task and TaskState, put together by hand: fastavro's bytes, sooner.

fastavro walks the schema for every value, and tries each branch of every union: 5 to 8 µs for
records like ours, 30 µs for a state with an error. Nearly all tasks have every optional field at
its default, and nearly all states are of a task that went well, or failed in few words; those take
0.6 to 3 µs here. Whatever else comes, a wrong type included, returns None: fastavro then does it,
or says what is wrong. Hypothesis holds that both agree on every value and on every string of bytes
(tests/unit/test_codec.py).

Encoding (Avro specification, "Binary Encoding"): a long is zig-zag, 7 bits a byte, low bits
first; a string or bytes is its length as a long, then itself; a union is the branch as a long,
then the value; a map ends with a block of count 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from taskmill.schemas.models import JSON, MAX_ID_BYTES, MAX_NAME_BYTES, Task, TaskError, TaskState
from taskmill.schemas.states import Status

#: What taking a value apart or together by hand may raise when it is not of the common shape.
_OFF_SHAPE = (TypeError, ValueError, IndexError, KeyError, AttributeError)

_NULL = b"\x00"
#: Union branch 1, the value.
_SOME = b"\x02"


def encode_long(number: int) -> bytes:
    """`number` as an Avro long. Raises ValueError outside 64 bits."""
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{number} does not fit 64 bits")
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


#: Lengths of most strings and payloads; indexed, never with a negative number.
_LENGTHS = 1024
_LENGTH = [encode_long(length) for length in range(_LENGTHS)]
#: None refuses the empty string, the table's end what is too long.
_ID_LENGTH = [None, *_LENGTH[1 : MAX_ID_BYTES + 1]]
_NAME_LENGTH = [None, *_LENGTH[1 : MAX_NAME_BYTES + 1]]
_STATUS = {status: _LENGTH[len(status)] + status.encode() for status in Status}

# Tasks come and go in bursts, so a millisecond is met many times: 60 ns instead of 600.
_time = lru_cache(maxsize=4096)(encode_long)


@lru_cache(maxsize=4096)
def _optional_time(time_ms: int | None) -> bytes:
    return _NULL if time_ms is None else _SOME + encode_long(time_ms)


@lru_cache(maxsize=1024)
def _int(number: int) -> bytes:
    if not 0 <= number < 2**31:
        raise ValueError(f"{number} is no count")
    return encode_long(number)


#: The fields of a Task from `not_before` on, when none of them is set, and their bytes.
_DEFAULTS = Task("", "", b"", "", 0)[5:]
_DEFAULTS_BYTES = _NULL * 5 + b"\x02\x00\x00" + _NULL * 2 + b"\x00"
_JSON_BYTES = _LENGTH[len(JSON)] + JSON.encode()
_TIME_AT = len(_JSON_BYTES)
#: Times from 2004 to 2039 take six bytes.
_DEFAULTS_AT = _TIME_AT + 6
_REST = _DEFAULTS_AT + len(_DEFAULTS_BYTES)


def encode_task(prefix: bytes, task: Task) -> bytes | None:
    """`prefix` and `task`, or None where the task is not of the common shape."""
    if task[5:] != _DEFAULTS or task.content_type != JSON:
        return None
    try:
        identity = task.id.encode()
        name = task.name.encode()
        payload = task.payload
        length = len(payload)
        return b"".join(
            (
                prefix,
                _ID_LENGTH[len(identity)],  # type: ignore[arg-type]
                identity,
                _NAME_LENGTH[len(name)],
                name,
                _LENGTH[length] if length < _LENGTHS else encode_long(length),
                payload,
                _JSON_BYTES,
                _time(task.enqueued_at),
                _DEFAULTS_BYTES,
            )
        )
    except _OFF_SHAPE:
        return None


#: Half the cost of Task's own constructor. The last default, the headers, is made anew each time.
_task: Callable[[tuple[Any, ...]], Task] = partial(tuple.__new__, Task)
_UNSET = _DEFAULTS[:-1]


@lru_cache(maxsize=4096)
def _six_byte_long(data: bytes) -> int:
    if len(data) != 6 or data[5] > 0x7F or min(data[:5]) < 0x80:
        raise ValueError("not a long of six bytes")
    number = 0
    for position, byte in enumerate(data):
        number |= (byte & 0x7F) << 7 * position
    return (number >> 1) ^ -(number & 1)


def decode_task(prefix: bytes, value: bytes | None) -> Task | None:
    """The Task in `value`, or None where it is not of the common shape, or is no Task.

    No bound is checked on the way: a slice beyond the end is short, and then the last comparison,
    of where the payload ends with where the value ends, does not hold.
    """
    if value is None:
        return None
    try:
        start = len(prefix)
        if not value.startswith(prefix) or not value.endswith(_DEFAULTS_BYTES):
            return None
        size = value[start]
        # A length of one byte: the high bit would continue it, the low bit make it negative.
        if size & 0x81 or not size:
            return None
        start += 1
        end = start + (size >> 1)
        identity = value[start:end].decode()
        size = value[end]
        if size & 0x81 or not size:
            return None
        start = end + 1
        end = start + (size >> 1)
        name = value[start:end].decode()
        size = value[end]
        start = end + 1
        if size & 0x80:
            high = value[start]
            start += 1
            if high & 0x80:
                top = value[start]
                if top & 0x80:
                    return None
                high = high & 0x7F | top << 7
                start += 1
            size = size & 0x7F | high << 7
        if size & 1:
            return None
        end = start + (size >> 1)
        if end + _REST != len(value) or value[end : end + _TIME_AT] != _JSON_BYTES:
            return None
        time_ms = _six_byte_long(value[end + _TIME_AT : end + _DEFAULTS_AT])
        return _task((identity, name, value[start:end], JSON, time_ms, *_UNSET, {}))
    except _OFF_SHAPE:
        return None


@lru_cache(maxsize=1024)
def _error(error: TaskError) -> bytes:
    """Of a failure that comes thousands of times a second, mostly the same words."""
    out = _SOME
    for text in error:
        data = text.encode()
        out += _LENGTH[len(data)] + data
    return out


def encode_state(prefix: bytes, state: TaskState) -> bytes | None:
    """`prefix` and `state`, or None where the state is not of the common shape."""
    # One unpacking costs a third of twenty-one attribute look-ups.
    (
        id_, name, queue, status, generation, seq, attempt, worker, enqueued_at, started_at,
        finished_at, next_attempt_at, result, content_type, error, source_partition,
        source_offset, large, deliveries, saved, result_expires_at,
    ) = state  # fmt: skip
    if large is not None or deliveries or saved is not None:
        return None
    try:
        identity = id_.encode()
        name_text = name.encode()
        queue_text = queue.encode()
        worker_text = worker.encode()
        result_branch = type_branch = error_branch = _NULL
        if result is not None:
            result_branch = _SOME + _LENGTH[len(result)] + result
        if content_type is not None:
            type_text = content_type.encode()
            type_branch = _SOME + _LENGTH[len(type_text)] + type_text
        if error is not None:
            error_branch = _error(error)
        return b"".join(
            (
                prefix,
                _LENGTH[len(identity)],
                identity,
                _LENGTH[len(name_text)],
                name_text,
                _LENGTH[len(queue_text)],
                queue_text,
                _STATUS[status],
                _int(generation),
                _int(seq),
                _int(attempt),
                _LENGTH[len(worker_text)],
                worker_text,
                _time(enqueued_at),
                _optional_time(started_at),
                _optional_time(finished_at),
                _optional_time(next_attempt_at),
                result_branch,
                type_branch,
                error_branch,
                _int(source_partition),
                encode_long(source_offset),
                # large, deliveries, saved
                b"\x00\x00\x00",
                _optional_time(result_expires_at),
            )
        )
    except _OFF_SHAPE:
        return None


_state: Callable[[tuple[Any, ...]], TaskState] = partial(tuple.__new__, TaskState)
_STATUS_OF = {status.encode(): status for status in Status}
_text_of = lru_cache(maxsize=1024)(bytes.decode)
#: What a state ends with where nothing is large, suspected or saved, and its result stays.
_STATE_END = b"\x00\x00\x00\x00"


def decode_state(prefix: bytes, value: bytes | None) -> TaskState | None:
    """The TaskState in `value`, or None where it is not of the common shape, or is none.

    As in `decode_task` a slice beyond the end is short; then the last comparison does not hold.
    """
    if value is None or not value.startswith(prefix) or not value.endswith(_STATE_END):
        return None
    try:
        at = len(prefix)
        size = value[at]
        start = at + 1
        at = start + (size >> 1)
        identity = value[start:at].decode()
        sizes = size
        start, at = at + 1, at + 1 + ((size := value[at]) >> 1)
        name = _text_of(value[start:at])
        sizes |= size
        start, at = at + 1, at + 1 + ((size := value[at]) >> 1)
        queue = _text_of(value[start:at])
        sizes |= size
        start, at = at + 1, at + 1 + ((size := value[at]) >> 1)
        status = _STATUS_OF[value[start:at]]
        generation, seq, attempt = value[at : at + 3]
        sizes |= size | generation | seq | attempt
        start, at = at + 4, at + 4 + ((size := value[at + 3]) >> 1)
        worker = _text_of(value[start:at])
        # One byte each: the high bit would continue it, the low bit make it negative.
        if (sizes | size) & 0x81:
            return None
        times = [_six_byte_long(value[at : at + 6])]
        at += 6
        for _ in range(3):
            if value[at] == 0:
                times.append(None)  # type: ignore[arg-type]
                at += 1
            elif value[at] == 2:
                times.append(_six_byte_long(value[at + 1 : at + 7]))
                at += 7
            else:
                return None
        result, at = _optional(value, at)
        kind, at = _optional(value, at)
        error = None
        if value[at] == 2:
            parts: list[str] = []
            for _ in range(3):
                start, at = _length(value, at + 1 if not parts else at)
                parts.append(_text_of(value[start:at]))
            error = TaskError(*parts)
        elif value[at]:
            return None
        else:
            at += 1
        partition, at = _long(value, at)
        offset, at = _long(value, at)
    except _OFF_SHAPE:
        return None
    if at + len(_STATE_END) != len(value):
        return None
    content_type = None if kind is None else JSON
    if kind is not None and kind != _JSON_BYTES[1:]:
        return None
    return _state(
        (
            identity, name, queue, status, generation >> 1, seq >> 1, attempt >> 1, worker, *times,
            result, content_type, error, partition, offset, None, 0, None, None,
        )
    )  # fmt: skip


def _optional(value: bytes, at: int) -> tuple[bytes | None, int]:
    """Bytes or nothing, and where what follows begins."""
    if value[at] == 0:
        return None, at + 1
    if value[at] != 2:
        raise ValueError("no branch of two")
    start, end = _length(value, at + 1)
    return value[start:end], end


def _length(value: bytes, at: int) -> tuple[int, int]:
    """Where bytes begin and end, of which so many as `at` says follow; below 8192."""
    size = value[at]
    if size & 0x80:
        at += 1
        if value[at] & 0x80:
            raise ValueError("not a common length")
        size = size & 0x7F | value[at] << 7
    if size & 1:
        raise ValueError("a negative length")
    return at + 1, at + 1 + (size >> 1)


def _long(value: bytes, at: int) -> tuple[int, int]:
    """A number from 0 up, of five bytes at the most, and where what follows begins."""
    byte = value[at]
    number, shift = byte & 0x7F, 7
    while byte & 0x80:
        at += 1
        byte = value[at]
        number |= (byte & 0x7F) << shift
        shift += 7
    if number & 1 or shift > 35:
        raise ValueError("not a common number")
    return number >> 1, at + 1
