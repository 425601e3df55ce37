"""The local broker: an Apache Kafka of this machine's own, its data kept between runs."""

from __future__ import annotations

import base64
import fcntl
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from taskmill.runtime.broker_docker import DockerNodes
from taskmill.runtime.broker_java import JavaNodes
from taskmill.runtime.broker_ports import listens, with_free_ports
from taskmill.runtime.broker_record import HOST, Cluster, Node, load
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock, Deadline
from taskmill.runtime.errors import ConfigError, TaskmillError

logger = logging.getLogger("taskmill.broker")

#: One node is up in 3 s on an idle machine, three in 8; a busy one takes several times that.
START_LIMIT_S = 90.0
STOP_LIMIT_S = 30.0
_POLL_S = 0.05

_SILENT = logging.getLogger("taskmill.broker.silent")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


class Nodes(Protocol):
    """A way of running nodes."""

    via: str

    def unusable(self) -> str | None: ...
    def alive(self, cluster: Cluster, node: Node) -> bool: ...
    def launch(self, cluster: Cluster, node: Node) -> Node: ...
    def ask_to_end(self, cluster: Cluster, node: Node) -> None: ...
    def stop(self, cluster: Cluster, node: Node, deadline: Deadline) -> bool: ...
    def log_tail(self, cluster: Cluster, node: Node) -> str: ...


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """What is known of the local broker. `stale`: it was started, and ended without being told."""

    running: bool
    bootstrap: str | None = None
    via: str | None = None
    nodes: int = 0
    nodes_alive: int = 0
    pids: tuple[int, ...] = ()
    home: Path | None = None
    logs: tuple[Path, ...] = ()
    stale: bool = False
    #: This call started it; False when it was found running.
    started_now: bool = False


def broker_home(state_dir: Path) -> Path:
    """Where the local broker of a state directory lives."""
    return state_dir.expanduser().resolve() / "broker"


def discover(state_dir: Path) -> str | None:
    """The bootstrap address of the local broker that runs now, else None.

    Cheap where it is a process: two small files are read, nothing is sent.
    """
    cluster = load(broker_home(state_dir))
    if cluster is None or not cluster.started:
        return None
    ways = _ways(os.environ, SYSTEM_CLOCK, logger.info)
    nodes = next((way for way in ways if way.via == cluster.via), None)
    if nodes is None or not any(nodes.alive(cluster, node) for node in cluster.nodes):
        return None
    return cluster.bootstrap


def _ways(env: Mapping[str, str], clock: Clock, say: Callable[[str], None]) -> list[Nodes]:
    """In the order in which they are tried."""
    return [DockerNodes(env, say), JavaNodes(env, clock, say)]


