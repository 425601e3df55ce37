"""Runs the local broker's nodes as containers of Apache Kafka's own image."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping

from taskmill.runtime.broker_record import DOCKER, HOST, Cluster, Node
from taskmill.runtime.broker_settings import HEAP_MB, KAFKA_VERSION, shared_settings
from taskmill.runtime.clock import Deadline
from taskmill.runtime.errors import TaskmillError

IMAGE = f"apache/kafka:{KAFKA_VERSION}"

#: Inside the container network; fixed, since every container has an address of its own.
_INTERNAL_PORT = 19092
_CONTROLLER_PORT = 19093
_DATA = "/var/lib/kafka/data"
#: An engine that is there answers in milliseconds; one that is starting may take a while.
_ANSWER_LIMIT_S = 10
#: 400 MB; generous, for a slow line.
_PULL_LIMIT_S = 900


class DockerNodes:
    """One container a node, in a network of its own; the data in a named volume a node."""

    via = DOCKER

    def __init__(self, env: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._env = env
        self._say = say
        self._docker = shutil.which("docker", path=env.get("PATH", os.defpath)) or ""

    def unusable(self) -> str | None:
        """Why no node can be started this way; None when it can (the image is there by then)."""
        if not self._docker:
            return "there is no docker on PATH"
        engine = self._run("version", "--format", "{{.Server.Version}}", limit_s=_ANSWER_LIMIT_S)
        if engine.returncode != 0:
            return "the Docker engine does not answer"
        if self._run("image", "inspect", IMAGE).returncode != 0:
            self._say(f"fetching the image {IMAGE} (once)")
            pulled = self._run("pull", "--quiet", IMAGE, limit_s=_PULL_LIMIT_S)
            if pulled.returncode != 0:
                return f"Docker could not fetch {IMAGE}: {_last_line(pulled)}"
        return None

    def alive(self, cluster: Cluster, node: Node) -> bool:
        """Whether the node's container runs; a port that answers might be anybody's."""
        name = container_name(cluster, node)
        shown = self._run("container", "inspect", "--format", "{{.State.Running}}", name)
        return shown.returncode == 0 and shown.stdout.strip() == "true"

    def launch(self, cluster: Cluster, node: Node) -> Node:
        """Start the node's container anew, on the data that it had."""
        network = _name(cluster)
        # Made once for all nodes; that it exists already is no error.
        self._run("network", "create", network)
        self._run("rm", "--force", container_name(cluster, node))
        command = [
            "run",
            "--detach",
            "--name",
            container_name(cluster, node),
            "--network",
            network,
            "--publish",
            f"{HOST}:{node.port}:{node.port}",
            "--volume",
            f"{container_name(cluster, node)}:{_DATA}",
        ]
        for name, value in container_environment(cluster, node).items():
            command += ["--env", f"{name}={value}"]
        started = self._run(*command, IMAGE)
        if started.returncode != 0:
            raise TaskmillError(f"Docker could not start {IMAGE}: {_last_line(started)}")
        return node

    def ask_to_end(self, cluster: Cluster, node: Node) -> None:
        """SIGTERM."""
        self._run("kill", "--signal", "TERM", container_name(cluster, node))

    def stop(self, cluster: Cluster, node: Node, deadline: Deadline) -> bool:
        """Stop and remove the container; its volume stays. True when it ended by itself."""
        seconds = max(1, int(deadline.left()))
        name = container_name(cluster, node)
        stopped = self._run("stop", "--time", str(seconds), name, limit_s=seconds + 30)
        self._run("rm", "--force", name)
        return stopped.returncode == 0

    def log_tail(self, cluster: Cluster, node: Node) -> str:
        """The last lines of the container's log."""
        shown = self._run("logs", "--tail", "15", container_name(cluster, node))
        return (shown.stdout + shown.stderr).strip()

    def _run(self, *arguments: str, limit_s: float = 60) -> subprocess.CompletedProcess[str]:
        command = [self._docker, *arguments]
        try:
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                env=dict(self._env),
                timeout=limit_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(command, 1, "", str(error))


def container_environment(cluster: Cluster, node: Node) -> dict[str, str]:
    """The environment that the image turns into a node's settings.

    Clients of this machine come in by the published port, nodes among themselves by their
    containers' names.
    """
    name = container_name(cluster, node)
    voters = ",".join(
        f"{n.id}@{container_name(cluster, n)}:{_CONTROLLER_PORT}" for n in cluster.nodes
    )
    listeners = {
        "HOST": (f"0.0.0.0:{node.port}", f"{HOST}:{node.port}"),
        "INTERNAL": (f"0.0.0.0:{_INTERNAL_PORT}", f"{name}:{_INTERNAL_PORT}"),
    }
    settings = {
        **shared_settings(len(cluster.nodes)),
        "node.id": str(node.id),
        "log.dirs": _DATA,
        "controller.quorum.voters": voters,
        "listeners": ",".join(
            [f"{kind}://{bind}" for kind, (bind, _) in listeners.items()]
            + [f"CONTROLLER://0.0.0.0:{_CONTROLLER_PORT}"]
        ),
        "advertised.listeners": ",".join(f"{kind}://{to}" for kind, (_, to) in listeners.items()),
        "inter.broker.listener.name": "INTERNAL",
        "listener.security.protocol.map": "HOST:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }
    environment = {f"KAFKA_{k.upper().replace('.', '_')}": v for k, v in settings.items()}
    environment["CLUSTER_ID"] = cluster.cluster_id
    environment["KAFKA_HEAP_OPTS"] = f"-Xmx{HEAP_MB.get(len(cluster.nodes), 384)}m"
    return environment


def _name(cluster: Cluster) -> str:
    # A cluster ID may begin or end with '-' or '_', which a container's name may not.
    return "taskmill-" + hashlib.sha256(cluster.cluster_id.encode()).hexdigest()[:10]


def container_name(cluster: Cluster, node: Node) -> str:
    """The name of the node's container, and of its volume."""
    return f"{_name(cluster)}-{node.id}"


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"
