"""What the console knows of queues: what waits in each, since when, and who works on it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from taskmill.consumer.admin import GROUPS, Admin
from taskmill.consumer.client_name import worker_of
from taskmill.consumer.depth import Depths, PartitionDepth, QueueDepth
from taskmill.consumer.membership import group_of
from taskmill.consumer.pauses import Pause, is_paused, read_pauses
from taskmill.consumer.tally import Waiting
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.topic_table import Kind, queue_of
from taskmill.schemas.json_form import iso

__all__ = ["Member", "QueueView", "QueueWatch", "Waiting", "as_document"]

#: A rate is of no less time than this: what was asked twice at once tells none.
_RATE_MS = 500


class Member(NamedTuple):
    """A worker in a queue's group: its slot and version (None: its client does not say), client ID,
    host, and the partitions that it owns."""

    worker: str | None
    version: str | None
    client_id: str
    host: str
    partitions: tuple[int, ...]


class QueueView(NamedTuple):
    """A queue as of `depth.at`. `pause`: the last word on that, None where it never was paused;
    `rate_in`, `rate_out`: offsets a second that came, and that were committed, since the look
    before (transactions' markers among them); None at the first."""

    depth: QueueDepth
    pause: Pause | None
    members: tuple[Member, ...]
    rate_in: float | None
    rate_out: float | None

    @property
    def queue(self) -> str:
        """Its name."""
        return self.depth.queue

    @property
    def paused(self) -> bool:
        """Whether no record of it is begun."""
        return is_paused(self.pause)

    def owner(self, p: int) -> Member | None:
        """Who has partition `p`."""
        return next((one for one in self.members if p in one.partitions), None)

    def state(self, p: PartitionDepth) -> str:
        """`unowned`; `at work`: its owner has committed there, and has not let go; `assigned`: it
        has an owner who has not, since it restores its table, or nothing has come yet."""
        if self.owner(p.partition) is None:
            return "unowned"
        return "at work" if p.at_work else "assigned"


class _Sample(NamedTuple):
    at: int
    ends: Mapping[int, int]
    committed: Mapping[int, int]
    #: What it told beside the sample before it.
    rates: tuple[float | None, float | None] = (None, None)


class QueueWatch:
    """Looks at all queues under the prefix. Thread-safe: one look at a time. To be closed."""

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._depths = Depths(settings, clock)
        self._lock = threading.Lock()
        self._samples: dict[str, _Sample] = {}
        self._last: tuple[float, list[QueueView]] | None = None
        GROUPS.begin()

    def close(self) -> None:
        """Close its clients."""
        with self._lock:
            self._depths.close()

    def look(self, max_age_s: float = 0.0, *, letters: bool = True) -> list[QueueView]:
        """Every queue, by name; the last answer where it is no older than `max_age_s`.

        `letters`: count dead letters and delayed tasks too, which reads them. Takes some tenths of
        a second. Raises Unreachable, TaskmillError.
        """
        with self._lock:
            now = self._clock.monotonic()
            if self._last is not None and now - self._last[0] < max_age_s:
                return self._last[1]
            admin = Admin(self._settings, clock=self._clock)
            there = {
                name: len(topic.partitions)
                for name, topic in admin.metadata().topics.items()
                if topic.error is None
            }
            prefix = self._settings.prefix
            names = [queue_of(name, Kind.TASKS, prefix) for name in there]
            pauses = read_pauses(self._settings, self._clock)
            views = []
            for queue in sorted(name for name in names if name is not None):
                # A deadline belongs to one step.
                step = Admin(self._settings, clock=self._clock)
                depth = self._depths.look(queue, there, step, letters=letters)
                members = self._members(step, queue)
                views.append(self._view(depth, pauses.get(queue), members))
            self._last = self._clock.monotonic(), views
            return views

    def _view(
        self, depth: QueueDepth, pause: Pause | None, members: tuple[Member, ...]
    ) -> QueueView:
        sample = _Sample(
            depth.at,
            {p.partition: p.end for p in depth.partitions},
            {p.partition: p.committed for p in depth.partitions if p.committed is not None},
        )
        before = self._samples.get(depth.queue)
        if before is not None and sample.at - before.at < _RATE_MS:
            sample = before
        elif before is not None:
            passed_s = (sample.at - before.at) / 1000
            came = _moved(before.ends, sample.ends) / passed_s
            went = _moved(before.committed, sample.committed) / passed_s
            sample = sample._replace(rates=(came, went))
        self._samples[depth.queue] = sample
        return QueueView(depth, pause, members, *sample.rates)

    def _members(self, admin: Admin, queue: str) -> tuple[Member, ...]:
        prefix = self._settings.prefix
        members = []
        for one in admin.described(group_of(prefix, queue)):
            slot, version = worker_of(one.client_id, prefix)
            members.append(Member(slot, version, *one))
        return tuple(sorted(members, key=lambda one: (one.worker or "", one.client_id)))


def _moved(before: Mapping[int, int], after: Mapping[int, int]) -> int:
    return sum(max(0, offset - before[p]) for p, offset in after.items() if p in before)


def as_document(view: QueueView) -> dict[str, Any]:
    """A queue as JSON: times in ISO 8601 UTC, ages in milliseconds, rates a second. A number is an
    upper bound where its `…_is_exact` is false. `lag` is what is not committed: tasks that are done
    above one that is not are in it."""
    depth, pause = view.depth, view.pause
    owners = {p.partition: view.owner(p.partition) for p in depth.partitions}
    retrying = list(depth.retrying.values())
    return {
        "queue": view.queue,
        "at": iso(depth.at),
        "paused": view.paused,
        "paused_at": iso(pause.at) if pause is not None and view.paused else None,
        "paused_by": pause.by if pause is not None and view.paused else None,
        "depth": depth.depth.records,
        "depth_is_exact": depth.depth.is_exact,
        "lag": depth.lag.records,
        "lag_is_exact": depth.lag.is_exact,
        "oldest_age_ms": depth.oldest_age_ms,
        "retrying": sum(one.records for one in retrying),
        "retrying_is_exact": all(one.is_exact for one in retrying),
        "retrying_by_tier": {tier: one.records for tier, one in depth.retrying.items()},
        "delayed": None if depth.delayed is None else depth.delayed.records,
        "delayed_is_exact": depth.delayed is None or depth.delayed.is_exact,
        "letters": None if depth.letters is None else depth.letters.records,
        "letters_is_exact": depth.letters is None or depth.letters.is_exact,
        "rate_in": view.rate_in,
        "rate_out": view.rate_out,
        "partitions": [
            {
                "partition": p.partition,
                "committed": p.committed,
                "end": p.end,
                "lag": p.lag,
                "lag_is_exact": p.is_exact,
                "oldest_at": iso(p.oldest_at),
                "state": view.state(p),
                "worker": None if (owner := owners[p.partition]) is None else owner.worker,
            }
            for p in depth.partitions
        ],
        "workers": [
            {**member._asdict(), "partitions": list(member.partitions)} for member in view.members
        ],
    }
