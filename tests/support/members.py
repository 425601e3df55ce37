"""A question about a group that its process does not outlive."""

from __future__ import annotations

import os
import signal

from taskmill.consumer.group_members import GroupMember
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError


def dying(settings: Settings, group: str, timeout_s: float) -> tuple[GroupMember, ...]:
    if group == "aborts":
        os.abort()
    if group == "hangs":
        signal.pause()
    if group == "refused":
        raise TaskmillError("not for you")
    return (GroupMember(group, "there", (1, 2)),)
