"""Task IDs: made here as UUIDv7 (RFC 9562), whose first 48 bits are the time they were made."""

from __future__ import annotations

import re

from uuid_utils import uuid7

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def new_id() -> str:
    """A fresh ID, greater as text than those made before it by this process."""
    return str(uuid7())


def time_of(task_id: str) -> int | None:
    """UTC milliseconds at which a UUIDv7 was made, by its maker's clock; None for other IDs."""
    if _UUID7.fullmatch(task_id) is None:
        return None
    return int(task_id[:8] + task_id[9:13], 16)
