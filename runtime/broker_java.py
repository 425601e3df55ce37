"""Runs the local broker's nodes as Java processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from taskmill.runtime.broker_jars import NotUsable, find_java, find_libs
from taskmill.runtime.broker_record import JAVA, Cluster, Node, runs_as
from taskmill.runtime.broker_settings import HEAP_MB, LOG4J2, process_settings, write_properties
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.errors import TaskmillError

#: A log that grew beyond it is set aside at the next start (one old log is kept).
_LOG_LIMIT_BYTES = 10 * 1024 * 1024
_TAIL_LINES = 15
_FORMAT_LIMIT_S = 60
#: How often an ending process is looked at.
_POLL_S = 0.02


class JavaNodes:
    """Kafka's own server class under a Java of this machine, detached from our process."""

    via = JAVA

    def __init__(self, env: Mapping[str, str], clock: Clock, say: Callable[[str], None]) -> None:
        # Java reads file names by the locale: without one, a home named in any but English fails.
        self._env = {**env, "LC_ALL": "C.UTF-8"}
        self._clock = clock
        self._say = say
        self._java = ""
        self._libs = Path()
        self._children: set[int] = set()

    def unusable(self) -> str | None:
        """Why no node can be started this way; None when it can (the jars are fetched by then)."""
        try:
            self._java = find_java(self._env)
            self._libs = find_libs(self._env, self._say)
        except NotUsable as why:
            return str(why)
        return None

    def alive(self, cluster: Cluster, node: Node) -> bool:
        """Whether the node's process runs."""
        if node.pid is None or node.pid not in self._children:
            return runs_as(node.pid, cluster.properties(node))
        # Our own child: asking for its end also lets it go, else it would stay a zombie. (Its
        # command line is empty for an instant after the start, and would not tell.)
        try:
            ended = os.waitpid(node.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:  # another part of this process has asked before
            ended = True
        if ended:
            self._children.discard(node.pid)
        return not ended

    def launch(self, cluster: Cluster, node: Node) -> Node:
        """Start the node's process and return the node with its pid; format its data at first."""
        directory = cluster.directory(node)
        directory.mkdir(parents=True, exist_ok=True)
        write_properties(cluster.properties(node), process_settings(cluster, node))
        (directory / "log4j2.properties").write_text(LOG4J2, encoding="utf-8")
        if not (directory / "data" / "meta.properties").exists():
            self._format(cluster, node)
        log = cluster.log(node)
        if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        command = self._command(cluster, node, "kafka.Kafka", str(cluster.properties(node)))
        pid = os.posix_spawn(
            command[0],
            command,
            self._env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            # Its own session: the terminal's Ctrl-C is for us, not for the broker.
            setsid=True,
            setsigdef=[signal.SIGPIPE],
        )
        self._children.add(pid)
        return replace(node, pid=pid)

    def ask_to_end(self, cluster: Cluster, node: Node) -> None:
        """SIGTERM."""
        self._signal(cluster, node, signal.SIGTERM)

    def stop(self, cluster: Cluster, node: Node, deadline: Deadline) -> bool:
        """Wait for the end that was asked for, SIGKILL at the deadline. True without it."""
        while not deadline.over():
            if not self.alive(cluster, node):
                return True
            self._clock.sleep(_POLL_S)
        self._signal(cluster, node, signal.SIGKILL)
        while self.alive(cluster, node):
            self._clock.sleep(_POLL_S)
        return False

    def log_tail(self, cluster: Cluster, node: Node) -> str:
        """The last lines of the node's log, less Java's stack frames: the cause stands above."""
        try:
            lines = cluster.log(node).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        told = [line for line in lines if not line.startswith("\tat ")]
        return "\n".join(told[-_TAIL_LINES:])

    def _signal(self, cluster: Cluster, node: Node, number: signal.Signals) -> bool:
        if node.pid is None or not self.alive(cluster, node):
            return False
        try:
            os.kill(node.pid, number)
        except ProcessLookupError:
            return False
        return True

    def _format(self, cluster: Cluster, node: Node) -> None:
        properties = str(cluster.properties(node))
        arguments = ["format", "-t", cluster.cluster_id, "-c", properties]
        done = subprocess.run(
            self._command(cluster, node, "kafka.tools.StorageTool", *arguments),
            capture_output=True,
            text=True,
            env=self._env,
            timeout=_FORMAT_LIMIT_S,
            check=False,
        )
        if done.returncode != 0:
            raise TaskmillError(
                f"Kafka could not format {cluster.directory(node) / 'data'}: "
                f"{(done.stderr or done.stdout).strip()}"
            )

    def _command(self, cluster: Cluster, node: Node, main: str, *arguments: str) -> list[str]:
        directory = cluster.directory(node)
        return [
            self._java,
            f"-Xmx{HEAP_MB.get(len(cluster.nodes), 384)}m",
            # Kafka's own start script asks for the same.
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-Djava.awt.headless=true",
            f"-XX:ErrorFile={directory}/java_error_%p.log",
            f"-Dlog4j2.configurationFile={directory}/log4j2.properties",
            "-cp",
            f"{self._libs}/*",
            main,
            *arguments,
        ]
