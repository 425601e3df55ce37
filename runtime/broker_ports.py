"""Finds the local broker ports that nobody else listens on."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from taskmill.runtime.broker_record import HOST, Cluster, Node
from taskmill.runtime.errors import TaskmillError

#: Where Kafka's clients look first.
_USUAL_PORT = 9092
#: A connection to this machine is made or refused at once.
_CONNECT_LIMIT_S = 0.2


def with_free_ports(cluster: Cluster, asleep: list[Node]) -> Cluster:
    """Give the nodes to be started ports nobody listens on: the ones they had where possible.

    Controller ports move only when no node runs, since running ones were told the old.
    """
    moving = {node.id for node in asleep}
    taken = {node.port for node in cluster.nodes if node.id not in moving}
    all_asleep = len(moving) == len(cluster.nodes)
    nodes = []
    with ExitStack() as held:  # so that two searches cannot find the same port
        for node in cluster.nodes:
            if node.id not in moving:
                nodes.append(node)
                continue
            usual = _USUAL_PORT if node.id == 1 else 0
            port = _free_port(held, node.port or usual, taken)
            control = node.controller_port
            if all_asleep:
                control = _free_port(held, node.controller_port, taken)
            nodes.append(Node(node.id, port, control))
    return cluster.with_nodes(nodes)


def _free_port(held: ExitStack, preferred: int, taken: set[int]) -> int:
    for port in (preferred, 0):
        if port and (port in taken or listens(port)):
            continue
        probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        # A port whose last connections linger in TIME_WAIT is free to listen on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            continue
        found = int(probe.getsockname()[1])
        taken.add(found)
        return found
    raise TaskmillError("no free TCP port was found on this machine")


def listens(port: int) -> bool:
    """Whether somebody takes connections there (binding alone does not tell on every system)."""
    try:
        socket.create_connection((HOST, port), timeout=_CONNECT_LIMIT_S).close()
    except OSError:
        return False
    return True
