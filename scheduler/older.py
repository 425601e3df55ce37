"""Tasks passed on while workers of an older version run: what headers say stands in the body too.

Workers of 0.2 and before do not know the headers that outdo the body: they would take what comes
again for a duplicate, and what waited for what they cannot keep (docs/upgrade.md).
"""

from __future__ import annotations

from taskmill.consumer.dlq import ATTEMPT, NOT_BEFORE, SEQ
from taskmill.runtime.errors import DecodeError
from taskmill.schemas.codec import CODEC

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
    task = task._replace(
        not_before=None,
        attempt=_number(told.get(ATTEMPT), task.attempt),
        seq=_number(told.get(SEQ), task.seq),
    )
    return CODEC.encode_task(task), headers


def _number(content: bytes | None, otherwise: int) -> int:
    return int(content) if content is not None and content.isdigit() else otherwise
