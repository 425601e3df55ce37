"""What is written while workers of an older version run, as they read it (docs/upgrade.md)."""

from __future__ import annotations

from taskmill.schemas.avsc import released
from taskmill.schemas.codec import Codec
from taskmill.schemas.models import TaskState

_NEWEST, _FIRST = (version.prefix for version in released("TaskState"))
#: The second version's three fields, each at its default, with which its body ends; without them
#: it is the first version's body.
_ADDED = b"\x00\x00\x00"


class FirstStates(Codec):
    """Writes states in their first version, which workers of 0.1 read: without `deliveries`,
    `saved`, `result_expires_at`. All else, and all that is read, is as the Codec has it."""

    def encode_state(self, state: TaskState) -> bytes:
        """The value of a record on `state`."""
        less = state._replace(deliveries=0, saved=None, result_expires_at=None)
        value = super().encode_state(less)
        assert value.startswith(_NEWEST), "without a registry, states are framed so"
        assert value.endswith(_ADDED), "nothing is in the fields that were added"
        return _FIRST + value[len(_NEWEST) : -len(_ADDED)]
