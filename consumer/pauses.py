"""Which queues are paused: `<prefix>.settings`, key `pause/QUEUE`, written by people, read by all
workers and consoles. A queue that goes on has a record that says so, not a deleted one: whoever was
away for long must not miss it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from taskmill.consumer.admin import Admin
from taskmill.consumer.compacted import read_people, write_people
from taskmill.consumer.follow import Follower
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.topic_table import Kind, people_spec
from taskmill.runtime.topics import Topics

logger = logging.getLogger("taskmill.pauses")

_KEY = b"pause/"


class Pause(NamedTuple):
    """The last word on a queue: whether it is `paused`, since when (UTC ms), by whom."""

    paused: bool
    at: int
    by: str


class Pauses:
    """Follows what is paused; `changed` is called, by its thread, when that may be another."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock = SYSTEM_CLOCK,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        topic = people_spec(settings, Kind.SETTINGS).name
        self._follower: Follower[Pause | None] = Follower(settings, topic, _parse, clock, changed)

    def start(self) -> None:
        """Follow the topic, in a thread."""
        self._follower.start()

    def close(self) -> None:
        """End the thread."""
        self._follower.close()

    def wait_ready(self, seconds: float) -> bool:
        """Whether it is known what is paused within so long; also where it may not be read."""
        return self._follower.wait_ready(seconds)

    def is_paused(self, queue: str) -> bool:
        """Whether the queue is paused, as far as is known."""
        return is_paused(self._follower.values.get(_KEY + queue.encode()))


def is_paused(pause: Pause | None) -> bool:
    """What the last word on a queue means; there may be none."""
    return pause is not None and pause.paused


def read_pauses(settings: Settings, clock: Clock = SYSTEM_CLOCK) -> Mapping[str, Pause]:
    """The last word on each queue that was ever paused, as of now. Raises Unreachable, and
    TaskmillError for what Kafka refuses."""
    found = {}
    for key, value in read_people(settings, Kind.SETTINGS, clock).items():
        try:
            pause = _parse(key, value)
        except TaskmillError as error:
            # Workers pass it over too.
            logger.warning("%.80r: %s", key, error)
            continue
        if pause is not None:
            found[key.removeprefix(_KEY).decode("utf-8", "replace")] = pause
    return found


def set_paused(
    settings: Settings, queues: Iterable[str], paused: bool, by: str, clock: Clock = SYSTEM_CLOCK
) -> list[str]:
    """Pause these queues, or let them go on; returns those for which that is news.

    Raises ConfigError for a queue that has no topics, and nothing is written then; Unreachable.
    """
    wanted = list(dict.fromkeys(queues))
    for queue in wanted:
        Admin(settings, clock=clock).queue_partitions(Topics(settings.prefix, queue))
    before = read_pauses(settings, clock)
    changed = [queue for queue in wanted if is_paused(before.get(queue)) is not paused]
    for queue in changed:
        value = json.dumps(Pause(paused, clock.now_ms(), by)._asdict()).encode()
        write_people(settings, Kind.SETTINGS, _KEY + queue.encode(), value, clock)
    return changed


def _parse(key: bytes, value: bytes) -> Pause | None:
    """The pause; None for a record about something else."""
    if not key.startswith(_KEY):
        return None
    try:
        told = json.loads(value)
        pause = Pause(told["paused"], int(told["at"]), str(told["by"]))
        if type(pause.paused) is not bool:
            raise ValueError("paused")
    except (ValueError, KeyError, TypeError) as error:
        raise TaskmillError(
            f"the record of a pause cannot be read, another version's? ({error!r})"
        ) from None
    return pause
