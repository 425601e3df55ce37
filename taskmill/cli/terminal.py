"""A terminal taken over and given back: keys one by one, another screen, whatever ends it."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console, RenderableType
from rich.live import Live

#: What ends a process unless it is caught: the terminal is given back first.
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_WAKES = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)


class Screen:
    """A screen of its own while it is open. `draw` makes what stands on it."""

    def __init__(self, console: Console, draw: Callable[[], RenderableType]) -> None:
        self._console = console
        self._draw = draw
        self._ending: int | None = None
        self._keys = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._wakes, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._wakes, False)

    def wake(self) -> None:
        """Have `wait` return. From any thread."""
        try:
            os.write(self._wake, b"\0")
        except OSError:
            pass  # full: it wakes; closed: nobody waits

    def wait(self, seconds: float) -> str:
        """Wait for keys, a signal, `wake` or the time; the keys that were pressed.

        Raises KeyboardInterrupt, SystemExit for a signal that ends the process.
        """
        watched = [self._wakes] if self._keys is None else [self._wakes, self._keys]
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._wakes in ready:
            try:
                if signal.SIGTSTP in os.read(self._wakes, 4096):
                    self._stop()
            except BlockingIOError:
                pass
        if self._ending is not None:
            _raise(self._ending)
        if self._keys is None or self._keys not in ready:
            return ""
        pressed = os.read(self._keys, 4096)
        if not pressed:
            self._keys = None  # it hung up; the signal of that comes by itself
        return pressed.decode("utf-8", "replace")

    def show(self) -> None:
        """Draw anew."""
        self._live.update(self._draw(), refresh=True)

    def _end(self, number: int, frame: FrameType | None) -> None:
        # Raised here it could hit what swallows it (a finalizer). A second one does not wait: a
        # terminal that takes no output holds up `show`.
        if self._ending is not None:
            _raise(number)
        self._ending = number

    @contextmanager
    def open(self) -> Iterator[None]:
        """Take the terminal over; give it back at the end, by whatever way that comes."""
        before = {number: signal.getsignal(number) for number in (*_ENDS, *_WAKES)}
        for number in _ENDS:
            signal.signal(number, self._end)
        for number in _WAKES:
            signal.signal(number, _note)
        old_fd = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        try:
            self._take()
            try:
                yield
            finally:
                self._give_back()
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._wakes)
            wake, self._wake = self._wake, -1
            os.close(wake)

    def _take(self) -> None:
        self._saved: Any = None
        if self._keys is not None:
            self._saved = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys, termios.TCSANOW)
        self._live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._live.start()

    def _give_back(self) -> None:
        try:
            self._live.stop()
        finally:
            if self._saved is not None and self._keys is not None:
                termios.tcsetattr(self._keys, termios.TCSANOW, self._saved)

    def _stop(self) -> None:
        """Ctrl-Z: the shell gets its terminal as it was, and gives it back with `fg`."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()


def _raise(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _note(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor is told its number."""
