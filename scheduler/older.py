"""Tasks passed on while workers of an older version run: what headers say stands in the body too.

Workers of 0.2 and before do not know the headers that outdo the body: they would take what comes
again for a duplicate, and what waited for what they cannot keep (docs/upgrade.md).
"""

from __future__ import annotations

from taskmill.consumer.dlq import ATTEMPT, NOT_BEFORE, SEQ
from taskmill.runtime.errors import DecodeError
from taskmill.schemas.codec import CODEC

_NUMBERS = {ATTEMPT: "attempt", SEQ: "seq"}


HeaderList = list[tuple[str, bytes | None]]


def for_older(value: bytes | None, headers: HeaderList) -> tuple[bytes | None, HeaderList]:
    """A record's `value` with the numbers that its headers tell, and without the time for which it
    has waited, which goes to the headers. What is no Task of ours stays as it is."""
    try:
        task = CODEC.decode_task(value)
    except DecodeError:
        return value, headers
    told = dict(headers)
    if task.not_before is not None and NOT_BEFORE not in told:
        headers = [*headers, (NOT_BEFORE, b"%d" % task.not_before)]
    numbers = {
        field: int(content)
        for name, field in _NUMBERS.items()
        if (content := told.get(name)) is not None and content.isdigit()
    }
    return CODEC.encode_task(task._replace(not_before=None, **numbers)), headers
