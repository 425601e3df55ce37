"""What a role tells whoever watches it, over HTTP: /metrics, /healthz, /readyz; GET and HEAD.

It answers from what was found out already: neither a scrape nor a probe makes a role work.
"""

from __future__ import annotations

import gzip
import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from taskmill.runtime.errors import ConfigError
from taskmill.runtime.meter import Reading
from taskmill.runtime.metric_page import Page

logger = logging.getLogger("taskmill.metrics")

#: A client that says or takes nothing for so long is left.
IDLE_S = 10.0
#: Pages below this are not worth their packing.
SMALL_BYTES = 1_000

#: One line why not; None: it is.
Verdict = Callable[[], str | None]


class MetricsServer:
    """Serves until closed, in threads of its own."""

    def __init__(
        self, port: int, read: Callable[[], Reading], healthy: Verdict, ready: Verdict
    ) -> None:
        """`port` 0: a free one. Raises ConfigError where it cannot be had."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Page(read))

        class Bound(_Handler):
            registry_ = registry
            verdicts = {"/healthz": healthy, "/readyz": ready}  # noqa: RUF012  (never changed)

        try:
            self._server = _Server(("", port), Bound)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"metrics port {port} (TASKMILL_METRICS_PORT): {why}; 0 takes a free one"
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="taskmill-metrics", daemon=True
        )
        self._thread.start()
        logger.info("metrics on port %d, path /metrics; /healthz, /readyz", self.port)

    def close(self) -> None:
        """Take no more requests."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A thread that still answers ends with the process.
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a request of %s failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server_version = "taskmill"
    sys_version = ""
    timeout = IDLE_S
    registry_: CollectorRegistry
    verdicts: dict[str, Verdict]

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept") or "")
            self._answer(HTTPStatus.OK, kind, encode(self.registry_))
        elif path in self.verdicts:
            why = self.verdicts[path]()
            status = HTTPStatus.OK if why is None else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, "text/plain; charset=utf-8", f"{why or 'ok'}\n".encode())
        else:
            here = "/metrics, /healthz, /readyz\n"
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", here.encode())

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        if len(body) >= SMALL_BYTES and "gzip" in (self.headers.get("Accept-Encoding") or ""):
            body = gzip.compress(body, 1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)