class LocalBroker:
    """Starts, stops and tells of the local broker below `state_dir`.

    `nodes` is 1 or 3, or None for what its data has (1 at first). `env` is where PATH, JAVA_HOME,
    KAFKA_HOME and XDG_CACHE_HOME are looked up. `say` is told what takes long.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        nodes: int | None = None,
        env: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        say: Callable[[str], None] = logger.info,
    ) -> None:
        if nodes not in (None, 1, 3):
            raise ConfigError(f"a local broker of {nodes} nodes: 1 or 3 are possible")
        self._home = broker_home(state_dir)
        self._wanted = nodes
        self._clock = clock
        self._say = say
        self._ways = _ways(os.environ if env is None else env, clock, say)

    def status(self) -> BrokerStatus:
        """What runs now; asks no broker."""
        cluster = load(self._home)
        return (
            BrokerStatus(running=False, home=self._home) if cluster is None else self._tell(cluster)
        )

    def start(self, limit_s: float = START_LIMIT_S) -> BrokerStatus:
        """Start what does not run yet and wait until all nodes answer.

        Raises ConfigError where the data is of another number of nodes, TaskmillError where
        nothing can run a broker, or it did not come up (with its log's last lines).
        """
        deadline = Deadline(limit_s, self._clock)
        with self._lock():
            recorded = load(self._home)
            cluster = self._new_cluster() if recorded is None else recorded
            self._check_size(cluster)
            nodes = self._way(cluster)
            asleep = [node for node in cluster.nodes if not nodes.alive(cluster, node)]
            if asleep:
                cluster = self._launch(cluster, nodes, asleep)
            try:
                self._wait(cluster, nodes, deadline)
            except BaseException:
                if asleep:
                    self._end(cluster, nodes, Deadline(STOP_LIMIT_S, self._clock))
                raise
            return replace(self._tell(cluster), started_now=bool(asleep))

    def stop(self, limit_s: float = STOP_LIMIT_S) -> bool:
        """Stop every node and wait for its end. False when none ran. The data stays."""
        with self._lock():
            cluster = load(self._home)
            if cluster is None:
                return False
            nodes = self._way(cluster)
            ran = any(nodes.alive(cluster, node) for node in cluster.nodes)
            self._end(cluster, nodes, Deadline(limit_s, self._clock))
            return ran

    def _end(self, cluster: Cluster, nodes: Nodes, deadline: Deadline) -> None:
        # All are told first: one that ends last and alone finds no quorum to sign off from.
        for node in cluster.nodes:
            nodes.ask_to_end(cluster, node)
        for node in cluster.nodes:
            if not nodes.stop(cluster, node, deadline):
                self._say(f"node {node.id} did not end in time and was killed")
        ended = [replace(node, pid=None) for node in cluster.nodes]
        replace(cluster, nodes=tuple(ended), started=False).save()

    def _tell(self, cluster: Cluster) -> BrokerStatus:
        nodes = self._way(cluster)
        alive = [node for node in cluster.nodes if nodes.alive(cluster, node)]
        return BrokerStatus(
            running=bool(alive) and cluster.started,
            bootstrap=cluster.bootstrap,
            via=cluster.via,
            nodes=len(cluster.nodes),
            nodes_alive=len(alive),
            pids=tuple(node.pid for node in alive if node.pid is not None),
            home=self._home,
            logs=tuple(log for node in cluster.nodes if (log := cluster.log(node)).exists()),
            stale=cluster.started and not alive,
        )

    def _way(self, cluster: Cluster) -> Nodes:
        return next(way for way in self._ways if way.via == cluster.via)

    def _check_size(self, cluster: Cluster) -> None:
        if self._wanted is not None and self._wanted != len(cluster.nodes):
            raise ConfigError(
                f"the local broker in {self._home} has {len(cluster.nodes)} node(s), not "
                f"{self._wanted}: run `taskmill broker down` and remove that folder (its data is "
                "lost), or set TASKMILL_STATE_DIR to another"
            )

    def _new_cluster(self) -> Cluster:
        """Choose the first usable way; one message with all that was tried where there is none."""
        reasons: dict[str, str] = {}
        for way in self._ways:
            why = way.unusable()
            if why is None:
                count = self._wanted or 1
                blank = tuple(Node(id=n + 1, port=0, controller_port=0) for n in range(count))
                return Cluster(self._home, _new_cluster_id(), way.via, blank)
            reasons[way.via] = why
        raise TaskmillError(
            "no Apache Kafka can be run here; any one of these helps:\n"
            "  - set TASKMILL_BOOTSTRAP_SERVERS to the address of a broker that you have\n"
            f"  - start Docker ({reasons['docker']})\n"
            f"  - have Java 17+ and either KAFKA_HOME or Maven ({reasons['java']});\n"
            "    on Debian: apt-get install openjdk-17-jre-headless maven"
        )

    def _launch(self, cluster: Cluster, nodes: Nodes, asleep: list[Node]) -> Cluster:
        why = nodes.unusable()
        if why is not None:
            raise TaskmillError(
                f"the local broker in {self._home} runs by {cluster.via}, and {why}; make that "
                "work again, or remove the folder to begin anew (its data is lost)"
            )
        self._home.mkdir(parents=True, exist_ok=True)
        cluster = replace(with_free_ports(cluster, asleep), started=True)
        for index, node in enumerate(cluster.nodes):
            if any(node.id == other.id for other in asleep):
                launched = list(cluster.nodes)
                launched[index] = nodes.launch(cluster, node)
                cluster = cluster.with_nodes(launched)
                cluster.save()  # after each: a start that is killed leaves nothing unknown running
        return cluster

    def _wait(self, cluster: Cluster, nodes: Nodes, deadline: Deadline) -> None:
        """Until the cluster itself lists all its nodes: they are registered and take requests."""
        expected = {node.id for node in cluster.nodes}
        admin = _quiet_admin(cluster.bootstrap)
        while True:
            # Of two that started at one moment on one port, the other may answer.
            seen = _listed(admin, min(1.0, deadline.left()), cluster.cluster_id)
            # A killed node is listed until its session ends: it has to take connections too.
            if expected <= seen and all(listens(node.port) for node in cluster.nodes):
                return
            for node in cluster.nodes:
                if not nodes.alive(cluster, node):
                    raise TaskmillError(self._failure(cluster, nodes, node, "ended at its start"))
            if deadline.over():
                missing = min(cluster.nodes, key=lambda node: node.id in seen)
                what = "did not answer in time"
                raise TaskmillError(self._failure(cluster, nodes, missing, what))
            self._clock.sleep(_POLL_S)

    def _failure(self, cluster: Cluster, nodes: Nodes, node: Node, what: str) -> str:
        tail = nodes.log_tail(cluster, node)
        name = f", {cluster.log(node)}," if cluster.log(node).exists() else ""
        where = f"; its log{name} ends:\n{tail}" if tail else ""
        return f"the local broker (node {node.id}, {HOST}:{node.port}) {what}{where}"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One start or stop at a time; a second one waits and then finds what the first made."""
        if "," in str(self._home):
            raise ConfigError(
                f"state_dir {self._home}: Kafka takes no comma in a data folder's path"
            )
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            file = (self._home / "lock").open("w")
        except OSError as error:
            raise ConfigError(f"state_dir: {self._home} cannot be used: {error.strerror}") from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def answers(bootstrap: str, nodes: int, limit_s: float) -> bool:
    """Whether a broker at `bootstrap` tells within `limit_s` seconds of at least `nodes` nodes."""
    return len(_listed(_quiet_admin(bootstrap), limit_s)) >= nodes


def _quiet_admin(bootstrap: str) -> AdminClient:
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        # Refused connections are what waiting for a start looks like; no log of them.
        "logger": _SILENT,
        "reconnect.backoff.max.ms": 250,
    }
    return AdminClient(config)


def _listed(admin: AdminClient, limit_s: float, cluster_id: str | None = None) -> set[int]:
    """The nodes that the cluster lists; none where it does not answer, or is not of that ID."""
    try:
        cluster = admin.list_topics(timeout=max(0.1, limit_s))
    except KafkaException:
        return set()
    is_ours = cluster_id is None or cluster.cluster_id == cluster_id
    return set(cluster.brokers) if is_ours else set()


def _new_cluster_id() -> str:
    """A Kafka UUID: 16 random bytes in URL-safe base64 (none may begin with '-')."""
    while True:
        name = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not name.startswith("-"):
            return name
