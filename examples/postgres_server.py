"""A PostgreSQL of this machine's programs, in a folder of its own, ended by its pid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any

import psycopg

from taskmill.runtime.broker_ports import listens
from taskmill.runtime.clock import SYSTEM_CLOCK, Deadline

#: It answers within a second; a busy machine takes several times that.
START_S = 50.0
_INIT_S = 60.0
_END_S = 20.0


def find_programs() -> Path | None:
    """The folder of initdb and postgres, which Debian keeps out of the path; None: not here."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


class PostgresServer:
    """A server on this machine, as user postgres where we are root (it refuses to be).

    Its data are made with it, and go with `remove`. Not `durable`, it leaves out fsync.
    """

    def __init__(self, programs: Path, *, durable: bool = False) -> None:
        port = _quiet_port()
        self._folder = Path(tempfile.mkdtemp(prefix="taskmill-postgres-"))
        self._data = self._folder / "data"
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self._folder, "postgres", "postgres")
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self._command = [
            *(programs / "postgres", "-D", self._data, "-p", str(port), "-k", self._folder),
            *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"),
            *(() if durable else ("-c", "fsync=off")),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        initdb = (programs / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-N")
        try:
            code = self._spawn([*initdb, "-E", "UTF8"]).wait(_INIT_S)
            assert code == 0, self._log
        except BaseException:
            self.remove()
            raise

    def _spawn(self, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("a") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                # The terminal's Ctrl-C is for whoever started it, who ends it too.
                start_new_session=True,
                **self._user,
            )

    @property
    def _log(self) -> str:
        return (self._folder / "log").read_text()

    def start(self) -> None:
        """Start it, for the first time or again, and wait until it answers."""
        # Our own child: killed, it is reaped by us, and its lock file names nobody who lives.
        self._process = self._spawn(self._command)
        deadline = Deadline(START_S)
        while True:
            try:
                psycopg.connect(self.url).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, self._log
                assert not deadline.over(), self._log
                SYSTEM_CLOCK.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """SIGKILL all of it."""
        process = self._process
        assert process is not None, "it runs"
        # Its children are no process group; frozen, it makes no new ones meanwhile.
        process.send_signal(signal.SIGSTOP)
        for child in _children(process.pid):
            os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait(10)

    def remove(self) -> None:
        """End it and drop its data."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)  # at once, without a checkpoint
            self._process.wait(_END_S)
        shutil.rmtree(self._folder)


def _quiet_port() -> int:
    """A free TCP port that the system gives to no connection of its own, as it does from 32768."""
    while listens(port := SystemRandom().randrange(20_000, 32_000)):
        pass
    return port


def _children(pid: int) -> Sequence[int]:
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]
