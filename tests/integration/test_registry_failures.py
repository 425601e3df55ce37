"""How a registry's failures over HTTP are told apart: what makes a value bad, what says "later".

The server is one in this process that answers as the test says; the client is Confluent's own.
"""

from __future__ import annotations

import builtins
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from support.records import TASK
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.errors import ConfigError, DecodeError, TaskmillError, Unreachable
from taskmill.schemas import registry as registry_module
from taskmill.schemas.avsc import text
from taskmill.schemas.codec import CODEC, Codec
from taskmill.schemas.framing import as_confluent
from taskmill.schemas.registry import Registry, without_password

RETRIED = TASK._replace(attempt=2, headers={"k": "v"})

Answer = tuple[int, str]


class Server:
    """A registry that answers every request with `answer`, and keeps the requests."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._codecs: list[Codec] = []
        self.url = f"http://me:secret@127.0.0.1:{server.server_port}"
        self.requests: list[str] = []
        self.answer: Answer | Callable[[], Answer] = (500, "{}")

    def codec(self, url: str = "", clock: Clock = SYSTEM_CLOCK) -> Codec:
        """A codec of this registry, or of the one at `url`; closed with the fixture."""
        made = Codec(registry=Registry.connect(url or self.url, clock))
        self._codecs.append(made)
        return made

    def close(self) -> None:
        for codec in self._codecs:
            codec.close()
            codec.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            told.requests.append(f"{self.command} {self.path.partition('?')[0]}")
            status, body = told.answer() if callable(told.answer) else told.answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    class QuietServer(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that gave up is what some tests are about."""

    limits = {"timeout": 0.5, "max.retries": 0, "retries.wait.ms": 1}
    monkeypatch.setattr(registry_module, "_LIMITS", limits)
    http = QuietServer(("127.0.0.1", 0), Handler)
    told = Server(http)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield told
    told.close()
    http.shutdown()
    thread.join()
    http.server_close()


class StoppedClock:
    """Goes when the test says."""

    now = 100.0

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


VALUE = as_confluent(CODEC.encode_task(TASK), 7)
NOT_FOUND = (404, '{"error_code": 40403, "message": "Schema 7 not found"}')


@pytest.mark.parametrize(
    "answer",
    [
        (500, '{"error_code": 50001, "message": "store"}'),
        (503, "down for maintenance"),
        (429, "{}"),
        (401, '{"error_code": 401, "message": "Unauthorized"}'),
        (403, "forbidden"),
        (404, "<html>no such page</html>"),
        (404, '{"error_code": 404, "message": "HTTP 404 Not Found"}'),
        (200, "<html>welcome</html>"),
        (200, "{}"),
    ],
)
def test_a_registry_that_does_not_say_is_unreachable_and_no_value_is_taken_for_bad(
    server: Server, answer: Answer
) -> None:
    server.answer = answer
    with pytest.raises(Unreachable) as caught:
        server.codec().decode_task(VALUE)
    told = str(caught.value)
    assert told.startswith("schema registry http://127.0.0.1:")
    assert "secret" not in told
    assert "\n" not in told


def test_a_registry_that_is_not_there_is_unreachable(server: Server) -> None:
    nowhere = "http://me:secret@127.0.0.1:1"
    with pytest.raises(Unreachable, match=r"^schema registry http://127\.0\.0\.1:1 did not "):
        server.codec(nowhere).decode_task(VALUE)
    with pytest.raises(Unreachable):
        server.codec(nowhere).encode_task(TASK)


def test_a_registry_that_does_not_answer_in_time_is_unreachable(server: Server) -> None:
    release = threading.Event()

    def never() -> Answer:
        release.wait(30)
        return 200, "{}"

    server.answer = never
    try:
        with pytest.raises(Unreachable):
            server.codec().decode_task(VALUE)
    finally:
        release.set()


def test_a_registry_that_comes_back_is_asked_again(server: Server) -> None:
    codec = server.codec()
    with pytest.raises(Unreachable):
        codec.decode_task(VALUE)
    server.answer = (200, json.dumps({"schema": text("Task.avsc")}))
    assert codec.decode_task(VALUE) == TASK


def test_a_schema_is_asked_for_once(server: Server) -> None:
    server.answer = (200, json.dumps({"schema": text("Task.avsc")}))
    codec = server.codec()
    for _ in range(10):
        assert codec.decode_task(as_confluent(CODEC.encode_task(RETRIED), 7)) == RETRIED
    assert server.requests == ["GET /schemas/ids/7"]


def test_a_run_of_unknown_ids_costs_one_question_and_time_brings_another(server: Server) -> None:
    clock = StoppedClock()
    server.answer = NOT_FOUND
    codec = server.codec(clock=clock)
    for _ in range(5):
        with pytest.raises(
            DecodeError, match="schema ID 7 is not known to the registry http://127"
        ):
            codec.decode_task(VALUE)
    assert len(server.requests) == 1
    clock.sleep(11)
    server.answer = (200, json.dumps({"schema": text("Task.avsc")}))
    assert codec.decode_task(VALUE) == TASK


def test_our_schema_is_registered_once_and_the_first_failure_leaves_it_open(
    server: Server,
) -> None:
    codec = server.codec()
    with pytest.raises(Unreachable):
        codec.encode_task(TASK)
    server.answer = (200, '{"id": 7}')
    server.requests.clear()
    assert codec.encode_task(TASK) == VALUE
    assert codec.encode_task(RETRIED)[:5] == VALUE[:5]
    assert server.requests == ["POST /subjects/taskmill.Task/versions"]
    assert codec.decode_task(VALUE) == TASK


@pytest.mark.parametrize("status", [401, 403, 409, 422])
def test_a_registry_that_refuses_our_schema_is_a_setting_to_be_put_right(
    server: Server, status: int
) -> None:
    server.answer = (status, json.dumps({"error_code": status, "message": "incompatible"}))
    with pytest.raises(ConfigError, match=r"refuses subject taskmill\.Task: incompatible"):
        server.codec().encode_task(TASK)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:8081", "'localhost:8081' is not an http"),
        ("ftp://me:secret@host", "'ftp://host' is not an http"),
    ],
)
def test_an_address_that_is_none_is_refused_at_once(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^TASKMILL_SCHEMA_REGISTRY_URL: {says}"):
        Codec(url)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("confluent_kafka.schema_registry"):
            raise ModuleNotFoundError("No module named 'httpx'", name="httpx")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install taskmill\[registry\]") as caught:
        Codec("http://localhost:8081")
    assert isinstance(caught.value, TaskmillError)
    assert "httpx" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://a:8081", "http://a:8081"),
        ("https://me:p%40ss@a/path", "https://a/path"),
        ("http://user:p@s/s,@a:8081", "http://a:8081"),
        ("http://u:p@a:1,http://u:p@b:2", "http://a:1,http://b:2"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
