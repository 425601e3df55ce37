"""A broker behind toxiproxy: whoever uses its proxied address meets the network that a test makes.

The broker listens twice. `direct` is its usual address; on the other listener it calls itself by
the address of the proxy, so that a client that bootstraps there stays behind the proxy for good.

toxiproxy is built once, into the user's cache, by the Go tool; TASKMILL_TEST_TOXIPROXY may name a
toxiproxy-server that is there already.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.brokers import PrivateBroker, quiet_port
from taskmill.runtime import broker_java
from taskmill.runtime.broker_record import HOST, Cluster, Node

VERSION = "2.5.0"
_SOURCE = f"github.com/Shopify/toxiproxy/v2/cmd/server@v{VERSION}"
_PROXY = "broker"


def find_server() -> Path:
    """The toxiproxy-server to run: given, on the path, built before, or built now."""
    for given in (os.environ.get("TASKMILL_TEST_TOXIPROXY"), shutil.which("toxiproxy-server")):
        if given:
            return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "taskmill")
    folder = cache / f"toxiproxy-{VERSION}"
    if not (folder / "server").exists():
        assert shutil.which("go"), (
            "toxiproxy is needed: install it (https://github.com/Shopify/toxiproxy) so that "
            "toxiproxy-server is on the path, or have Go 1.17+, to build it"
        )
        environment = {**os.environ, "GOBIN": str(folder)}
        subprocess.run(["go", "install", _SOURCE], env=environment, check=True, timeout=600)
    return folder / "server"


class Toxiproxy:
    """One proxy, from `port` to `upstream`, and what is done to the bytes that pass."""

    def __init__(self, port: int, upstream: int) -> None:
        self._api = f"http://{HOST}:{(api := quiet_port())}"
        self._process = subprocess.Popen(
            [find_server(), "-host", HOST, "-port", str(api)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                self._ask("GET", "/version")
                break
            except OSError:
                assert time.monotonic() < deadline, "toxiproxy does not answer"
                time.sleep(0.05)
        proxy = {"name": _PROXY, "listen": f"{HOST}:{port}", "upstream": f"{HOST}:{upstream}"}
        self._ask("POST", "/proxies", {**proxy, "enabled": True})

    def _ask(self, method: str, path: str, body: Any = None) -> None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._api + path, data, method=method)
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path} {body}: {error.read().decode()}") from None

    def poison(self, kind: str, stream: str, toxicity: float = 1.0, **attributes: int) -> None:
        """Add a toxic of `kind` to "upstream" (requests) or "downstream" (answers); to that share
        of the connections."""
        toxic = {"type": kind, "stream": stream, "toxicity": toxicity, "attributes": attributes}
        self._ask("POST", f"/proxies/{_PROXY}/toxics", {"name": f"{kind}-{stream}", **toxic})

    def cut(self) -> None:
        """Close all connections and take no more."""
        self._ask("POST", f"/proxies/{_PROXY}", {"enabled": False})

    def heal(self) -> None:
        """Take connections, and let all bytes pass."""
        self._ask("POST", "/reset")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class ProxiedBroker:
    """One node of a test's own: its direct address, its address behind `toxiproxy`."""

    def __init__(self) -> None:
        port, behind = quiet_port(), quiet_port()
        self.proxied = f"{HOST}:{port}"
        with _second_listener(behind, self.proxied):
            self.broker = PrivateBroker()
            self.direct = self.broker.start()
        self.toxiproxy = Toxiproxy(port, behind)

    def close(self) -> None:
        self.toxiproxy.close()
        self.broker.remove()


@contextmanager
def _second_listener(port: int, advertised: str) -> Iterator[None]:
    """Nodes that start meanwhile listen on `port` too, where they are called `advertised`."""
    usual = broker_java.process_settings

    def settings(cluster: Cluster, node: Node) -> dict[str, str]:
        found = usual(cluster, node)
        found["listeners"] += f",PROXIED://{HOST}:{port}"
        found["advertised.listeners"] += f",PROXIED://{advertised}"
        found["listener.security.protocol.map"] += ",PROXIED:PLAINTEXT"
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker_java, "process_settings", settings)
        yield


@contextmanager
def proxied_broker() -> Iterator[ProxiedBroker]:
    """A ProxiedBroker, removed afterwards."""
    one = ProxiedBroker()
    try:
        yield one
    finally:
        one.close()
