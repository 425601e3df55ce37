"""The demo's workers, and its scheduler: processes, started, killed and drained by their pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from taskmill.runtime.clock import SYSTEM_CLOCK, Deadline
from taskmill.runtime.errors import TaskmillError

#: A worker imports, joins and restores in a second or two; a busy machine takes several times that.
JOIN_S = 60.0
#: Above the worker's own limit for its running handlers, 30 s.
DRAIN_S = 40.0
_LOOK_S = 0.1


class Crew:
    """Processes of one command, `words` of `taskmill`. `logs` is a folder for what they say, `env`
    their environment."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], logs: Path) -> None:
        self._words = tuple(words)
        self._env = dict(env)
        self._logs = logs
        self._alive: dict[int, subprocess.Popen[bytes]] = {}
        #: Where each says what it does.
        self._told: dict[int, Path] = {}

    @property
    def pids(self) -> list[int]:
        """Of those that run, the oldest first."""
        return list(self._alive)

    def start(self) -> int:
        """Start one more; its pid."""
        role = self._words[0]
        number = len(list(self._logs.glob(f"{role}-*.log"))) + 1
        told = self._logs / f"{role}-{number}.log"
        with told.open("wb") as log:
            process = subprocess.Popen(
                # -P: the folder that this is started from is not for imports.
                [sys.executable, "-P", "-m", "taskmill", *self._words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                # The terminal's Ctrl-C is for the demo, which ends its workers itself.
                start_new_session=True,
            )
        self._alive[process.pid] = process
        self._told[process.pid] = told
        return process.pid

    def wait_joined(self) -> None:
        """Until each of them, workers all, has restored a partition, and so takes its records."""
        # They are heard, not the group: librdkafka 2.16 may abort a process that describes a group
        # whose coordinator has just moved, or is not there yet.
        deadline = Deadline(JOIN_S)
        while not all(b"restored " in log.read_bytes() for log in self._told.values()):
            self.check()
            if deadline.over():
                raise TaskmillError(f"the workers have not shared the partitions in {JOIN_S:g} s")
            SYSTEM_CLOCK.sleep(_LOOK_S)

    def check(self) -> None:
        """Raises TaskmillError where one has ended by itself."""
        for pid, process in self._alive.items():
            if process.poll() is not None:
                who = f"{self._words[0]} {pid}"
                raise TaskmillError(f"{who} has ended by itself (exit {process.returncode})")

    def kill(self) -> int:
        """SIGKILL the oldest: it gets no chance to finish anything. Its pid."""
        pid = self.pids[0]
        process = self._alive.pop(pid)
        del self._told[pid]
        process.send_signal(signal.SIGKILL)
        process.wait()
        return pid

    def drain(self) -> None:
        """SIGTERM: they finish what runs, commit it and end. Raises TaskmillError otherwise."""
        for process in self._alive.values():
            process.terminate()
        for pid in self.pids:
            try:
                code = self._alive[pid].wait(DRAIN_S)
            except subprocess.TimeoutExpired:
                who = f"{self._words[0]} {pid}"
                raise TaskmillError(f"{who} has not drained in {DRAIN_S:g} s") from None
            del self._alive[pid]
            if code != 0:
                raise TaskmillError(f"{self._words[0]} {pid} drained, and ended with {code}")

    def abandon(self) -> None:
        """End those that still run, at once."""
        for process in self._alive.values():
            process.kill()
            process.wait()
        self._alive.clear()


def environment(folder: Path) -> dict[str, str]:
    """This process's environment, with the modules in `folder` importable."""
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}
