"""How far a migration is: one record a queue on `<prefix>.migrations`, written before the deed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.topics import Kind

#: Everybody reads the newest record only, and there are few: one partition, compacted.
CONFIGS = {"cleanup.policy": "compact", "max.message.bytes": str(1024 * 1024)}


def journal_topic(prefix: str) -> str:
    """Where the migrations of all queues are written down; no queue's topic has two parts only."""
    return f"{prefix}.migrations"


class Phase(StrEnum):
    """What is being done, in this order. Up to the end of COPYING all can be undone."""

    #: Everything is copied to the staging topics, re-partitioned; the originals are untouched.
    COPYING = "copying"
    #: `state`, then `results`, is made anew and filled from its staging topic.
    STATE = "swapping state"
    RESULTS = "swapping results"
    #: `tasks` takes no record any more, and what came meanwhile is copied.
    CLOSING = "closing tasks"
    TASKS = "swapping tasks"
    #: The group's offsets begin anew, the staging topics go.
    CLEARING = "clearing up"


@dataclass(frozen=True, slots=True)
class Origin:
    """A topic as it was: its UUID, replicas, own settings, and its ends when copying began."""

    topic_id: str
    replicas: int
    configs: dict[str, str]
    ends: list[int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One migration. `committed` are the worker group's offsets when it began, by partition;
    `copied` counts the records on each staging topic that is complete."""

    queue: str
    old: int
    new: int
    phase: Phase
    began_at: int
    committed: list[int | None]
    origins: dict[Kind, Origin]
    copied: dict[Kind, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> Entry:
        """The entry that `to_bytes` wrote. Raises TaskmillError for anything else."""
        try:
            raw: dict[str, Any] = json.loads(value)
            return cls(
                **{
                    **raw,
                    "phase": Phase(raw["phase"]),
                    "origins": {Kind(k): Origin(**one) for k, one in raw["origins"].items()},
                    "copied": {Kind(k): count for k, count in raw["copied"].items()},
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TaskmillError(
                f"the record of a migration cannot be read, another version's? ({error!r})"
            ) from None
