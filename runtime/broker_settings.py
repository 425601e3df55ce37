"""The settings that the local broker runs with, and why each one."""

from __future__ import annotations

from pathlib import Path

from taskmill.runtime.broker_record import HOST, Cluster, Node

#: The Apache Kafka that is fetched where none is given.
KAFKA_VERSION = "4.4.0"

#: Enough for a few hundred partitions; bounded, since the broker shares a developer's machine.
HEAP_MB = {1: 512, 3: 384}

#: log4j2 in its properties form: warnings and worse, to standard output, which is the log file.
LOG4J2 = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %-5p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""
#: What else a controller alone tells (`fence_settings`): who is fenced, and once that is committed.
LOG4J2_FENCE = """\
logger.replicas.name = org.apache.kafka.controller.ReplicationControlManager
logger.replicas.level = info
logger.writes.name = org.apache.kafka.controller.QuorumController
logger.writes.level = debug
"""


#: A killed broker may not register again before its old session has ended: 9 s by default.
SESSION_MS = 4_000

#: A lone broker that stands still is not fenced soon: there is none to take over, and Kafka 4.4
#: drops the commit markers of partitions that have no leader for a moment (docs/hanging.md). One
#: that was killed is fenced at the next start, by its controller alone (`fence_settings`); where
#: that fails, its start waits this long, half of what Kafka allows a broker to register.
LONE_SESSION_MS = 30_000


def shared_settings(nodes: int) -> dict[str, str]:
    """The settings that every node of a cluster of `nodes` has."""
    replicas = min(nodes, 3)
    in_sync = 2 if replicas == 3 else 1
    return {
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "broker.session.timeout.ms": str(SESSION_MS),
        "broker.heartbeat.interval.ms": "500",
        # A misspelt topic is an error, not a new topic.
        "auto.create.topics.enable": "false",
        "default.replication.factor": str(replicas),
        "min.insync.replicas": str(in_sync),
        "unclean.leader.election.enable": "false",
        # Kafka's 50 partitions of each are for large clusters; fewer make a start-up quicker.
        "offsets.topic.num.partitions": "5",
        "offsets.topic.replication.factor": str(replicas),
        "transaction.state.log.num.partitions": "5",
        "transaction.state.log.replication.factor": str(replicas),
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": str(replicas),
        "share.coordinator.state.topic.min.isr": str(in_sync),
        # A system left alone over a holiday still knows where it stood (Kafka's own: 7 days).
        "offsets.retention.minutes": str(30 * 24 * 60),
        # A crash inside a transaction holds read_committed readers up: look for it often. Not every
        # second: at a start, partitions without a leader yet would lose their markers
        # (docs/hanging.md), in 4 of 5 runs, with 5 s in none of 5.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "5000",
        # KIP-848 members are missed within 6 s, not 45, so that a take-over takes seconds; the
        # minimums, 45 s and 5 s by default, have to be lowered for it.
        "group.consumer.session.timeout.ms": "6000",
        "group.consumer.heartbeat.interval.ms": "1000",
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.min.heartbeat.interval.ms": "100",
        # Kafka 4.4 otherwise spaces two assignments of a group by a second, classic groups by 3.
        "group.consumer.assignment.interval.ms": "0",
        "group.initial.rebalance.delay.ms": "0",
        # A quarter of the heap by default (128 MiB), taken at the start.
        "log.cleaner.dedupe.buffer.size": str(32 * 1024 * 1024),
    }


def process_settings(cluster: Cluster, node: Node) -> dict[str, str]:
    """All settings of a node that runs as a process of this machine.

    The controllers are named one by one (`controller.quorum.voters`): the file is written at
    every start, so a port that was taken in between can change, which the voters kept in the
    metadata log (`format --standalone`) could not follow with three nodes.
    """
    session_ms = LONE_SESSION_MS if len(cluster.nodes) == 1 else SESSION_MS
    return {
        **shared_settings(len(cluster.nodes)),
        **_place(cluster, node),
        "broker.session.timeout.ms": str(session_ms),
        "listeners": f"PLAINTEXT://{HOST}:{node.port},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{node.port}",
        "inter.broker.listener.name": "PLAINTEXT",
    }


def fence_settings(cluster: Cluster, node: Node) -> dict[str, str]:
    """Settings of a lone node's controller alone, which misses its broker at once and fences it."""
    return {
        **_place(cluster, node),
        "process.roles": "controller",
        "controller.listener.names": "CONTROLLER",
        "broker.session.timeout.ms": "200",
        "broker.heartbeat.interval.ms": "100",
        "listeners": f"CONTROLLER://{HOST}:{node.controller_port}",
    }


def _place(cluster: Cluster, node: Node) -> dict[str, str]:
    """Which node it is, and where its data and its quorum are."""
    voters = ",".join(f"{n.id}@{HOST}:{n.controller_port}" for n in cluster.nodes)
    return {
        "node.id": str(node.id),
        "log.dirs": str(cluster.directory(node) / "data"),
        "controller.quorum.voters": voters,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }


def write_properties(path: Path, settings: dict[str, str]) -> None:
    """Write a Java properties file: ISO 8859-1, everything beyond ASCII escaped."""
    lines = [f"{name}={_escaped(value)}" for name, value in settings.items()]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def _escaped(value: str) -> str:
    # Java counts in UTF-16: a character beyond the first plane is two escapes.
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
    return "".join(chr(code) if code < 128 else f"\\u{code:04x}" for code in codes)
