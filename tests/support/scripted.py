"""A console that answers by a script, on a port: for what shows a console, without Kafka."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

NOW = "2026-11-26T14:00:00.000Z"


class ScriptedConsole:
    """`answer(path)` is the document of a GET; None: 503. `asked` counts."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self.asked: list[str] = []
        console = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                console.asked.append(self.path)
                document = answer(self.path.removeprefix("/api/v1"))
                body = json.dumps(problem() if document is None else document).encode()
                self.send_response(503 if document is None else document.pop("status_code", 200))
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                if document is None:
                    self.send_header("retry-after", "1")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def problem(status: int = 503, detail: str = "the store is behind") -> dict[str, Any]:
    return {"type": "x", "title": "t", "status": status, "detail": detail, "request_id": "r"}


def overview(*queues: str, lag: int = 0, running: int = 3) -> dict[str, Any]:
    measured = {
        "finished": 900, "failed": 1, "retried": 2, "rate": 1234.5, "success": 0.999,
        "run_p50": 0.012, "run_p95": 1.5, "wait_p50": 0.002, "wait_p95": 75.0,
    }  # fmt: skip
    one = {"lag": 12_345, "oldest_age_ms": 83_000, "paused": False, **measured}
    return {
        "all": measured,
        "tasks": [],
        "totals": {"running": running, "succeeded": 1_234_567, "dead": 4},
        "queues": [{"queue": name, **one, "paused": name == "paused"} for name in queues],
        "series": [],
        "as_of": NOW,
        "lag": lag,
    }


def queues(*names: str) -> dict[str, Any]:
    one = {
        "partitions": 12, "lag": 12_345, "oldest_age_ms": 83_000, "delayed": 7, "retrying": 2,
        "letters": 4, "paused": False, "paused_at": None, "paused_by": None, "workers": 3,
        "lag_is_exact": True, "delayed_is_exact": True, "retrying_is_exact": True,
        "letters_is_exact": False, "rate_in": 17.5, "rate_out": 1234.5,
    }  # fmt: skip
    return {"queues": [{"queue": name, **one} for name in names]}


def groups(*errors: str) -> dict[str, Any]:
    error = {"type": "ValueError", "fingerprint": "9f3a"}
    one = {"queue": "default", "fingerprint": "9f3a", "letters": 4, "name": "send_receipt"}
    when = {"reason": "failed", "first": NOW, "last": NOW}
    return {
        "groups": [{**one, **when, "error": {**error, "message": text}} for text in errors],
        "as_of": NOW,
    }


def task(id: str, status: str = "succeeded", **more: Any) -> dict[str, Any]:
    return {
        "id": id, "queue": "default", "name": "send_receipt", "status": status, "generation": 0,
        "seq": 0, "attempt": 1, "worker": "host-1", "enqueued_at": NOW, "started_at": NOW,
        "finished_at": NOW, "next_attempt_at": None, "error": None, "parent_id": None,
        "lock_key": None, "source_partition": 0, "source_offset": 0, "large": None,
        "result_expires_at": None, "updated_at": NOW, **more,
    }  # fmt: skip


def shop(path: str) -> Any:
    """A console of some queues, some failures, some tasks."""
    if path.startswith("/overview"):
        return overview("default", "mail", "paused")
    if path.startswith("/queues"):
        return queues("default", "mail", "paused")
    if path.startswith("/dlq/groups"):
        return groups("no such customer", "it is \x1b[31mbroken\n")
    error = {"type": "ValueError", "message": "no such customer " * 9, "fingerprint": "9f3a"}
    dead = task("receipt:2", "dead", error=error)
    found = [task("receipt:1"), dead, task("invoice:1", "running", queue="mail", name="bill")]
    return {"tasks": found, "next": None, "as_of": NOW}
