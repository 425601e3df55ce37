"""A worker's slot: a number that no other worker on this state directory holds.

The `transactional.id` is made of it, so it must be stable over restarts (a successor fences its
predecessor's open transaction at once) and unique (two holders would fence each other for ever).
The node's own ID keeps slot 0 of one machine apart from slot 0 of another.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Self

from uuid_utils import uuid4

from taskmill.runtime.errors import ConfigError

#: More workers than this on one state directory is a mistake, not a plan.
MAX_SLOTS = 256


class Slot:
    """A free slot of `state_dir`, held by a file lock until `release` or process end.

    It is `prefer`, where that is free, else the lowest one. Raises ConfigError.
    """

    def __init__(self, state_dir: Path, prefer: int | None = None) -> None:
        first = () if prefer is None else (prefer,)
        if not self._take(state_dir, chain(first, range(MAX_SLOTS))):
            raise ConfigError(f"all {MAX_SLOTS} worker slots of {state_dir / 'slots'} are taken")

    @classmethod
    def claim(cls, state_dir: Path, number: int) -> Self | None:
        """Slot `number` and no other; None while somebody holds it. Raises ConfigError."""
        slot = cls.__new__(cls)
        return slot if slot._take(state_dir, (number,)) else None

    def _take(self, state_dir: Path, numbers: Iterable[int]) -> bool:
        folder = state_dir / "slots"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.node = _node_id(state_dir)
            for number in numbers:
                fd = _lock(folder / f"{number}.lock")
                if fd is not None:
                    self.number, self._fd = number, fd
                    self.path = folder / str(number)
                    self.path.mkdir(exist_ok=True)
                    return True
        except OSError as error:
            raise ConfigError(
                f"state directory {state_dir}: {error.strerror}; "
                "set TASKMILL_STATE_DIR to one that can be written"
            ) from error
        return False

    @property
    def name(self) -> str:
        """`<node>.<number>`: stable over restarts, unique over machines."""
        return f"{self.node}.{self.number}"

    def transactional_id(self, prefix: str, queue: str) -> str:
        """The ID under which this slot's worker commits what it does for `queue`."""
        return f"{prefix}.{queue}.{self.name}"

    def release(self) -> None:
        """Give the slot back. The kernel does it too, when the process ends."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _lock(path: Path) -> int | None:
    """The open file, locked; None where it is locked already."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _node_id(state_dir: Path) -> str:
    """Made once a state directory. O_EXCL and a rename: two first starts agree on one."""
    path = state_dir / "node-id"
    if not path.exists():
        draft = state_dir / f"node-id.{os.getpid()}"
        draft.write_text(uuid4().hex[:12])
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
