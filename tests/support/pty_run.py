"""A command in a pseudo-terminal, as a person sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: What begins and ends the screen that a full-screen program draws on (xterm's 1049), and its
#: cursor.
ALT_ON, ALT_OFF, CURSOR_OFF, CURSOR_ON = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25l", "\x1b[?25h"
_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>])")


class Terminal:
    """`command` in a terminal of its own; what it wrote is in `text`."""

    def __init__(
        self, command: list[str], folder: Path, env: dict[str, str], size: tuple[int, int]
    ) -> None:
        """`size`: columns, lines."""
        self.text = ""
        self._after: list[Any] | None = None
        self._main, side = pty.openpty()
        self.resize(*size)
        self.before: list[Any] = termios.tcgetattr(self._main)
        clean = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | env
        for name in ("COLUMNS", "LINES"):
            clean.pop(name, None)
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**clean, "TERM": "xterm-256color"},
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(side)

    def resize(self, columns: int, lines: int) -> None:
        """Another size, of which the kernel tells the program."""
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def modes(self) -> list[Any]:
        """How the terminal is set, or was at the end; to be compared with `before`."""
        return termios.tcgetattr(self._main) if self._after is None else self._after

    @property
    def plain(self) -> str:
        """What it wrote, without escape sequences."""
        return _ESCAPE.sub("", self.text)

    def frame(self) -> list[str]:
        """The lines that it drew last."""
        last = re.split(r"\x1b\[H|\x1b\[2J", self.text)[-1]
        return _ESCAPE.sub("", last).replace("\r", "").split("\n")

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._main, keys.encode())

    def wait_for(self, pattern: str, within_s: float = 30.0, *, fresh: bool = False) -> str:
        """Wait until it has written what matches; `fresh`: only what comes from now on."""
        began = len(self.text) if fresh else 0
        deadline = time.monotonic() + within_s
        while not re.search(pattern, _ESCAPE.sub("", self.text[began:])):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.text[began:]!r}"
            assert self._read(deadline - time.monotonic()) or self._is_there(pattern, began), (
                f"it ended without {pattern!r}: {self.text!r}"
            )
        return _ESCAPE.sub("", self.text[began:])

    def wait(self, within_s: float = 30.0) -> int:
        """Wait for its end; its exit code (of a signal: negative)."""
        deadline = time.monotonic() + within_s
        while self._read(max(0.0, deadline - time.monotonic())):
            assert time.monotonic() < deadline, f"still runs: {self.text!r}"
        return self.process.wait(max(1.0, deadline - time.monotonic()))

    def _is_there(self, pattern: str, began: int) -> bool:
        return re.search(pattern, _ESCAPE.sub("", self.text[began:])) is not None

    def _read(self, seconds: float) -> bool:
        """Take what there is; False once nothing will come any more."""
        ready, _, _ = select.select([self._main], [], [], min(seconds, 1.0))
        if not ready:
            return self.process.poll() is None
        try:
            data = os.read(self._main, 65_536)
        except OSError:  # EIO: the other side is closed
            return False
        self.text += data.decode("utf-8", "replace")
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._after = self.modes
        os.close(self._main)


def taskmill(*arguments: str) -> list[str]:
    """The command line of a command of ours."""
    return [sys.executable, "-m", "taskmill", *arguments]
