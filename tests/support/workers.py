"""Worker processes as a user starts them, with their log to wait on, and gates for handlers."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from taskmill.runtime.config import Settings

#: Where `support` is imported from by the workers too: the module of the tests' App lies here.
TESTS = Path(__file__).resolve().parent.parent

JOBS = "support.jobs:app"


class WorkerProcess:
    """`python -m taskmill worker -A TARGET`, in a session of its own; killed at the end.

    Lines of its log (and what handlers print to stderr) are kept in `lines`.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *options: str,
        target: str = JOBS,
        env: dict[str, str] | None = None,
        role: str = "worker",
        python: str | Path = sys.executable,
    ) -> None:
        """`role`: the command, which takes `-A target` unless that is empty; `python`: which
        version of taskmill runs is this interpreter's affair."""
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._over = False
        self.process = subprocess.Popen(
            [python, "-m", "taskmill", role, *(["-A", target] if target else []), *options],
            cwd=folder,
            env={
                **os.environ,
                **environment(settings),
                "PYTHONPATH": os.pathsep.join([str(folder), str(TESTS)]),
                "PYTHONUNBUFFERED": "1",
                **(env or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        with self._changed:
            return "\n".join(self.lines)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def wait_for(self, pattern: str, *, timeout_s: float = 30.0, times: int = 1) -> re.Match[str]:
        """Wait until `times` lines of the log match `pattern`; the last match."""
        wanted, deadline = re.compile(pattern), time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = [m for line in self.lines if (m := wanted.search(line))]
                if len(found) >= times:
                    return found[times - 1]
                left = deadline - time.monotonic()
                if left <= 0 or self._over:
                    raise AssertionError(
                        f"no {times} × {pattern!r} in the log within {timeout_s:g} s:\n"
                        + "\n".join(self.lines)
                    )
                self._changed.wait(left)

    def wait_ready(self, partitions: int, timeout_s: float = 30.0) -> Self:
        """Wait until it has restored so many partitions, all told, and so takes their records."""
        self.wait_for(r"restored \S+ \[\d+\]", timeout_s=timeout_s, times=partitions)
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL it and the processes of its handlers, and wait for its end."""
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def terminate(self, timeout_s: float = 30.0) -> int:
        """SIGTERM it; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait for its end; its exit code."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {timeout_s:g} s:\n{self.log}") from None
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def wait_over(self, timeout_s: float = 30.0) -> None:
        """Wait until it and every process that it started, and that logs where it does, ended."""
        self._reader.join(timeout_s)
        assert not self._reader.is_alive(), f"something still runs after {timeout_s:g} s"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print(f"--- log of worker {self.pid}\n{self.log}")
        self.kill()  # a stopped one takes SIGKILL too


def environment(settings: Settings) -> dict[str, str]:
    """`settings`, as far as they were set, as a worker's environment."""
    found = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if name == "kafka":
            for key, text in value.items():
                found[f"TASKMILL_KAFKA__{key.replace('.', '_').upper()}"] = text
        elif value is not None:
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            found[f"TASKMILL_{name.upper()}"] = text
    return found


class Gate:
    """Where handlers report and wait: each `gated` handler holds a connection to it.

    A handler connects, says its ID, and goes on once the gate has sent it a line. So a test knows
    which handlers have begun, which ended early (their worker died), and says when they go on.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, list[socket.socket]] = {}
        #: IDs in the order in which their handlers began.
        self.begun: list[str] = []
        self._is_open = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    @property
    def env(self) -> dict[str, str]:
        """What a worker needs in its environment to find it."""
        return {"JOBS_GATE": str(self.port)}

    def _main(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection.makefile() as lines:
            id = lines.readline().rstrip("\n")
        with self._changed:
            self.begun.append(id)
            if self._is_open:
                _go(connection)
            else:
                self._waiting.setdefault(id, []).append(connection)
            self._changed.notify_all()

    def wait_begun(self, *ids: str, times: int = 1, timeout_s: float = 30.0) -> None:
        """Wait until the handler of each of `ids` has begun `times` times."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: all(self.begun.count(id) >= times for id in ids), timeout_s
            ):
                raise AssertionError(f"not begun {times} × {ids} but {self.begun}")

    def wait_count(self, count: int, timeout_s: float = 30.0) -> list[str]:
        """Wait until `count` handlers have begun; their IDs."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.begun) >= count, timeout_s):
                raise AssertionError(f"{len(self.begun)} of {count} have begun")
            return list(self.begun)

    def let(self, *ids: str) -> None:
        """Let the handlers of `ids` that wait now go on."""
        with self._changed:
            for id in ids:
                for connection in self._waiting.pop(id, ()):
                    _go(connection)

    def open(self) -> None:
        """Let all handlers go on, those to come too."""
        with self._changed:
            self._is_open = True
            waiting, self._waiting = self._waiting, {}
        for connections in waiting.values():
            for connection in connections:
                _go(connection)

    def close(self) -> None:
        self.open()
        # accept() of another thread does not notice a close; a shutdown wakes it.
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _go(connection: socket.socket) -> None:
    try:
        connection.sendall(b"go\n")
    except OSError:
        pass  # its worker was killed
    connection.close()


def runs(folder: Path) -> Sequence[str]:
    """The IDs that handlers of workers in `folder` noted, one a run, in order."""
    path = folder / "runs"
    return path.read_text().split("\n")[:-1] if path.exists() else []
