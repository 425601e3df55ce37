"""A worker's slot: a number that no other worker on this state directory holds.

The `transactional.id` is made of it, so it must be stable over restarts (a successor fences its
predecessor's open transaction at once) and unique (two holders would fence each other for ever).
The node's own ID keeps slot 0 of one machine apart from slot 0 of another.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from uuid_utils import uuid4

from taskmill.runtime.errors import ConfigError

#: More workers than this on one state directory is a mistake, not a plan.
MAX_SLOTS = 256


class Slot:
    """The lowest free slot of `state_dir`, held by a file lock until `release` or process end."""

    def __init__(self, state_dir: Path) -> None:
        folder = state_dir / "slots"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.node = _node_id(state_dir)
            self.number, self._fd = _claim(folder)
        except OSError as error:
            raise ConfigError(
                f"state directory {state_dir}: {error.strerror}; "
                "set TASKMILL_STATE_DIR to one that can be written"
            ) from error
        self.path = folder / str(self.number)
        self.path.mkdir(exist_ok=True)

    @property
    def name(self) -> str:
        """`<node>.<number>`: stable over restarts, unique over machines."""
        return f"{self.node}.{self.number}"

    def release(self) -> None:
        """Give the slot back. The kernel does it too, when the process ends."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _claim(folder: Path) -> tuple[int, int]:
    for number in range(MAX_SLOTS):
        fd = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        return number, fd
    raise ConfigError(f"all {MAX_SLOTS} worker slots of {folder} are taken")


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
