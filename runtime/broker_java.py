"""Runs the local broker's nodes as Java processes of this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from taskmill.runtime.broker_jars import NotUsable, find_java, find_libs
from taskmill.runtime.broker_record import JAVA, Cluster, Node, runs_as
from taskmill.runtime.broker_settings import (
    HEAP_MB,
    LOG4J2,
    LOG4J2_FENCE,
    fence_settings,
    process_settings,
    write_properties,
)
from taskmill.runtime.clock import Clock, Deadline
from taskmill.runtime.errors import TaskmillError

#: A log that grew beyond it is set aside at the next start (one old log is kept).
_LOG_LIMIT_BYTES = 10 * 1024 * 1024
_TAIL_LINES = 15
_FORMAT_LIMIT_S = 60
#: A controller alone is active within 2 s on an idle machine; then its session of 0.2 s ends.
_FENCE_LIMIT_S = 30.0
_FENCED_WITHIN_S = 2.0
#: In the controller's log once the fence is committed. That it fences stands there before, but a
#: controller that is ended then has not written it yet.
_FENCED = re.compile(
    r"Read-write operation (maybeFenceStaleBroker\(\d+\)).*Processed \1 ", re.DOTALL
)
#: Kafka's own note in its data that it ended in peace.
_CLEAN_END = ".kafka_cleanshutdown"
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
        elif len(cluster.nodes) == 1 and not (directory / "data" / _CLEAN_END).exists():
            self._fence(cluster, node)
        log = cluster.log(node)
        if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        pid = self._spawn(cluster, node, cluster.properties(node), log)
        return replace(node, pid=pid)

    def _spawn(self, cluster: Cluster, node: Node, properties: Path, log: Path) -> int:
        command = self._command(cluster, node, "kafka.Kafka", str(properties))
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
        return pid

    def _fence(self, cluster: Cluster, node: Node) -> None:
        """Let a lone broker that was killed be known as gone before it starts again.

        Else its coordinator takes up its transactions, and then the broker is found dead and its
        partitions lose their leader while the last markers are sent: Kafka 4.4 drops those.
        """
        directory = cluster.directory(node)
        properties, log = directory / "fence.properties", directory / "fence.log"
        write_properties(properties, fence_settings(cluster, node))
        (directory / "log4j2.properties").write_text(LOG4J2 + LOG4J2_FENCE, encoding="utf-8")
        log.write_text("", encoding="utf-8")
        self._end_abandoned(directory / "fence.pid", properties)
        alone = replace(node, pid=self._spawn(cluster, node, properties, log))
        (directory / "fence.pid").write_text(str(alone.pid), encoding="ascii")
        deadline = Deadline(_FENCE_LIMIT_S, self._clock)
        active = False
        while not deadline.over() and self.alive(cluster, alone):
            told = log.read_text(encoding="utf-8", errors="replace")
            if _FENCED.search(told):
                break
            if not active and "Performing controller activation" in told:
                # One that was gone already is not fenced again.
                active, deadline = True, Deadline(_FENCED_WITHIN_S, self._clock)
            self._clock.sleep(_POLL_S)
        self.ask_to_end(cluster, alone)
        self.stop(cluster, alone, Deadline(_FENCE_LIMIT_S, self._clock))
        (directory / "log4j2.properties").write_text(LOG4J2, encoding="utf-8")

    def _end_abandoned(self, record: Path, properties: Path) -> None:
        """End the controller that a start which was killed has left alone: it holds the data."""
        pid = int(record.read_text(encoding="ascii") or 0) if record.exists() else 0
        if not runs_as(pid or None, properties):
            return
        os.kill(pid, signal.SIGKILL)
        while runs_as(pid, properties):
            self._clock.sleep(_POLL_S)

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
