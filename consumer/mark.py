"""What the idempotency table keeps of a TaskState, read without the rest.

A restore reads millions of states. The codec takes 9 µs for all fields of one; those that nearly
all of them need come early in the record, and reading up to them by hand takes 0.9 µs. What is not
of the common shape goes to the codec. Encoding (Avro specification): an int is zig-zag, 7 bits a
byte, low bits first; a string is its length, then itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from taskmill.schemas.avsc import released
from taskmill.schemas.models import TaskState
from taskmill.schemas.states import Status


class Entry(NamedTuple):
    """What the table knows of one dedup ID. `time_ms` is when the mark was written, UTC;
    `expires_at` from when on its result is to be deleted from `results`, where it lies there."""

    generation: int
    seq: int
    status: Status
    time_ms: int
    deliveries: int = 0
    saved: bytes | None = None
    expires_at: int | None = None


_PREFIX = released("TaskState")[0].prefix
_BODY = len(_PREFIX)
#: In a value below this no length takes a third byte. A state has 512 bytes at the most.
_SHORT = 8192
#: As they lie in the record: the length, then the text. Those that a handler may have kept
#: something under are read whole.
_STATUSES = {
    bytes((len(status) << 1,)) + status.encode(): status
    for status in Status
    if status not in (Status.RUNNING, Status.RETRYING)
}
#: The last three fields when nothing is in them. A last byte of 0 is the branch "null" of
#: result_expires_at, as no long but 0 itself ends with it; the two before are then of fields that
#: only the statuses above fill.
_NOTHING = b"\x00\x00\x00"


def read_mark(value: bytes, time_ms: int, decode: Callable[[bytes], TaskState]) -> Entry:
    """The entry of the state record `value` that the broker stamped `time_ms`.

    `decode` is the codec's; raises what it raises, for what it alone can read.
    """
    if value[:_BODY] == _PREFIX and len(value) < _SHORT and value.endswith(_NOTHING):
        try:
            at = _BODY
            for _ in range(3):  # id, name, queue
                size = value[at]
                if size > 0x7F:
                    at += 1
                    size = size & 0x7F | value[at] << 7
                at += 1 + (size >> 1)
            end = at + 1 + (value[at] >> 1)
            generation, seq = value[end], value[end + 1]
            # One byte each, neither continued nor negative: 0 to 63, nearly all there are.
            if not (generation | seq) & 0x81:
                return Entry(generation >> 1, seq >> 1, _STATUSES[value[at:end]], time_ms)
        except (IndexError, KeyError):
            pass
    state = decode(value)
    return Entry(
        state.generation,
        state.seq,
        state.status,
        time_ms,
        state.deliveries,
        state.saved,
        # One that lies here goes with its state.
        state.result_expires_at if state.large else None,
    )
