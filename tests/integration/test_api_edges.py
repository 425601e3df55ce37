"""The API's edges: problems, limits, cursors, request IDs; Kafka away."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.brokers import PrivateBroker
from support.consoles import ConsoleProcess, Stand, ended, eventually
from taskmill.runtime.config import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


@pytest.fixture
def admin(stand: Stand) -> httpx.Client:
    return stand.console.client("admin")


def problem(answer: httpx.Response, status: int, field: str | None = None) -> dict[str, Any]:
    """The problem document of an answer, which has that status and names that field."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = dict(answer.json())
    assert told["status"] == status
    assert told["request_id"] == answer.headers["x-request-id"]
    if field is not None:
        assert [one["field"] for one in told["errors"]] == [field]
    return told


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/tasks?limit=0", "limit"),
        ("/tasks?limit=501", "limit"),
        ("/tasks?limit=ten", "limit"),
        ("/tasks?status=deed", "status.0"),
        ("/tasks?since=yesterday", "since"),
        ("/tasks?until=2026-13-01", "until"),
        ("/tasks?queue=a.b", "queue.0"),
        ("/tasks?stauts=dead", "stauts"),
        ("/tasks?cursor=x", "cursor"),
        ("/tasks?cursor=%F0%9F%98%80", "cursor"),
        ("/tasks?cursor=WzEsImFhIl0", "cursor"),
        ("/tasks/x/result?wait=61s", "wait"),
        ("/tasks/x/result?wait=5", "wait"),
        ("/dlq?cursor=W10", "cursor"),
        ("/dlq/default/zero/0", "partition"),
        ("/overview?minutes=0", "minutes"),
    ],
)
def test_a_wrong_query_is_a_problem_that_names_it(
    admin: httpx.Client, path: str, field: str
) -> None:
    problem(admin.get(f"/api/v1{path}"), 400, field)


def test_unknown_routes_and_methods_and_types_are_problems(admin: httpx.Client) -> None:
    problem(admin.get("/api/v1/nothing"), 404)
    told = admin.delete("/api/v1/tasks")
    problem(told, 405)
    assert told.headers["allow"] == "GET, POST"
    text = admin.post("/api/v1/tasks", content="{}", headers={"content-type": "text/plain"})
    problem(text, 415)
    headers = {"content-type": "application/json"}
    for content in (
        "{",
        "",
        "[]",
        '{"name": "a", "args": NaN}',
        "\ud800".encode("utf-8", "replace"),
    ):
        answer = admin.post("/api/v1/tasks", content=content, headers=headers)
        assert answer.status_code in (400, 422)
        problem(answer, answer.status_code)
    deep = '{"name":"add","args":' + '{"a":' * 5000 + "1" + "}" * 5001
    assert admin.post("/api/v1/tasks", content=deep, headers=headers).status_code in (400, 422)


def test_bodies_and_batches_have_limits(admin: httpx.Client) -> None:
    huge = b"x" * (17 * 1024 * 1024)
    headers = {"content-type": "application/json"}
    problem(admin.post("/api/v1/tasks:batch", content=huge, headers=headers), 413)

    def pieces() -> Any:
        for _ in range(17):
            yield b" " * 1024 * 1024

    problem(admin.post("/api/v1/tasks:batch", content=pieces(), headers=headers), 413)
    large = {"name": "echo", "args": {"value": "x" * 1_100_000}}
    problem(admin.post("/api/v1/tasks", json=large), 413, "args")
    many = {"tasks": [{"name": "add"}] * 10_001}
    problem(admin.post("/api/v1/tasks:batch", json=many), 422, "tasks")


def test_pages_are_stable_while_tasks_come(admin: httpx.Client) -> None:
    tasks = [{"name": "add", "args": {"a": 1}, "id": f"page-{n:03}"} for n in range(25)]
    admin.post("/api/v1/tasks:batch", json={"tasks": tasks})
    for task in tasks:
        ended(admin, task["id"])
    seen: list[str] = []
    asked = {"prefix": "page-", "limit": 10}
    cursor: str | None = None
    while True:
        given = {**asked, "cursor": cursor} if cursor else asked
        page = admin.get("/api/v1/tasks", params=given).json()
        seen += [one["id"] for one in page["tasks"]]
        admin.post("/api/v1/tasks", json={"name": "add", "args": {"a": 1}})
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(seen) == [f"page-{n:03}" for n in range(25)]
    first = admin.get("/api/v1/tasks", params=asked).json()["next"]
    other = admin.get("/api/v1/tasks", params={"limit": 10, "cursor": first})
    problem(other, 400, "cursor")


def test_request_ids_go_through_and_into_the_log(stand: Stand, admin: httpx.Client) -> None:
    answer = admin.get("/api/v1/me", headers={"X-Request-ID": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    admin.post("/api/v1/queues/default/resume", headers={"X-Request-ID": "mine-2"})
    stand.console.wait_for(r"POST /api/v1/queues/default/resume 200 .* request mine-2")
    assert (
        len(admin.get("/api/v1/me", headers={"X-Request-ID": "a b\tc"}).headers["x-request-id"])
        == 36
    )


def test_answers_are_compressed_where_that_is_asked_for(admin: httpx.Client) -> None:
    headers = {"accept-encoding": "gzip"}
    with admin.stream("GET", "/openapi.json", headers=headers) as response:
        assert response.headers["content-encoding"] == "gzip"
        assert b"openapi" in gzip.decompress(b"".join(response.iter_raw()))


def test_an_unreachable_kafka_is_503_within_seconds(
    private_broker: Callable[..., PrivateBroker], tmp_path: Path
) -> None:
    broker = private_broker()
    settings = Settings(
        bootstrap_servers=broker.bootstrap, prefix="t", partitions=1, state_dir=tmp_path / "s"
    )
    with ConsoleProcess(settings, tmp_path) as console:
        client = console.wait_until_ready().client("admin")
        task = {"name": "add", "args": {"a": 1}}
        assert client.post("/api/v1/tasks", json=task).status_code == 202
        broker.pause()
        began = time.monotonic()
        answer = client.post("/api/v1/tasks", json=task)
        problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        assert time.monotonic() - began < 15
        eventually(lambda: client.get("/readyz").status_code == 503)
        problem(client.get("/api/v1/schedules"), 503)
        broker.resume()
        eventually(lambda: client.post("/api/v1/tasks", json=task).status_code == 202)
