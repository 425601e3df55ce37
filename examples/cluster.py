"""The cluster demo's Kafka: three nodes on this machine, of which one is killed and comes back."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import NamedTuple

from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from plain_reader import Config
from shown import say

from taskmill.runtime.broker_record import load
from taskmill.runtime.clock import SYSTEM_CLOCK, Deadline
from taskmill.runtime.errors import TaskmillError
from taskmill.runtime.local_broker import LocalBroker, broker_home

NODES = 3
_ASK_S = 10.0
#: A node is up in some 10 s, and then copies what it missed.
_BACK_S = 90.0
_LOOK_S = 0.1


class Back(NamedTuple):
    """When a killed node answered again, and when all replicas were in sync, by monotonic time."""

    answered: float
    in_sync: float


class Cluster:
    """Three nodes below `home`. They are processes, to be killed: no container will do."""

    def __init__(self, home: Path) -> None:
        self._home = broker_home(home)
        env = {**os.environ, "DOCKER_HOST": "unix:///nowhere"}
        self.broker = LocalBroker(home, nodes=NODES, env=env, say=lambda text: say("broker", text))

    def kill_coordinator(self, config: Config, group: str) -> tuple[int, int]:
        """SIGKILL the node that coordinates `group`, the dearest one to lose; its ID and pid."""
        coordinator = _coordinator(config, group)
        recorded = load(self._home)
        assert recorded is not None, "it was started"
        pid = next(node.pid for node in recorded.nodes if node.id == coordinator)
        assert pid is not None, "its nodes are processes"
        os.kill(pid, signal.SIGKILL)
        return coordinator, pid

    def bring_back(self, config: Config, prefix: str, stop: threading.Event) -> Back:
        """Start what does not run, and wait until every replica is in sync again, or for `stop`."""
        self.broker.start()
        answered, deadline = SYSTEM_CLOCK.monotonic(), Deadline(_BACK_S)
        while behind := _behind(config, prefix):
            if deadline.over():
                raise TaskmillError(f"not in sync {_BACK_S:g} s later: {', '.join(behind[:5])}")
            if stop.wait(_LOOK_S):
                break
        return Back(answered, SYSTEM_CLOCK.monotonic())


def _coordinator(config: Config, group: str) -> int:
    """The node that leads the partition of `__consumer_offsets` on which `group` is kept. (Asked
    for the group itself, librdkafka 2.16 may abort, where that has just moved.)"""
    topic = "__consumer_offsets"
    partitions = AdminClient(dict(config)).list_topics(topic, _ASK_S).topics[topic].partitions
    place = 0
    for unit in group.encode("ascii"):  # Java's String.hashCode
        place = (31 * place + unit) & 0xFFFFFFFF
    signed = place - (1 << 32) if place >> 31 else place
    return int(partitions[abs(signed) % len(partitions)].leader)


def _behind(config: Config, prefix: str) -> list[str]:
    """Partitions that have not all their replicas in sync."""
    topics = AdminClient(dict(config)).list_topics(timeout=_ASK_S).topics.values()
    return [
        f"{topic.topic}[{one.id}]"
        for topic in topics
        if topic.topic.startswith(f"{prefix}.")
        for one in topic.partitions.values()
        if len(one.isrs) < len(one.replicas)
    ]


def unsafe_topics(config: Config, prefix: str) -> list[str]:
    """Topics that are not on three nodes, or acknowledged by fewer than two."""
    admin = AdminClient(dict(config))
    topics = admin.list_topics(timeout=_ASK_S).topics.values()
    ours = [topic for topic in topics if topic.topic.startswith(f"{prefix}.")]
    wrong = [
        f"{topic.topic}: a partition on {len(one.replicas)} nodes, not {NODES}"
        for topic in ours
        for one in topic.partitions.values()
        if len(one.replicas) != NODES
    ]
    asked = [ConfigResource(ResourceType.TOPIC, topic.topic) for topic in ours]
    for resource, future in admin.describe_configs(asked, request_timeout=_ASK_S).items():
        least = future.result(_ASK_S)["min.insync.replicas"].value
        if least != "2":
            wrong.append(f"{resource.name}: min.insync.replicas={least}, not 2")
    return wrong
