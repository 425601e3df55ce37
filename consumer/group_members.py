"""Who is in a group, asked by a process of its own.

librdkafka 2.16 may abort the process that asks, on an assertion, where the group's coordinator has
just moved (ARCHITECTURE.md, "Bounds"): that must be neither a console nor a scheduler. One such
process for all that this one asks; it is begun again after it died, and ends with this one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NamedTuple

from taskmill.runtime.config import Settings
from taskmill.runtime.errors import TaskmillError, Unreachable
from taskmill.runtime.kafka import bootstrap_servers

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

#: Beyond what a question may take: to import, on a busy machine.
_BEGIN_S = 20.0


class GroupMember(NamedTuple):
    """A member of a consumer group: its client ID, address, and the partitions it owns of whatever
    topic, in order."""

    client_id: str
    host: str
    partitions: tuple[int, ...]


#: Members of `group`, asked within `timeout_s`. Raises Unreachable, TaskmillError.
Ask = Callable[[Settings, str, float], tuple[GroupMember, ...]]


class GroupMembers:
    """Puts `ask` to a process of its own, one question after another. Thread-safe."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._child: SpawnProcess | None = None
        self._pipe: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Its process, where one was begun."""
        return None if self._child is None else self._child.pid

    def begin(self) -> None:
        """Have it import what it needs, while this process does something else."""
        with self._lock:
            self._begun()

    def of(self, settings: Settings, group: str, timeout_s: float) -> tuple[GroupMember, ...]:
        """The members of the group; none where there is no group.

        Raises Unreachable where Kafka gave no answer in `timeout_s`, or the process died of the
        question; TaskmillError.
        """
        with self._lock:
            pipe = self._begun()
            try:
                pipe.send((settings, group, timeout_s))
                answer = pipe.recv() if pipe.poll(timeout_s + _BEGIN_S) else None
            except (EOFError, OSError):
                answer = None
            if answer is None:
                how = self._ended()
                raise Unreachable(
                    f"Kafka at {bootstrap_servers(settings)} did not tell who is in group {group} "
                    f"(the process that asked {how})"
                )
        if isinstance(answer, TaskmillError):
            raise answer
        found: tuple[GroupMember, ...] = answer
        return found

    def close(self) -> None:
        """End its process; the next question begins another."""
        with self._lock:
            self._ended()

    def _begun(self) -> Connection:
        if self._pipe is not None and self._child is not None and self._child.is_alive():
            return self._pipe
        self._ended()
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(
            target=_answer, args=(self._ask, theirs), name="taskmill-members", daemon=True
        )
        self._child.start()
        theirs.close()
        return self._pipe

    def _ended(self) -> str:
        """What became of the last one, which is no more."""
        if self._pipe is None or self._child is None:
            return "was none"
        self._pipe.close()
        self._child.join(1.0)
        code = self._child.exitcode
        if code is None:
            self._child.kill()
            self._child.join()
        self._child.close()
        self._child = self._pipe = None
        return "gave no answer" if code is None else f"ended with {code}"


def _answer(ask: Ask, pipe: Connection) -> None:
    """Answer until the pipe ends, which it does with the process that asks."""
    # A terminal's Ctrl-C goes to both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            settings, group, timeout_s = pipe.recv()
        except (EOFError, OSError):
            return
        answer: tuple[GroupMember, ...] | TaskmillError
        try:
            answer = ask(settings, group, timeout_s)
        except TaskmillError as error:
            answer = error
        pipe.send(answer)
