"""Which source files an App is made of, and when they change: for `taskmill dev --reload`."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from taskmill.runtime.clock import SYSTEM_CLOCK, Clock

#: How often files are looked at.
LOOK_S = 0.5

#: Imports an App as a worker does, and tells what is wrong with it in a worker's words.
_TRY = """\
import sys
from taskmill.cli.target import load_app
from taskmill.runtime.errors import TaskmillError
try:
    load_app(sys.argv[1])
except TaskmillError as error:
    sys.exit(str(error))
"""

#: When a file was changed, and its size.
_Look = dict[Path, tuple[int, int]]


def folders_of(modules: Iterable[ModuleType]) -> list[Path]:
    """The folders that these modules lie in, without Python's own and what pip has installed."""
    installed = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")]
    found = set()
    for module in modules:
        file = getattr(module, "__file__", None)
        if file and not any(Path(file).is_relative_to(folder) for folder in installed):
            found.add(Path(file).resolve().parent)
    return sorted(found)


def try_app(target: str) -> subprocess.Popen[str]:
    """A process that imports the App anew; where that fails, it ends with 1 and a line on stderr.

    Without bytecode: that is told by its source's second, and two edits may lie in one.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-B", "-c", _TRY, target],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,
    )


class Sources:
    """The Python files in some folders, and in all of a folder that is a package."""

    def __init__(self, folders: Iterable[Path], clock: Clock = SYSTEM_CLOCK) -> None:
        self._folders = list(folders)
        self._clock = clock
        self._known = self._seen = self._look()
        self._next_s = clock.monotonic() + LOOK_S

    def changed(self) -> list[Path]:
        """What was changed, made or deleted since it was last told, once it has come to rest: an
        editor may write a file in two steps, and a branch many."""
        now_s = self._clock.monotonic()
        if now_s < self._next_s:
            return []
        self._next_s = now_s + LOOK_S
        before, self._seen = self._seen, self._look()
        if self._seen != before or self._seen == self._known:
            return []
        known, self._known = self._known, self._seen
        every = known.keys() | self._seen.keys()
        return sorted(path for path in every if known.get(path) != self._seen.get(path))

    def _look(self) -> _Look:
        found = {}
        for path in self._files():
            try:
                about = path.stat()
            except OSError:
                continue  # just deleted, or a link to nowhere
            found[path] = (about.st_mtime_ns, about.st_size)
        return found

    def _files(self) -> Iterator[Path]:
        for folder in self._folders:
            whole = (folder / "__init__.py").exists()
            yield from folder.rglob("*.py") if whole else folder.glob("*.py")
