"""A PostgreSQL of the run's own, which a test may kill: the machine's, else a container."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import psycopg

from support.brokers import quiet_port
from taskmill.runtime.broker_docker import DockerNodes

IMAGE = "postgres:17"


class Server(Protocol):
    """A server that can be killed and started again, its data kept."""

    url: str

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def remove(self) -> None: ...


class Postgres:
    """A running server, and databases in it."""

    def __init__(self, *, durable: bool = False) -> None:
        """`durable`: as a server is run whose data matter; a container is never."""
        folder = _programs()
        if folder is not None:
            self._server: Server = _Local(folder, durable)
        elif DockerNodes(os.environ, print).unusable() is None:
            self._server = _Container()
        else:
            raise RuntimeError(
                "these tests need PostgreSQL: apt-get install postgresql (macOS: brew install "
                "postgresql), or a Docker engine; as root on Debian: deploy/system.sh --tests"
            )
        self._server.start()

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        """Start it again, and wait until it answers."""
        self._server.start()

    def kill(self) -> None:
        """SIGKILL all of it."""
        self._server.kill()

    def remove(self) -> None:
        self._server.remove()

    def database(self, name: str) -> str:
        """The URL of a new, empty database."""
        self.query(f"CREATE DATABASE {name}")
        return self.url.rpartition("/")[0] + f"/{name}"

    def query(self, text: Any, url: str = "") -> list[tuple[Any, ...]]:
        """The rows of a query; none of a statement that returns none."""
        with psycopg.connect(url or self.url, autocommit=True) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []


def _programs() -> Path | None:
    """The folder of initdb and pg_ctl: Debian keeps them out of the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


class _Local:
    """A server of this machine, as user postgres where we are root (it refuses to be)."""

    def __init__(self, programs: Path, durable: bool) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="taskmill-postgres-"))
        self._data = self._folder / "data"
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self._folder, "postgres", "postgres")
        port = quiet_port()
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self._command = [
            *(programs / "postgres", "-D", self._data, "-p", str(port), "-k", self._folder),
            *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"),
            *(() if durable else ("-c", "fsync=off")),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        initdb = (programs / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-N")
        code = self._spawn([*initdb, "-E", "UTF8"]).wait(60)
        assert code == 0, self._log

    def _spawn(self, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("a") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._user,
            )

    @property
    def _log(self) -> str:
        return (self._folder / "log").read_text()

    def start(self) -> None:
        # Our own child: killed, it is reaped by us, and its lock file names nobody who lives.
        self._process = self._spawn(self._command)
        deadline = time.monotonic() + 50
        while True:
            try:
                psycopg.connect(self.url).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, self._log
                assert time.monotonic() < deadline, self._log
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        process = self._process
        assert process is not None, "it runs"
        # Its children are no process group; frozen, it makes no new ones meanwhile.
        process.send_signal(signal.SIGSTOP)
        for child in _children(process.pid):
            os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait(10)

    def remove(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)  # at once, without a checkpoint
            self._process.wait(20)
        shutil.rmtree(self._folder)


def _children(pid: int) -> Sequence[int]:
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


class _Container:
    """The same, as a container."""

    def __init__(self) -> None:
        from testcontainers.core.container import DockerContainer

        port = quiet_port()
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self._container = DockerContainer(IMAGE).with_bind_ports(5432, port)
        self._container.with_env("POSTGRES_HOST_AUTH_METHOD", "trust")
        self._container.with_command("postgres -c fsync=off -c max_connections=200")
        self._is_made = False

    def start(self) -> None:
        from testcontainers.core.waiting_utils import wait_for_logs

        if self._is_made:
            self._container.get_wrapped_container().start()
        else:
            self._container.start()
            self._is_made = True
        # Once for the set-up's own server, once for the real one.
        wait_for_logs(self._container, "ready to accept connections[\\s\\S]*ready to accept", 60)

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    def remove(self) -> None:
        self._container.stop()
