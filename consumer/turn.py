"""One at a time, on whichever machine: the holder of the only partition of a topic, in a group.

What the holder writes is fenced by its transactional.id; this is what tells the second that it is
not its turn, and whose it is.
"""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import suppress
from typing import Self

from confluent_kafka import Consumer, TopicPartition

from taskmill.consumer.admin import Admin
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError, Unreachable
from taskmill.runtime.kafka import as_raised, client_config

#: The least that Kafka allows by default: for so long, one that was killed looks alive.
_SESSION_MS = 6_000
#: Until who holds it is forgotten, if killed; then until the group has told, whose first rebalance
#: waits 3 s for others by default; and until it is back after the broker was away.
_FORGOTTEN_S, _JOIN_S, _BACK_S = _SESSION_MS / 1000 + 2.0, 15.0, 60.0
_LOOK_S = 0.2
#: Between two checks the holder may read through millions of letters.
_LONGEST_MS = 3_600_000


class Taken(TaskmillError):
    """It is somebody else's turn."""

    def __init__(self, who: str) -> None:
        super().__init__(who)
        self.who = who


class TurnLost(TaskmillError):
    """Somebody else has the turn by now."""


def myself() -> str:
    """Who this process is, for people: `user@host:pid`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


def holders(settings: Settings, group: str, clock: Clock = SYSTEM_CLOCK) -> list[str]:
    """Who holds a turn in `group`, or waits for it, as `myself` told it, with its address. One that
    was killed is among them until its session is over. Raises Unreachable, TaskmillError."""
    members = Admin(settings, clock=clock).members(group)
    return [one.removeprefix(f"{settings.prefix}-") for one in members]


class Turn:
    """A turn at `topic`, which has one partition, in `group`. Not thread-safe.

    Its holder calls `check` now and then, at least once an hour.
    """

    def __init__(
        self, settings: Settings, group: str, topic: str, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._settings = settings
        self._group = group
        self._topic = topic
        self._clock = clock
        self._consumer: Consumer | None = None
        self._holds = False

    def __enter__(self) -> Self:
        """Take it. Raises Taken where another has it, Unreachable, TaskmillError."""
        try:
            self._take()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def check(self) -> None:
        """Raise TurnLost where another has it by now, Unreachable where the group is not back in
        time."""
        assert self._consumer is not None, "taken"
        self._consumer.poll(0)
        deadline = Deadline(_BACK_S, self._clock)
        while not self._holds:
            # Without an answer for a session, it is given up by itself; it may come back.
            self._consumer.poll(_LOOK_S)
            others: list[str] = []
            with suppress(Unreachable):
                others = self._others()
            if others and not self._holds:
                raise TurnLost(f"{others[0]} took over: this one did not answer Kafka in time")
            if deadline.over():
                raise Unreachable(f"group {self._group} is not back after {_BACK_S:g} s")

    def _take(self) -> None:
        deadline = Deadline(_FORGOTTEN_S, self._clock)
        while others := self._others():
            # One that was killed is forgotten after its session; one that lives here is no doubt.
            if deadline.over() or any(_lives_here(one) for one in others):
                raise Taken(others[0])
            self._clock.sleep(_LOOK_S)
        consumer = self._consumer = Consumer(
            client_config(
                self._settings,
                myself(),
                clock=self._clock,
                group_id=self._group,
                group_protocol="classic",
                session_timeout_ms=_SESSION_MS,
                heartbeat_interval_ms=1_000,
                max_poll_interval_ms=_LONGEST_MS,
                # Who holds it keeps it when another joins.
                partition_assignment_strategy="cooperative-sticky",
                enable_auto_commit=False,
                auto_offset_reset="latest",
            )
        )
        consumer.subscribe(
            [self._topic], on_assign=as_raised(self._assigned), on_revoke=as_raised(self._lost)
        )
        deadline = Deadline(_JOIN_S, self._clock)
        while not self._holds:
            consumer.poll(_LOOK_S)
            if not self._holds and deadline.over():
                if others := self._others():
                    raise Taken(others[0])
                raise Unreachable(f"group {self._group} gave no answer in {_JOIN_S:g} s")

    def _others(self) -> list[str]:
        """Who else is in the group, as `myself` told it, with its address."""
        named = holders(self._settings, self._group, self._clock)
        if self._consumer is None:
            return named
        return [one for one in named if not one.startswith(f"{myself()} ")]

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._holds = bool(partitions) or self._holds
        consumer.incremental_assign(partitions)
        consumer.pause(partitions)

    def _lost(self, _: Consumer, __: list[TopicPartition]) -> None:
        self._holds = False


def _lives_here(who: str) -> bool:
    """Whether a member, `user@host:pid (address)`, is a process of this host that runs now."""
    name = who.split(" ", 1)[0].rpartition("@")[2]
    host, _, pid = name.rpartition(":")
    if pid == str(os.getpid()):
        return False  # of a container that was started again, with the same numbers
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
