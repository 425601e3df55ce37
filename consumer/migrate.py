"""Moves a queue to another partition count: copied aside, then topic by topic made anew.

Kafka can neither take partitions from a topic nor move keys between them. So everything is copied
to staging topics, each record where its key belongs among N (COPYING; the originals stay, and all
can be undone); then each topic is deleted, made anew under its name, filled from its staging topic
and counted. `tasks` is last: until then workers refuse to start, for the counts are unequal, or a
topic is missing beside its copy (`ensure` creates none then); from then on the table is whole. Each
phase is written down before it begins, and each transaction carries how far it read: the same
command goes on after a kill at any point.

A worker cannot interfere: while the group has members nothing begins, and before `state` is
deleted it takes no record any more, so that nothing can be committed behind our back.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from taskmill.consumer.admin import Admin
from taskmill.consumer.bounded import Reader
from taskmill.consumer.compacted import latest
from taskmill.consumer.membership import group_of
from taskmill.consumer.migrate_copy import Mover, copy_configs, mover_name, what_moves
from taskmill.consumer.migrate_journal import CONFIGS, Entry, Origin, Phase, journal_topic
from taskmill.consumer.migrate_steps import (
    MOVED,
    Copying,
    Scene,
    close_topic,
    fill,
    has_worked,
)
from taskmill.consumer.migrate_survey import Survey, survey_topics
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError, TaskmillError
from taskmill.runtime.topic_table import replication
from taskmill.runtime.topics import Kind, Topics, ensure, staging
from taskmill.schemas.codec import CODEC, Codec

_SWAPPED = {Phase.STATE: Kind.STATE, Phase.RESULTS: Kind.RESULTS, Phase.TASKS: Kind.TASKS}
_PHASES = tuple(Phase)
#: One step of the admin API: to make a hundred partitions takes a busy cluster seconds.
_STEP_S = 30.0


class Row(NamedTuple):
    """One topic of the report. `seconds` are this run's."""

    topic: str
    records: int
    seconds: float


@dataclass(slots=True)
class Report:
    """What a migration did. `old` equals `new` where there was nothing to do.

    `resumed` is the phase in which this run began, None for the beginning; `seconds` are this
    run's; `closed_seconds` tell how long `tasks` took no record, None where another run closed it.
    """

    queue: str
    old: int
    new: int
    resumed: Phase | None = None
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    closed_seconds: float | None = None


