"""What is written down about the local broker: its nodes, their ports, their processes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

#: The loopback address in digits: the name `localhost` may mean ::1 first, where nobody listens.
HOST = "127.0.0.1"

#: The two ways a node runs.
DOCKER = "docker"
JAVA = "java"


@dataclass(frozen=True, slots=True)
class Node:
    """One Kafka server, broker and controller at once. `pid`: None unless it is a process."""

    id: int
    port: int
    controller_port: int
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """The local broker: one node or three, its data below `home`, kept between runs."""

    home: Path
    cluster_id: str
    via: str
    nodes: tuple[Node, ...]
    started: bool = False

    @property
    def bootstrap(self) -> str:
        """host:port of every node, with commas."""
        return ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def directory(self, node: Node) -> Path:
        """Where the node's settings and log lie, and its data where it runs as a process."""
        return self.home / f"node-{node.id}"

    def properties(self, node: Node) -> Path:
        """The node's settings file; its absolute path on a command line tells our processes."""
        return self.directory(node) / "server.properties"

    def log(self, node: Node) -> Path:
        """The node's log file."""
        return self.directory(node) / "server.log"

    def with_nodes(self, nodes: Sequence[Node]) -> Cluster:
        """The same cluster with other nodes."""
        return replace(self, nodes=tuple(nodes))

    def save(self) -> None:
        """Write the record, whole or not at all."""
        self.home.mkdir(parents=True, exist_ok=True)
        body: dict[str, Any] = {
            "cluster_id": self.cluster_id,
            "via": self.via,
            "started": self.started,
            "nodes": [asdict(node) for node in self.nodes],
        }
        new = _record_file(self.home).with_suffix(".new")
        new.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
        new.replace(_record_file(self.home))


def _record_file(home: Path) -> Path:
    return home / "broker.json"


def load(home: Path) -> Cluster | None:
    """The cluster recorded below `home`; None where there is no record that can be read."""
    try:
        body = json.loads(_record_file(home).read_text(encoding="utf-8"))
        return Cluster(
            home=home,
            cluster_id=body["cluster_id"],
            via=body["via"],
            nodes=tuple(Node(**node) for node in body["nodes"]),
            started=body["started"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def runs_as(pid: int | None, properties: Path) -> bool:
    """Whether `pid` is the Kafka process started on that settings file.

    The number alone proves nothing: it may be stale, reused by another process, or a zombie
    (whose command line is empty).
    """
    if pid is None:
        return False
    command = _command_line(pid)
    return "kafka.Kafka" in command and str(properties) in command


def _command_line(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode("utf-8", "replace")
        )
    except OSError:
        if os.path.isdir("/proc/self"):
            return ""
    # No /proc: the BSDs and macOS.
    shown = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout
