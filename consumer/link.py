"""The line between a supervisor and one worker process of its own: a socket that both hold.

The supervisor says which place the worker takes; the worker says what it holds, so that somebody
can end its transactions after a sudden death, or why it cannot work at all. When one of them ends,
the kernel tells the other: a worker whose supervisor is gone drains.

What a worker says waits in the socket and is read when its process has ended: nobody has to listen
meanwhile, and a few hundred bytes always fit.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError


class Place(NamedTuple):
    """A worker's number among its supervisor's (from 0), the slot that it shall take, and the file
    descriptor of the memory that it is to count in (runtime/meter.py)."""

    number: int
    slot: int
    meter: int | None = None


class Holding(NamedTuple):
    """What a worker held: its slot, and the transactional.ids that it committed under."""

    slot: int
    transactional_ids: tuple[str, ...]
    #: Those of the worker's App, which may have been given in its code.
    settings: Settings


class Said(NamedTuple):
    """All that a worker said in its life."""

    #: None: it ended before it held anything.
    holding: Holding | None
    #: Why it cannot work, and could not if it was started again. None: it did not say so.
    refusal: str | None


class SupervisorEnd:
    """The supervisor's end: `fileno` is the worker's, to be passed on to its process."""

    def __init__(self, place: Place) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.sendall(json.dumps(place._asdict()).encode() + b"\n")

    @property
    def fileno(self) -> int:
        return self._theirs.fileno()

    def started(self) -> None:
        """The worker has its end: let go of our copy, which would keep the line open."""
        self._theirs.close()

    def read(self) -> Said:
        """What was said by a worker that has ended. Does not wait."""
        self._ours.setblocking(False)
        data = bytearray()
        try:
            while piece := self._ours.recv(65536):
                data += piece
        except OSError:
            pass  # nothing more: somebody that the worker forked still holds its end
        said: dict[str, Any] = {}
        for line in data.splitlines(keepends=True):
            if line.endswith(b"\n"):  # else cut off by its death
                said |= json.loads(line)
        holding = None
        if "slot" in said:
            settings = Settings(**said["settings"])
            holding = Holding(said["slot"], tuple(said["transactional_ids"]), settings)
        return Said(holding, said.get("refusal"))

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


class WorkerEnd:
    """The worker's end, on the file descriptor that its supervisor passed on."""

    def __init__(self, fd: int) -> None:
        try:
            self._socket = socket.socket(fileno=fd)
            with self._socket.makefile() as lines:
                self.place = Place(**json.loads(lines.readline()))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"--supervised {fd}: no line to a supervisor; --processes N makes it"
            ) from error
        # Processes that handlers start would keep the line open after our death.
        os.set_inheritable(fd, False)
        if self.place.meter is not None:
            os.set_inheritable(self.place.meter, False)

    def holds(self, slot: int, transactional_ids: Sequence[str], settings: Settings) -> None:
        """Say what this worker holds, before its first transaction."""
        self._say(
            slot=slot,
            transactional_ids=list(transactional_ids),
            settings=settings.model_dump(mode="json"),
        )

    def refuse(self, why: str) -> None:
        """Say why this worker cannot work, and none in its place could."""
        self._say(refusal=why)

    def _say(self, **what: Any) -> None:
        try:
            self._socket.sendall(json.dumps(what).encode() + b"\n")
        except OSError:
            pass  # the supervisor is gone, which `watch` tells

    def close(self) -> None:
        """Let go of the line; the kernel does it too, when the process ends."""
        self._socket.close()

    def watch(self, gone: Callable[[], None]) -> None:
        """Call `gone`, in a thread, once the supervisor has ended."""
        threading.Thread(
            target=self._watch, args=(gone,), name="taskmill-supervised", daemon=True
        ).start()

    def _watch(self, gone: Callable[[], None]) -> None:
        try:
            while self._socket.recv(1):
                pass
        except OSError:
            pass  # reset: it ended with something unread
        gone()