class Migration:
    """The migration of one queue. `say` is told what is being done, a line at a time.

    All methods raise Unreachable, and TaskmillError for what Kafka refuses.
    """

    def __init__(
        self,
        settings: Settings,
        queue: str,
        say: Callable[[str], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._clock = clock
        self._journal = journal_topic(settings.prefix)
        self._group = group_of(settings.prefix, queue)
        url = settings.schema_registry_url
        self._scene = Scene(
            Topics(settings.prefix, queue),
            Codec(url) if url else CODEC,
            clock,
            self._admin,
            say,
            dict.fromkeys(MOVED, 0.0),
        )
        self._closed_at: float | None = None
        self._closed_seconds: float | None = None

    # ---- what people ask for ------------------------------------------------------------------

    def under_way(self) -> Entry | None:
        """The migration of this queue that was begun and not ended."""
        with closing(self._reader()) as reader:
            return self._read_journal(reader)

    def count(self) -> int:
        """How many partitions the queue has. Raises ConfigError where there is no such queue."""
        return Admin(self._settings, clock=self._clock).queue_partitions(self._scene.topics)

    def members(self) -> list[str]:
        """The workers of the queue that run now."""
        return self._admin().members(self._group)

    def survey(self, new: int) -> Survey:
        """What would be moved to `new` partitions; nothing is written.

        Raises ConfigError for an unknown queue.
        """
        old, topics = self.count(), self._scene.topics
        entry, workers = self.under_way(), self.members()
        rows = []
        # Once swapping has begun, the copies are no more than what the report will say.
        if entry is None or entry.phase is Phase.COPYING:
            committed = self._admin().committed(self._group, topics.tasks, old)
            with closing(self._reader()) as reader:
                now_ms = self._clock.now_ms()
                rows = survey_topics(self._scene, reader, old, new, committed, now_ms)
        phase, to = (None, None) if entry is None else (entry.phase, entry.new)
        return Survey(self._queue, old, new, workers, phase, to, rows)

    def run(self, new: int) -> Report:
        """Begin the migration to `new` partitions, or go on with the one under way, to its end.

        Raises ConfigError while workers run, for an unknown queue, and for another `new` than that
        of the one under way.
        """
        began = self._clock.monotonic()
        # A mover at once: it takes over from one that is still at work, or died at work.
        with self._mover() as mover:
            entry = self._read_journal(mover)
            resumed = None if entry is None else entry.phase
            if entry is None and (old := self.count()) == new:
                return Report(self._queue, old, new)
            if entry is not None and entry.new != new:
                raise ConfigError(
                    f"queue {self._queue!r} is on its way from {entry.old} to {entry.new} "
                    f"partitions ({entry.phase}): finish that first, with --partitions {entry.new}"
                )
            entry = self._go_on(mover, self._valid(mover, entry) or self._begin(mover, new))
        rows = [
            Row(self._scene.topics.name(kind), entry.copied[kind], self._scene.seconds[kind])
            for kind in MOVED
        ]
        seconds = self._clock.monotonic() - began
        return Report(self._queue, entry.old, new, resumed, rows, seconds, self._closed_seconds)

    def abort(self) -> Entry | None:
        """Undo what is under way; returns it, None where there was nothing.

        Raises ConfigError once it is too late for that.
        """
        with self._mover() as mover:
            entry = self._read_journal(mover)
            if entry is not None and entry.phase is not Phase.COPYING:
                raise ConfigError(
                    f"queue {self._queue!r} cannot go back any more ({entry.phase}): finish with "
                    f"--partitions {entry.new}, then migrate it to {entry.old}"
                )
            if entry is not None:
                self._undo(mover, entry)
        return entry

    # ---- phases -------------------------------------------------------------------------------

    def _valid(self, mover: Mover, entry: Entry | None) -> Entry | None:
        """`entry` where it can be gone on with; else it is undone. Refuses workers."""
        if entry is None or entry.phase is not Phase.CLEARING:
            self._refuse_members()
        if entry is None or entry.phase is not Phase.COPYING:
            return entry
        staged = [staging(self._scene.topics.name(kind)) for kind in MOVED]
        there = all(self._admin().partitions(topic) == entry.new for topic in staged)
        if there and not has_worked(self._scene, mover, entry, self._group):
            return entry
        self._scene.say("a worker has run since it was begun: copying begins again")
        self._undo(mover, entry)
        return None

    def _go_on(self, mover: Mover, entry: Entry) -> Entry:
        """Do the phases from `entry`'s on; that each has begun is written down before."""
        for phase in _PHASES[_PHASES.index(entry.phase) :]:
            if phase is not entry.phase:
                entry = replace(entry, phase=phase)
                mover.write(self._journal, self._queue.encode(), entry.to_bytes())
            self._scene.say(f"{phase} ({_PHASES.index(phase) + 1} of {len(_PHASES)})")
            if phase is Phase.COPYING:
                entry = self._copy(mover, entry)
            elif phase is Phase.CLOSING:
                entry = self._close(mover, entry)
            elif phase is Phase.CLEARING:
                self._clear(mover, entry)
            else:
                self._swap(mover, entry, _SWAPPED[phase])
        return entry

    def _begin(self, mover: Mover, new: int) -> Entry:
        """Note what there is, make the staging topics, write it down."""
        topics = self._scene.topics
        ensure(self._settings, self._queue, clock=self._clock)
        old = self.count()
        # Left over from one that was undone.
        self._admin().remove([staging(topics.name(kind)) for kind in MOVED])
        self._admin().remove_group(mover_name(self._settings, self._queue))
        # In this order: the offsets wait for transactions that may yet move them, and what those
        # wrote lies before the ends that are asked afterwards.
        committed = self._admin().committed(self._group, topics.tasks, old)
        origins = {kind: self._origin(topics.name(kind), old) for kind in MOVED}
        for kind, origin in origins.items():
            configs = copy_configs(origin.configs)
            self._admin().make(staging(topics.name(kind)), new, origin.replicas, configs)
        admin = self._admin()
        factor, safety = replication(self._settings, len(admin.metadata().brokers))
        admin.make(self._journal, 1, factor, {**CONFIGS, **safety})
        began_at = self._clock.now_ms()
        entry = Entry(self._queue, old, new, Phase.COPYING, began_at, committed, origins)
        mover.write(self._journal, self._queue.encode(), entry.to_bytes())
        return entry

    def _origin(self, topic: str, partitions: int) -> Origin:
        admin = self._admin()
        topic_id = admin.topic_id(topic)
        if topic_id is None:
            raise TaskmillError(f"topic {topic} is gone: was it deleted just now?")
        ends = admin.ends(topic, partitions)
        return Origin(topic_id, admin.replicas(topic), admin.own_configs(topic), ends)

    def _copy(self, mover: Mover, entry: Entry) -> Entry:
        """Copy everything; at its end no worker can commit any more, and none has."""
        copying = Copying(self._scene, mover, entry)
        copying.all()
        # Few are left for when `tasks` is closed.
        copying.more_tasks()
        close_topic(self._scene, mover, self._scene.topics.state, entry.old)
        self._refuse_members()
        if has_worked(self._scene, mover, entry, self._group):
            raise ConfigError(
                f"a worker of queue {self._queue!r} ran meanwhile: stop it, and give the command "
                "again (or --abort)"
            )
        return replace(entry, copied={kind: copying.total(kind) for kind in MOVED})

    def _close(self, mover: Mover, entry: Entry) -> Entry:
        """Close `tasks`, and copy what came until then."""
        copying = Copying(self._scene, mover, entry)
        copying.more_tasks()
        self._closed_at = self._clock.monotonic()
        close_topic(self._scene, mover, self._scene.topics.tasks, entry.old)
        copying.more_tasks()
        return replace(entry, copied={**entry.copied, Kind.TASKS: copying.total(Kind.TASKS)})

    def _swap(self, mover: Mover, entry: Entry, kind: Kind) -> None:
        """Delete a topic, if it still is the old one; make it anew; fill it."""
        name, origin = self._scene.topics.name(kind), entry.origins[kind]
        if self._admin().topic_id(name) == origin.topic_id:
            # Its offsets are about what goes. Refused while it has members, whoever they are.
            self._admin().remove_group(self._group)
            self._scene.say(f"deleting {name}, {entry.old} partitions")
            self._admin().remove([name])
        if kind is Kind.TASKS:
            self._drop_control(entry)
        configs = copy_configs(origin.configs)
        self._admin().make(name, entry.new, origin.replicas, configs)
        there = self._admin().partitions(name) or 0
        if there > entry.new:
            raise TaskmillError(
                f"{name} was made by somebody else meanwhile, with {there} partitions instead of "
                f"{entry.new}: delete it if it is empty, and give the command again"
            )
        if there < entry.new:  # as by a broker that makes topics for whoever asks
            self._admin().widen(name, entry.new)
        self._admin().set_configs(name, configs)
        mover.forget(name)
        self._scene.say(f"filling {name}, {entry.new} partitions")
        if kind is Kind.TASKS and self._closed_at is not None:
            self._closed_seconds = self._clock.monotonic() - self._closed_at
        fill(self._scene, mover, entry, kind)

    def _drop_control(self, entry: Entry) -> None:
        """Delete `control` while there is no `tasks`, so that nobody makes it anew by the old
        count: whoever cancels next makes it by the new one."""
        control = self._scene.topics.control
        if self._admin().partitions(control) not in (None, entry.new):
            self._scene.say(f"deleting {control}")
            self._admin().remove([control])

    def _clear(self, mover: Mover, entry: Entry) -> None:
        """Let topics and group be as they should; remove what was needed for the migration."""
        topics = self._scene.topics
        for kind, origin in entry.origins.items():
            # Not before all was counted, and that written down: compaction leaves fewer records.
            configs = {key: origin.configs.get(key) for key in copy_configs(origin.configs)}
            self._admin().set_configs(topics.name(kind), configs)
        committed = self._admin().committed(self._group, topics.tasks, entry.new)
        missing = {p: 0 for p, offset in enumerate(committed) if offset is None}
        if missing and not self.members():
            # It would begin there anyway, but say that its offsets are gone.
            self._admin().begin_at(self._group, topics.tasks, missing)
        self._remove_staging()
        mover.write(self._journal, self._queue.encode(), None)

    def _undo(self, mover: Mover, entry: Entry) -> None:
        """As it was before `entry`."""
        for kind in (Kind.STATE, Kind.TASKS):
            limit = entry.origins[kind].configs.get("max.message.bytes")
            self._admin().set_configs(self._scene.topics.name(kind), {"max.message.bytes": limit})
        # First: without staging topics it could not be gone on with.
        mover.write(self._journal, self._queue.encode(), None)
        self._remove_staging()

    def _remove_staging(self) -> None:
        self._admin().remove([staging(self._scene.topics.name(kind)) for kind in MOVED])
        self._admin().remove_group(mover_name(self._settings, self._queue))

    # ---- what they need -----------------------------------------------------------------------

    def _refuse_members(self) -> None:
        if members := self.members():
            raise ConfigError(
                f"queue {self._queue!r} has {len(members)} workers: {', '.join(members)}. Stop "
                "them (one that was killed is forgotten after some seconds)"
            )

    def _read_journal(self, reader: Reader) -> Entry | None:
        found = latest(self._admin(), reader, self._journal)
        value = {one.key: one.value for one in found}.get(self._queue.encode())
        return None if value is None else Entry.from_bytes(value)

    def _admin(self) -> Admin:
        return Admin(self._settings, _STEP_S, self._clock)

    def _reader(self) -> Reader:
        name = mover_name(self._settings, self._queue)
        return Reader(self._settings, name, what_moves(self._queue), self._clock)

    def _mover(self) -> closing[Mover]:
        # Says sooner, and in better words, that nobody answers.
        Admin(self._settings, clock=self._clock).metadata()
        return closing(Mover(self._settings, self._queue, self._clock))
