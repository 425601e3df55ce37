"""A PostgreSQL of the run's own, which a test may kill: the machine's, else a container."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Protocol

import psycopg

from support.brokers import quiet_port
from taskmill.runtime.broker_docker import DockerNodes

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))

from postgres_server import PostgresServer, find_programs

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
        folder = find_programs()
        if folder is not None:
            self._server: Server = PostgresServer(folder, durable=durable)
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
