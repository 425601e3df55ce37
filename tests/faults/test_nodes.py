"""Three nodes, of which the one that matters most is killed in the midst of the work."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient

from faults.scene import Scene, Stage
from support.brokers import PrivateBroker
from taskmill.runtime.config import Settings

# A node's session, its restart, and 30 s to drain.
pytestmark = [pytest.mark.kafka, pytest.mark.kill, pytest.mark.timeout(240)]

PARTITIONS = 3


class Cluster:
    """Three nodes; who of them leads what."""

    def __init__(self) -> None:
        self.broker = PrivateBroker(nodes=3)
        self.bootstrap = self.broker.start()

    def leader(self, topic: str, partition: int) -> int:
        """The number of the node that leads a partition, from 0 on."""
        # A new client each time: one that has seen nodes restart keeps the epochs it knew.
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        return (
            int(admin.list_topics(topic, timeout=20).topics[topic].partitions[partition].leader) - 1
        )

    def group_coordinator(self, group: str) -> int:
        """Of a group: who leads its partition of the offsets topic, which Java's hash says."""
        return self._coordinator("__consumer_offsets", group)

    def transaction_coordinator(self, transactional_id: str) -> int:
        """Of a transactional.id: who leads its partition of the transactions topic."""
        return self._coordinator("__transaction_state", transactional_id)

    def _coordinator(self, topic: str, name: str) -> int:
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        partitions = admin.list_topics(topic, timeout=20).topics[topic].partitions
        return self.leader(topic, (java_hash(name) & 0x7FFFFFFF) % len(partitions))


def java_hash(text: str) -> int:
    """String.hashCode() of Java, as an unsigned number."""
    value = 0
    for letter in text:
        value = (31 * value + ord(letter)) & 0xFFFFFFFF
    return value


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    one = Cluster()
    yield one
    one.broker.remove()


@pytest.fixture(scope="module")
def nodes(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Scenes on the three nodes by group protocol."""

    def make(protocol: str) -> Scene:
        folder = tmp_path_factory.mktemp("nodes")
        settings = Settings(
            bootstrap_servers=cluster.bootstrap,
            prefix=f"t-{uuid.uuid4().hex[:8]}",
            partitions=PARTITIONS,
            state_dir=folder / "state",
            group_protocol=protocol,
        )
        return Scene(settings, folder)

    stage = Stage(make)
    yield stage
    stage.close()


def _who(what: str, cluster: Cluster, scene: Scene) -> int:
    """The node that is `what` to the scene."""
    if what == "leader":
        return cluster.leader(scene.topics.state, scene.dice.randrange(PARTITIONS))
    if what == "group coordinator":
        return cluster.group_coordinator(scene.group)
    slot = scene.any_worker().wait_for(r"slot (\S+), pid")[1]
    return cluster.transaction_coordinator(f"{scene.settings.prefix}.default.{slot}")


def _kill(what: str, nodes: Stage, cluster: Cluster, seed: int) -> None:
    """One point: the node dies under load; the others carry on, or it comes back meanwhile."""
    with nodes.point("classic" if seed % 2 else "consumer", seed) as scene:
        scene.keep(2)
        scene.load()
        try:
            # Only then is there a coordinator, in a cluster that is new.
            scene.somewhere()
            node = _who(what, cluster, scene)
            cluster.broker.kill(node)
            if scene.dice.random() < 0.5:
                time.sleep(scene.dice.uniform(0, 2))
                cluster.broker.start()
            print(f"node {node + 1} killed, drained {scene.heal_and_drain():.1f} s after healing")
        finally:
            cluster.broker.start()


@pytest.mark.proof("three nodes: the leader of a state partition killed", slow=True)
def test_nothing_is_lost_or_done_twice_when_a_state_partition_loses_its_leader(
    nodes: Stage, cluster: Cluster, seed: int
) -> None:
    _kill("leader", nodes, cluster, seed)


@pytest.mark.proof("three nodes: the group's coordinator killed", slow=True)
def test_nothing_is_lost_or_done_twice_when_the_group_loses_its_coordinator(
    nodes: Stage, cluster: Cluster, seed: int
) -> None:
    _kill("group coordinator", nodes, cluster, seed)


@pytest.mark.proof("three nodes: the transaction coordinator killed", slow=True)
def test_nothing_is_lost_or_done_twice_when_a_worker_loses_its_transaction_coordinator(
    nodes: Stage, cluster: Cluster, seed: int
) -> None:
    _kill("transaction coordinator", nodes, cluster, seed)
