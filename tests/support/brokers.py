"""The brokers that tests talk to: one shared by a run, and private ones that a test may kill."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from unittest.mock import patch

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from taskmill.runtime import broker_ports
from taskmill.runtime.broker_docker import IMAGE, DockerNodes, container_environment, container_name
from taskmill.runtime.broker_record import HOST, JAVA, Cluster, Node
from taskmill.runtime.local_broker import LocalBroker

#: A broker that is there already, for a run that shall start none.
GIVEN = "TASKMILL_TEST_BOOTSTRAP_SERVERS"


def java_only() -> dict[str, str]:
    """This environment without a Docker engine, so that a broker is a process to be killed."""
    return {**os.environ, "DOCKER_HOST": "unix:///nowhere"}


@contextmanager
def shared_broker() -> Iterator[str]:
    """The bootstrap address of the run's broker: given, else by testcontainers, else our own."""
    if given := os.environ.get(GIVEN):
        yield given
    elif DockerNodes(os.environ, print).unusable() is None:
        with _container() as address:
            yield address
    else:
        with tempfile.TemporaryDirectory(prefix="taskmill-broker-") as folder:
            broker = LocalBroker(Path(folder), env=java_only(), say=print)
            # Runs beside each other may start at the same moment.
            with patch.object(broker_ports, "_USUAL_PORT", quiet_port()):
                bootstrap = broker.start().bootstrap
            assert bootstrap is not None
            try:
                yield bootstrap
            finally:
                broker.stop()


@contextmanager
def _container() -> Iterator[str]:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    port = quiet_port()
    node = Node(id=1, port=port, controller_port=0)
    cluster = Cluster(Path(), "taskmillTestsCluster0g", "docker", (node,))
    container = DockerContainer(IMAGE).with_bind_ports(port, port)
    # It speaks of itself by this name, inside.
    container = container.with_kwargs(hostname=container_name(cluster, node))
    for name, value in container_environment(cluster, node).items():
        container = container.with_env(name, value)
    with container:
        wait_for_logs(container, "Kafka Server started", timeout=90)
        yield f"{HOST}:{port}"


class PrivateBroker:
    """A broker of one test's own, to be killed and started again. Always a Java process."""

    def __init__(self, nodes: int = 1, env: Mapping[str, str] | None = None) -> None:
        """`env`: more for the environment of its nodes."""
        self._folder = Path(tempfile.mkdtemp(prefix="taskmill-private-"))
        self._broker = LocalBroker(
            self._folder, nodes=nodes, env={**java_only(), **(env or {})}, say=print
        )
        self.bootstrap = ""

    @property
    def state_dir(self) -> Path:
        """The state directory that the broker lives below."""
        return self._folder

    def start(self) -> str:
        """Start it, or what of it does not run, wait until it answers; its bootstrap address."""
        # Not where every broker of the machine would be: dead, it would find its port taken.
        with patch.object(broker_ports, "_USUAL_PORT", quiet_port()):
            status = self._broker.start()
        assert status.bootstrap is not None
        assert status.via == JAVA
        self.bootstrap = status.bootstrap
        return self.bootstrap

    def pids(self) -> tuple[int, ...]:
        """The processes of its living nodes, in the order of their ids."""
        return self._broker.status().pids

    def kill(self, node: int | None = None) -> None:
        """SIGKILL all nodes, or the one at that place (0 is the first) of those alive."""
        pids = self.pids()
        for pid in pids if node is None else pids[node : node + 1]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def pause(self) -> None:
        """SIGSTOP all nodes: they keep their connections and answer nothing."""
        for pid in self.pids():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT all nodes."""
        for pid in self.pids():
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """Stop it cleanly; the data stays."""
        self._broker.stop()

    def restart(self) -> str:
        """Stop what runs, start it on the same data and ports, wait until it answers."""
        self.stop()
        return self.start()

    def remove(self) -> None:
        """Stop it and drop its data."""
        self.resume()
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def delete_topics(bootstrap: str, prefix: str) -> None:
    """Delete the topics of a test and wait until they are gone."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    try:
        names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(prefix)]
        if names:
            for done in admin.delete_topics(names, operation_timeout=10).values():
                done.result()
    except KafkaException as error:
        # A test that stopped the broker has nothing left to clear away.
        print(f"topics of {prefix} stay: {error}")


def quiet_port() -> int:
    """A free TCP port that the system gives to no connection of its own, as it does from 32768."""
    return quiet_ports(1)


def quiet_ports(count: int) -> int:
    """The first of `count` such ports in a row."""
    while True:
        first = SystemRandom().randrange(20_000, 32_000)
        if not any(broker_ports.listens(first + n) for n in range(count)):
            return first
