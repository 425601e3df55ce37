"""How many tasks a second does one console take over HTTP?

Single enqueues, each answered after Kafka's acknowledgement, over connections that are kept; then
batches of a thousand. The load comes from a process of its own: a plain loop over sockets, since a
comfortable client costs more CPU than the console. Broker, console and load share the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from load import PARTITIONS, fresh, settings_of
from measure import Figure, apart, broker, median, report, sized, title

from taskmill.console.tokens import TokenTable
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

#: Connections that each have one request under way.
SINGLES, BATCHES = 64, 4
BATCH = 1_000
WARM_UP_S = 1.0


async def _client(port: int, request: bytes, until: float, since: float, took: list[float]) -> int:
    """Requests one after the other on one connection; how many were answered with 202 in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    done = 0
    while (began := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 202 " in head[:20], head
        length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        now = time.perf_counter()
        if began >= since and now <= until:
            took.append(now - began)
            done += 1
    writer.close()
    return done


def _request(port: int, secret: str, path: str, body: Any) -> bytes:
    content = json.dumps(body, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {secret}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def load(port: int, secret: str, kind: str, seconds: float) -> dict[str, Any]:
    """Requests a second, and how long each took: p50 and p99 in milliseconds."""
    task = {"name": "noop", "args": {"n": 1, "email": "somebody@example.org"}}
    if kind == "batch":
        body = {"tasks": [task] * BATCH}
        request, clients = _request(port, secret, "/api/v1/tasks:batch", body), BATCHES
    else:
        request, clients = _request(port, secret, "/api/v1/tasks", task), SINGLES
    took: list[float] = []

    async def all_of_them() -> int:
        since = time.perf_counter() + WARM_UP_S
        until = since + seconds
        each = [_client(port, request, until, since, took) for _ in range(clients)]
        return sum(await asyncio.gather(*each))

    done = asyncio.run(all_of_them())
    took.sort()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "rate": done / seconds,
        "p50": took[len(took) // 2] * 1000,
        "p99": took[int(len(took) * 0.99)] * 1000,
        "cpu": used.ru_utime + used.ru_stime,
    }


class Console:
    """A console process on a free port."""

    def __init__(self, settings: Settings, folder: str) -> None:
        env = {
            **os.environ,
            "TASKMILL_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
            "TASKMILL_PREFIX": settings.prefix,
            "TASKMILL_PARTITIONS": str(settings.partitions),
            "TASKMILL_STATE_DIR": folder,
        }
        command = [sys.executable, "-P", "-m", "taskmill", "console", "--port", "0"]
        # A file, not a pipe that nobody empties: its log would stop it in the end.
        log = Path(folder) / "console.log"
        with log.open("w") as file:
            self.process = subprocess.Popen(command, env=env, stderr=file)
        while not (said := re.search(r"^console at (\S+)\n", log.read_text(), re.MULTILINE)):
            assert self.process.poll() is None, log.read_text()
            time.sleep(0.05)
        self.url = said[1]
        self.port = int(self.url.rpartition(":")[2])
        while not self._is_ready():
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def cpu(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def measure(bootstrap: str, seconds: float, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Each kind of load, in turn, on one console."""
    found: dict[str, list[dict[str, Any]]] = {"single": [], "batch": []}
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, fresh("c"), folder)
        ensure(settings, "default")
        console = Console(settings, folder)
        try:
            _, secret = TokenTable(settings).create(["enqueue"], by="perf")
            time.sleep(1.0)
            for number in range(rounds):
                for kind in found:
                    before = console.cpu()
                    answer = apart(
                        load, port=console.port, secret=secret, kind=kind, seconds=seconds
                    )
                    tasks = BATCH if kind == "batch" else 1
                    answer["tasks"] = answer["rate"] * tasks
                    done = answer["tasks"] * (seconds + WARM_UP_S)
                    answer["us"] = (console.cpu() - before) / done * 1e6
                    found[kind].append(answer)
                    print(
                        f"round {number + 1} {kind:6} {answer['tasks']:9,.0f} tasks/s, "
                        f"p50 {answer['p50']:.1f} ms, p99 {answer['p99']:.1f} ms, console "
                        f"{answer['us']:.0f} µs a task, load {answer['cpu']:.1f} s CPU",
                        file=sys.stderr,
                    )
        finally:
            console.close()
    return found


def figures_of(found: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    """The answer."""

    def of(kind: str, key: str) -> float:
        return median([one[key] for one in found[kind]])

    return [
        Figure("single enqueues", of("single", "tasks"), "tasks/s", "higher", 1_000, 2_000),
        Figure(f"{SINGLES} at once, p50", of("single", "p50"), "ms", "lower"),
        Figure(f"{SINGLES} at once, p99", of("single", "p99"), "ms", "lower"),
        Figure("CPU of the console, single", of("single", "us"), "µs/task", "lower"),
        Figure("by batches", of("batch", "tasks"), "tasks/s", "higher", 20_000),
        Figure(f"{BATCHES} batches at once, p50", of("batch", "p50"), "ms", "lower"),
        Figure(f"{BATCHES} batches at once, p99", of("batch", "p99"), "ms", "lower"),
        Figure("CPU of the console, batches", of("batch", "us"), "µs/task", "lower"),
    ]


def main() -> int:
    options = sized(__doc__, "1 minute", seconds=(5.0, 1.0), rounds=(5, 1))
    with broker() as bootstrap:
        found = measure(bootstrap, options.seconds, options.rounds)
    settings = {
        "partitions": PARTITIONS,
        "seconds": options.seconds,
        "rounds": options.rounds,
        "batch": BATCH,
    }
    kept = not options.quick
    return 0 if report("console", title(__doc__), figures_of(found), settings, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
