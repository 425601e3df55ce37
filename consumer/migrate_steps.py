"""The steps of a migration between the topics of a queue: copy aside, close, fill, count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import Message

from taskmill.consumer.admin import Admin
from taskmill.consumer.bounded import Reader
from taskmill.consumer.migrate_copy import CLOSED_BYTES, Mover, Place, Position
from taskmill.consumer.migrate_journal import Entry
from taskmill.consumer.migrate_place import (
    Settled,
    check_place,
    is_placed,
    place_as_staged,
    place_in_table,
    place_task,
)
from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.topics import Kind, Topics, staging
from taskmill.schemas.codec import Codec

#: In the order in which they are swapped: the table is whole before `tasks` is there again.
MOVED = (Kind.STATE, Kind.RESULTS, Kind.TASKS)
#: Progress is told this often.
_TELL_S = 1.0


def first_wanted(entry: Entry, kind: Kind, p: int) -> int:
    """Where the copy of a partition begins: `tasks` at the first that is not done."""
    return (entry.committed[p] or 0) if kind is Kind.TASKS else 0


@dataclass(slots=True)
class Scene:
    """What every step needs."""

    topics: Topics
    codec: Codec
    clock: Clock
    #: Makes an admin client for one step.
    admin: Callable[[], Admin]
    say: Callable[[str], None]
    #: Seconds spent on each topic.
    seconds: dict[Kind, float]


class Teller:
    """Tells of progress at most once a second."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._at = scene.clock.monotonic() + _TELL_S

    def __call__(self, text: str) -> None:
        now = self._scene.clock.monotonic()
        if now >= self._at:
            self._at = now + _TELL_S
            self._scene.say(text)


class Copying:
    """Copies the originals to their staging topics."""

    def __init__(self, scene: Scene, mover: Mover, entry: Entry) -> None:
        self._scene = scene
        self._mover = mover
        self._entry = entry
        self._tell = Teller(scene)
        self._positions = {
            kind: mover.positions(scene.topics.name(kind), entry.old) for kind in MOVED
        }

    def total(self, kind: Kind) -> int:
        """Records written to the staging topic, all runs together."""
        return sum(at.written for at in self._positions[kind])

    def all(self) -> None:
        """Copy everything up to the ends that were written down."""
        for p in range(self._entry.old):
            settled = self._settled(p)
            for kind in MOVED:
                place = place_task(self._entry.new, settled.offsets)
                if kind is not Kind.TASKS:
                    place = place_in_table(self._entry.new, self._forgotten_ms(kind))
                see = settled.note if kind is Kind.STATE else None
                self._one(kind, p, self._entry.origins[kind].ends[p], place, see)

    def more_tasks(self) -> None:
        """Copy what has come to `tasks` since. No worker has seen it, so none of it is settled."""
        ends = self._scene.admin().ends(self._scene.topics.tasks, self._entry.old)
        for p, end in enumerate(ends):
            self._one(Kind.TASKS, p, end, place_task(self._entry.new, set()))

    def _settled(self, p: int) -> Settled:
        """What an earlier run saw of `state` [p]: read again, if `tasks` [p] is still to come."""
        settled = Settled(self._entry.committed[p] or 0, self._scene.codec)
        state, tasks = self._positions[Kind.STATE][p], self._positions[Kind.TASKS][p]
        if (
            state.offset is not None
            and (tasks.offset or 0) < self._entry.origins[Kind.TASKS].ends[p]
        ):
            for messages, _ in self._mover.read(self._scene.topics.state, p, 0, state.offset):
                settled.note(messages)
        return settled

    def _forgotten_ms(self, kind: Kind) -> int:
        kept_ms = int(self._entry.origins[kind].configs.get("retention.ms", "-1"))
        return self._entry.began_at - kept_ms if kept_ms >= 0 else 0

    def _one(
        self,
        kind: Kind,
        p: int,
        end: int,
        place: Place,
        see: Callable[[list[Message]], None] | None = None,
    ) -> None:
        began = self._scene.clock.monotonic()
        name, at = self._scene.topics.name(kind), self._positions[kind][p]
        start = first_wanted(self._entry, kind, p) if at.offset is None else at.offset
        for messages, offset in self._mover.read(name, p, start, end):
            if see is not None:
                see(messages)
            if messages or offset >= end:
                at = self._mover.copy(
                    name, p, messages, staging(name), place, Position(offset, at.written)
                )
            self._positions[kind][p] = at
            self._tell(f"copying {name} [{p}]: {offset:,} of {end:,}")
        self._scene.seconds[kind] += self._scene.clock.monotonic() - began


