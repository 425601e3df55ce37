"""The clients of examples/clients, built and run by the very commands of their README."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from taskmill.runtime.broker_jars import cache_dir
from taskmill.runtime.config import Settings

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLIENTS = EXAMPLES / "clients"

#: A first build fetches some 30 MB and compiles a Kafka client; generous, for a slow line.
BUILD_LIMIT_S = 600
#: 0.1–3 s each on an idle machine; kcat's is a Python process for every task.
RUN_LIMIT_S = 120

Tasks = Mapping[str, Mapping[str, Any]]  # ID → arguments


@dataclass(frozen=True)
class Client:
    """An example: the heading of its commands, what it is built of and run with."""

    heading: str
    source: Path
    #: Programs that it needs → the packages that bring them, on Debian.
    needs: Mapping[str, str] = field(default_factory=dict)
    #: The argument that leaves it on another partitioner than murmur2.
    misled_by: str = ""

    @property
    def commands(self) -> list[str]:
        """The lines of its block in the README: what builds it, and last what runs it."""
        text = (CLIENTS / "README.md").read_text(encoding="utf-8")
        section = text.partition(f"\n## {self.heading}\n")[2].partition("\n## ")[0]
        (block,) = re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
        return str(block).splitlines()

    def built(self) -> Path:
        """The folder to run it in, outside the clone: kept in the user's cache, by its contents."""
        missing = [p for program, p in self.needs.items() if not shutil.which(program)]
        if missing:
            pytest.fail(
                f"the {self.heading} client of examples/clients needs {', '.join(missing)}: "
                f"sudo apt-get install {' '.join(missing)} (or your system's way)",
                pytrace=False,
            )
        files = self._files()
        digest = hashlib.sha256("\n".join(self.commands).encode())
        for path in files:
            digest.update(path.name.encode() + path.read_bytes())
        home = cache_dir(os.environ).parent / "clients"
        folder = home / f"{self.heading.lower()}-{digest.hexdigest()[:16]}"
        if not folder.is_dir():
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="build-", dir=home) as work:
                self._build(files, Path(work) / "built", folder)
        return folder

    def _files(self) -> list[Path]:
        """Its source and what lies beside it, without what its commands leave there."""
        if self.source.parent == EXAMPLES:
            return [self.source]
        beside = sorted(path for path in self.source.parent.iterdir() if path.is_file())
        left = ("*.avsc", "*.jsonl", "enqueue")
        return [path for path in beside if not any(map(path.match, left))]

    def _build(self, files: Sequence[Path], work: Path, folder: Path) -> None:
        work.mkdir()
        for path in files:
            shutil.copy(path, work)
        for command in self.commands[:-1]:
            _run(shlex.split(command), work, "", BUILD_LIMIT_S)
        try:
            work.rename(folder)  # whole or not at all
        except OSError:
            if not folder.is_dir():  # else another run was quicker
                raise

    def enqueue(
        self, settings: Settings, topic: str, name: str, tasks: Tasks, *, misled: bool = False
    ) -> None:
        """Put `tasks` on `topic`; `misled`: by another partitioner. Returns once acknowledged."""
        bootstrap = str(settings.bootstrap_servers)
        here = Path.cwd()
        words = shlex.split(self.commands[-1].partition(" < ")[0])
        said = {
            "localhost:9092": bootstrap,
            "taskmill.tasks.default": topic,
            "send_receipt": name,
            "Task.avsc": str(here / "Task.avsc"),
            "kafka.json": str(here / "kafka.json"),
            "../plain_producer.py": str(PYTHON.source),
            "python": sys.executable,
        }
        words = [said.get(word, word) for word in words]
        env = {}
        if self.heading == "kcat":
            words = [*words[:4], *(w for id, args in tasks.items() for w in (id, json.dumps(args)))]
            env = {"PARTITIONER": self.misled_by} if misled else {}
        elif self.heading == "Python":
            config = {"bootstrap.servers": bootstrap}
            config |= {"partitioner": self.misled_by} if misled else {}
            (here / "kafka.json").write_text(json.dumps(config), encoding="utf-8")
        elif misled:
            words.append(self.misled_by)
        _run(words, self.built(), lines(tasks), RUN_LIMIT_S, env)


JAVA = Client(
    "Java",
    CLIENTS / "java" / "Enqueue.java",
    {"javac": "default-jdk-headless", "mvn": "maven"},
    "org.apache.kafka.clients.producer.RoundRobinPartitioner",
)
GO = Client("Go", CLIENTS / "go" / "main.go", {"go": "golang"}, "crc32")
NODE = Client("Node", CLIENTS / "node" / "enqueue.js", {"node": "nodejs", "npm": "npm"}, "default")
KCAT = Client("kcat", CLIENTS / "kcat" / "enqueue.sh", {"kcat": "kcat"}, "consistent_random")
PYTHON = Client("Python", EXAMPLES / "plain_producer.py", {}, "consistent_random")

ALL = (JAVA, GO, NODE, KCAT, PYTHON)


def lines(tasks: Tasks) -> str:
    """`tasks` as the clients and `taskmill enqueue --from` read them, an object a line."""
    return "".join(
        json.dumps({"id": id, "args": args}, ensure_ascii=False) + "\n"
        for id, args in tasks.items()
    )


def taskmill(settings: Settings, *words: str, stdin: str = "") -> str:
    """What the command `taskmill WORDS…` prints, with `settings`' broker and prefix."""
    env = {
        "TASKMILL_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "TASKMILL_PREFIX": settings.prefix,
        "TASKMILL_PARTITIONS": str(settings.partitions),
    }
    return _run(["taskmill", *words], Path.cwd(), stdin, RUN_LIMIT_S, env)


def _run(
    command: Sequence[str], folder: Path, stdin: str, limit_s: float, env: Mapping[str, str] = {}
) -> str:
    """Run it to its end and return what it prints; fails with all it said where it fails."""
    # The taskmill that is under test, for those that call it.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    ran = subprocess.run(
        command,
        cwd=folder,
        input=stdin,
        env={**os.environ, "PATH": path, **env},
        capture_output=True,
        encoding="utf-8",
        timeout=limit_s,
        check=False,
    )
    assert ran.returncode == 0, f"{' '.join(command)}\n{ran.stdout}{ran.stderr}"
    return ran.stdout
