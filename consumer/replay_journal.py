"""Which replays there were: who, when, what was asked, what came of it: `<prefix>.replays`."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from typing import Any

from taskmill.consumer.admin import Admin
from taskmill.consumer.bounded import Reader
from taskmill.consumer.compacted import latest
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.topic_table import replication

logger = logging.getLogger("taskmill.replay")

#: The newest record of each replay is what is known of it, for ever: they are few, and small. One
#: partition, which is also the turn that they take (consumer/turn.py).
_CONFIGS = {"cleanup.policy": "compact", "max.message.bytes": str(1024 * 1024)}

#: How a replay stands, or ended.
RUNNING, DONE, ABORTED, INTERRUPTED = "running", "done", "aborted", "interrupted"


def journal_topic(prefix: str) -> str:
    """Where the replays of all queues are written down; no queue's topic has two parts only."""
    return f"{prefix}.replays"


@dataclass(frozen=True, slots=True)
class Job:
    """One replay. Times are UTC ms; `asked` is what its command was given, by option; `since` and
    `until` are the times that it meant; `left` counts what was meant and could not be replayed, by
    why; `canary` counts the outcomes of its canaries, by status."""

    id: str
    queue: str
    #: Of dead letters ("letters"), or of finished tasks ("tasks").
    what: str
    #: The process: `user@host:pid`.
    who: str
    asked: dict[str, Any]
    began_at: int
    since: int | None
    until: int | None
    replayed: int = 0
    left: dict[str, int] = field(default_factory=dict)
    canary: dict[str, int] = field(default_factory=dict)
    status: str = RUNNING
    #: In words, where it was aborted.
    why: str | None = None
    ended_at: int | None = None
    #: For whom, where that is not the process's user: a console's token.
    by: str | None = None

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, value: bytes) -> Job:
        """The job that `to_bytes` wrote; what a newer version says beyond that is passed over.
        Raises TaskmillError for anything else."""
        try:
            told = json.loads(value)
            job = cls(**{name: told[name] for name in cls.__slots__ if name in told})
            if type(job.began_at) is not int or not isinstance(job.asked, dict):
                raise ValueError("began_at, asked")
            return job
        except (ValueError, TypeError, RecursionError) as error:
            raise TaskmillError(
                f"the record of a replay cannot be read, another version's? ({error!r})"
            ) from None

    def record(self, prefix: str) -> dict[str, Any]:
        """The arguments of `produce` that write it down."""
        return {
            "topic": journal_topic(prefix),
            "key": self.id.encode(),
            "value": self.to_bytes(),
            "partition": 0,
        }


def make_journal(settings: Settings, admin: Admin) -> None:
    """Create the topic, where it is missing."""
    topic = journal_topic(settings.prefix)
    if admin.partitions(topic) is None:
        factor, safety = replication(settings, len(admin.metadata().brokers))
        admin.make(topic, 1, factor, {**_CONFIGS, **safety})


def read_jobs(settings: Settings, admin: Admin, reader: Reader, queue: str) -> list[Job]:
    """The replays of a queue, the first one first. A record that cannot be read is told of in the
    log: it would lie in the way of all that come, for ever."""
    jobs = []
    for one in latest(admin, reader, journal_topic(settings.prefix)):
        try:
            jobs.append(Job.from_bytes(one.value))
        except TaskmillError as error:
            logger.warning("%s, key %.80r: %s", journal_topic(settings.prefix), one.key, error)
    return sorted((job for job in jobs if job.queue == queue), key=lambda j: j.began_at)