def close_topic(scene: Scene, mover: Mover, topic: str, partitions: int) -> None:
    """Let `topic` take no record any more, and wait until that holds."""
    scene.admin().set_configs(topic, {"max.message.bytes": str(CLOSED_BYTES)})
    mover.wait_closed(topic, partitions)


def has_worked(scene: Scene, reader: Reader, entry: Entry, group: str) -> bool:
    """Whether a worker has committed anything since `entry` was written."""
    now = scene.admin().committed(group, scene.topics.tasks, entry.old)
    if now != entry.committed:
        return True
    state = scene.topics.state
    ends = scene.admin().ends(state, entry.old)
    return any(
        messages
        for p, end in enumerate(ends)
        for messages, _ in reader.read(state, p, entry.origins[Kind.STATE].ends[p], end)
    )


def fill(scene: Scene, mover: Mover, entry: Entry, kind: Kind) -> None:
    """Fill the new topic from its staging topic, partition by partition, and count.

    Raises TaskmillError where a record is missing, or lies where its key does not belong.
    """
    began = scene.clock.monotonic()
    name, place, tell = scene.topics.name(kind), place_as_staged(entry.new), Teller(scene)
    staged = staging(name)
    positions = mover.positions(staged, entry.new)
    for p, end in enumerate(scene.admin().ends(staged, entry.new)):
        at = positions[p]
        for messages, offset in mover.read(staged, p, at.offset or 0, end):
            if messages:
                at = mover.copy(staged, p, messages, name, place, Position(offset, at.written))
            tell(f"filling {name} [{p}]: {offset:,} of {end:,}")
        positions[p] = at
    filled = sum(at.written for at in positions)
    if filled != entry.copied[kind]:
        raise TaskmillError(
            f"{name}: {filled} records came from {staged}, and {entry.copied[kind]} were put "
            "there: nothing more is done, the staging topics are kept"
        )
    scene.say(f"counting {name}")
    _count(scene, mover, kind, [at.written for at in positions])
    scene.seconds[kind] += scene.clock.monotonic() - began


def _count(scene: Scene, reader: Reader, kind: Kind, wanted: list[int]) -> None:
    """Read the new topic, and raise TaskmillError unless it holds what was `wanted`."""
    name, tell, new = scene.topics.name(kind), Teller(scene), len(wanted)
    starts, ends = scene.admin().starts(name, new), scene.admin().ends(name, new)
    for p, (start, end, expected) in enumerate(zip(starts, ends, wanted, strict=True)):
        found = 0
        for messages, offset in reader.read(name, p, start, end):
            if kind is Kind.TASKS:
                # Whoever enqueues by now may do so with the old count: that is for the workers.
                found += sum(is_placed(message, new) for message in messages)
            else:
                for message in messages:
                    check_place(message, new)
                found += len(messages)
            tell(f"counting {name} [{p}]: {offset:,} of {end:,}")
        # Where `tasks` begins later, a worker has been quick, and has deleted what is done.
        short = found < expected and (kind is not Kind.TASKS or not start)
        if short or (found > expected and kind is not Kind.TASKS):
            raise TaskmillError(
                f"{name} [{p}] has {found} records instead of {expected}: nothing more is done, "
                "the staging topics are kept"
            )
