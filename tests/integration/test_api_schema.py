"""The API keeps to its OpenAPI document: schemathesis, all checks, examples to stateful, finds
nothing; and finds a wrong answer that is planted."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from support.consoles import Stand, eventually
from taskmill.console.api.access import ANY
from taskmill.console.api.app import bare_app
from taskmill.console.api.edge import Edge
from taskmill.console.api.models import Me
from taskmill.console.api.routes import Route
from taskmill.console.token import Token
from taskmill.producer.counting import EnqueuedCount
from taskmill.runtime.clock import SYSTEM_CLOCK

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

#: What it may take, of 90 s in all.
_BUDGET_S = 60
#: What no schema says: whether a name is printable in all of Unicode, a queue is there, a time a
#: time, an expression one; which fields go together. It is refused with the field's name.
_BODIES = ("POST /api/v1/tasks", "POST /api/v1/tasks:batch", "PUT /api/v1/schedules/{id}",
           "POST /api/v1/dlq/replay")  # fmt: skip
_QUERIES = ("GET /api/v1/tasks", "GET /api/v1/dlq", "GET /api/v1/dlq/groups",
            "GET /api/v1/tasks/{id}/result")  # fmt: skip
#: An ID may be longer in bytes than in characters; a schedule's is printable.
_PATHS = ("GET /api/v1/tasks/{id}", "POST /api/v1/tasks/{id}/cancel", "POST /api/v1/tasks/{id}/run")


def config() -> str:
    """schemathesis.toml: beside what is right and unknown, which refusals are right."""
    lines = ["[generation]", "allow-x00 = true", 'codec = "utf-8"', 'database = "none"']
    for names, statuses in ((_BODIES, [400, 413, 422]), ((*_QUERIES, *_PATHS), [400, 410])):
        for name in names:
            expected = ["2xx", 401, 403, 404, 409, *statuses]
            lines += [
                "[[operations]]",
                f'include-name = "{name}"',
                f"checks.positive_data_acceptance.expected-statuses = {expected!r}",
            ]
            if name.endswith(":batch"):
                # With mode `each`, what is wrong with a task is told in that task's own answer.
                refused = [202, "4xx", "5xx"]
                lines.append(f"checks.negative_data_rejection.expected-statuses = {refused!r}")
    return "\n".join(lines)


def schemathesis(folder: Path, url: str, secret: str, *options: str) -> tuple[int, str]:
    """Run it; its exit code, and what it printed."""
    (folder / "schemathesis.toml").write_text(config())
    seed = random.SystemRandom().randrange(2**31)
    print(f"seed {seed}")
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json"),
        *("--header", f"Authorization: Bearer {secret}", "--checks", "all", "--seed", str(seed)),
        *("--max-time", str(_BUDGET_S), "--request-timeout", "20", "--no-color"),
        # It does not end.
        *("--exclude-path", "/api/v1/tasks/stream"),
        *options,
    ]
    ran = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=150,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )  # fmt: skip
    return ran.returncode, ran.stdout + ran.stderr


def test_nothing_is_found(stand: Stand, tmp_path: Path) -> None:
    secret = stand.console.client("admin").headers["authorization"].removeprefix("Bearer ")
    code, printed = schemathesis(tmp_path, stand.console.url, secret, "--continue-on-failure")
    print(printed[-20_000:])
    assert code == 0
    assert " 500 " not in stand.console.log


class _Anyone:
    """One token, which may all."""

    def check(self, secret: str) -> Token | None:
        if secret != "good":
            return None
        return Token("0" * 12, frozenset({"admin"}), None, None, "", 0, "")


class _Services:
    tokens = _Anyone()
    counted = EnqueuedCount()
    page = None


async def right(request: Request) -> Response:
    """Answer as the document says."""
    body = Me(token="0" * 12, scopes=["admin"], queues=None, expires_at=None)
    return Response(body.model_dump_json(), media_type="application/json")


async def of_another_shape(request: Request) -> Response:
    """Answer with a field that is not in the document."""
    return Response('{"token": "x", "more": 1}', media_type="application/json")


async def with_another_status(request: Request) -> Response:
    """Answer with a status that is not in the document."""
    return Response(status_code=418)


async def failing(request: Request) -> Response:
    """Fail."""
    raise ZeroDivisionError


@contextmanager
def served(route: Route) -> Iterator[str]:
    """An API of that route alone; its address."""
    app = Edge(bare_app(_Services(), [route]), SYSTEM_CLOCK)  # type: ignore[arg-type]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        try:
            eventually(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (right, None),
        (of_another_shape, "schema"),
        (with_another_status, "Undocumented status code"),
        (failing, "Server error"),
    ],
)
def test_a_planted_wrong_answer_is_found(tmp_path: Path, handler: Any, told: str | None) -> None:
    with served(Route("GET", "/me", handler, ANY, {200: Me})) as url:
        code, printed = schemathesis(tmp_path, url, "good", "--phases", "examples,coverage")
    print(printed)
    assert code == (0 if told is None else 1)
    assert told is None or told.lower() in printed.lower()
