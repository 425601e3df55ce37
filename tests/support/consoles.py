"""Console processes as a user starts them, and clients that ask them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from support.brokers import delete_topics
from support.workers import WorkerProcess
from taskmill.console.tokens import TokenTable
from taskmill.runtime.config import Settings

#: What a console may take for what it does by itself: to fill its store, to hear of a token.
SOON_S = 20.0

T = TypeVar("T")


class ConsoleProcess(WorkerProcess):
    """`python -m taskmill console` on any free port; killed at the end."""

    def __init__(
        self, settings: Settings, folder: Path, *options: str, env: dict[str, str] | None = None
    ) -> None:
        super().__init__(
            settings, folder, "--port", "0", *options, target="", env=env, role="console"
        )
        self._settings = settings
        self._clients: list[httpx.Client] = []
        self.url = ""

    def wait_listening(self) -> Self:
        """Wait until it listens."""
        self.url = self.wait_for(r"^console at (http://\S+)")[1]
        return self

    def wait_until_ready(self) -> Self:
        """Wait until it says that it is ready: its store filled, Kafka there."""
        self.wait_listening()
        eventually(lambda: self.client().get("/readyz").status_code == 200)
        return self

    def client(self, *scopes: str, queues: list[str] | None = None, name: str = "") -> httpx.Client:
        """A client with a new token of these scopes; without any, with no token."""
        headers = {}
        if scopes:
            _, secret = TokenTable(self._settings).create(
                scopes, queues=queues, name=name, by="test"
            )
            headers["Authorization"] = f"Bearer {secret}"
        one = httpx.Client(base_url=self.url, headers=headers, timeout=30)
        self._clients.append(one)
        if scopes:
            eventually(lambda: one.get("/api/v1/me").status_code == 200)
        return one

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one in self._clients:
            one.close()
        if error is not None:
            print(self.log)
        super().__exit__(kind, error, trace)


def eventually(look: Callable[[], T], within_s: float = SOON_S) -> T:
    """What `look` says once that is true; looked for again and again."""
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not so within {within_s:g} s: {found!r}"
        time.sleep(0.02)


def ended(client: httpx.Client, id: str, queue: str = "default") -> dict[str, Any]:
    """The result document of a task once it has ended."""
    path = f"/api/v1/tasks/{quoted(id)}/result"
    deadline = time.monotonic() + SOON_S
    while True:
        answer = client.get(path, params={"wait": "10s", "queue": queue})
        if answer.status_code == 200:
            return dict(answer.json())
        assert time.monotonic() < deadline, answer.text
        assert answer.status_code in (202, 404), answer.text


def quoted(id: str) -> str:
    """An ID as a part of a path."""
    return quote(id, safe="")


def events(response: httpx.Response) -> Any:
    """Server-sent events, one by one: (event, id, data)."""
    kind, id, data = "message", None, ""
    for line in response.iter_lines():
        if not line:
            if data:
                yield kind, id, json.loads(data)
            kind, data = "message", ""
        elif line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("id: "):
            id = line[4:]
        elif line.startswith("data: "):
            data = line[6:]


class Stand:
    """A console and a worker of the tests' App on a prefix of their own, for a file of tests."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(
            bootstrap_servers=bootstrap,
            prefix=f"t-{uuid.uuid4().hex[:8]}",
            partitions=2,
            state_dir=folder / "state",
        )
        self.console = ConsoleProcess(self.settings, folder)
        self.worker = WorkerProcess(self.settings, folder)

    def __enter__(self) -> Self:
        self.worker.wait_ready(2)
        self.console.wait_until_ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.worker.__exit__(kind, error, trace)
        self.console.__exit__(kind, error, trace)
        delete_topics(str(self.settings.bootstrap_servers), self.settings.prefix)
