"""Who may do what over HTTP: denied by default, by scope, by queue; what is open to all."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from support.consoles import Stand, eventually
from taskmill.console.api.app import table
from taskmill.console.tokens import TokenTable
from taskmill.runtime.topics import ensure

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

#: Something for each parameter of a path.
_FILLED = {"id": "x", "queue": "default", "partition": "0", "offset": "0"}
_WORDS = {"{id:text}": "x", "{id:word}": "x", "{queue:word}": "default"}


class _Nothing:
    """Stands in for what a table of routes is only made with."""

    def __getattr__(self, name: str) -> Any:
        return _Nothing()

    def __call__(self, *_: object) -> Any:
        return _Nothing()


def every_route() -> list[tuple[str, str, str]]:
    """Method, path and scope of every route but those that are open."""
    import taskmill.console.api.enqueue as enqueue

    encoder, enqueue.TaskEncoder = enqueue.TaskEncoder, _Nothing()  # type: ignore[misc]
    try:
        routes = table(_Nothing(), _Nothing())  # type: ignore[arg-type]
    finally:
        enqueue.TaskEncoder = encoder  # type: ignore[misc]
    found = []
    for route in routes:
        path = route.path
        for name, value in _FILLED.items():
            for kind in ("text", "word"):
                path = path.replace(f"{{{name}:{kind}}}", value)
        found.append((route.method, f"/api/v1{path}", route.scope))
    return found


ROUTES = every_route()


def test_there_are_routes_to_look_at(stand: Stand) -> None:
    document = httpx.get(f"{stand.console.url}/openapi.json").json()
    listed = {(m.upper(), p) for p, methods in document["paths"].items() for m in methods}
    assert len(listed) == len(ROUTES)
    assert document["openapi"].startswith("3.1")


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_every_route_refuses_without_a_token(
    stand: Stand, method: str, path: str, scope: str
) -> None:
    for headers in ({}, {"Authorization": "Bearer tm_none"}, {"Authorization": "Basic eA=="}):
        answer = httpx.request(method, stand.console.url + path, headers=headers)
        assert answer.status_code == 401, answer.text
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"


def test_what_is_no_route_refuses_without_a_token_too(stand: Stand) -> None:
    for path in ("/api/v1/nothing", "/api/v2", "/api/v1/tasks/x/nothing"):
        assert httpx.delete(stand.console.url + path).status_code == 401


@pytest.mark.parametrize("held", ["enqueue", "read", "operate"])
def test_a_scope_that_is_lacking_is_named(stand: Stand, held: str) -> None:
    client = stand.console.client(held)
    includes = {"enqueue": {"enqueue"}, "read": {"read"}, "operate": {"operate", "read"}}[held]
    for method, path, scope in ROUTES:
        if scope not in includes and scope != "any":
            answer = client.request(method, path)
            assert (answer.status_code, answer.json()["scope"]) == (403, scope), (method, path)


def test_a_narrowed_token_sees_and_touches_its_queues_alone(stand: Stand) -> None:
    ensure(stand.settings, "mail")
    admin, mail = stand.console.client("admin"), stand.console.client("admin", queues=["mail"])
    for queue in ("default", "mail"):
        task = {"name": "add", "args": {"a": 1}, "id": f"of-{queue}", "queue": queue}
        assert admin.post("/api/v1/tasks", json=task).status_code == 202
        eventually(lambda q=queue: admin.get(f"/api/v1/tasks/of-{q}?queue={q}").status_code == 200)
    page = mail.get("/api/v1/tasks").json()["tasks"]
    assert {one["queue"] for one in page} == {"mail"}
    assert {one["queue"] for one in mail.get("/api/v1/queues").json()["queues"]} == {"mail"}
    seen = mail.get("/api/v1/overview").json()
    assert [one["queue"] for one in seen["queues"]] == ["mail"]
    task = {"name": "add", "args": {"a": 1}}
    refused = [
        mail.post("/api/v1/tasks", json=task),
        mail.post("/api/v1/tasks:batch", json={"tasks": [task]}),
        mail.get("/api/v1/tasks?queue=default"),
        mail.get("/api/v1/tasks/of-default"),
        mail.get("/api/v1/tasks/of-default/result?wait=1s"),
        mail.post("/api/v1/tasks/of-default/cancel"),
        mail.post("/api/v1/tasks/of-default/run"),
        mail.get("/api/v1/tasks/stream?queue=default"),
        mail.get("/api/v1/dlq?queue=default"),
        mail.get("/api/v1/dlq/default/0/0"),
        mail.post("/api/v1/dlq/replay", json={"queue": "default"}),
        mail.get("/api/v1/dlq/replays?queue=default"),
        mail.put("/api/v1/schedules/s", json={"task": "add", "every": "1h"}),
        mail.post("/api/v1/queues/default/pause"),
    ]
    assert [one.status_code for one in refused] == [403] * len(refused)
    each = mail.post(
        "/api/v1/tasks:batch", json={"mode": "each", "tasks": [task, {**task, "queue": "mail"}]}
    )
    assert [one["status"] for one in each.json()["tasks"]] == [403, 202]


def test_a_schedule_of_another_queue_is_not_there_for_a_narrowed_token(stand: Stand) -> None:
    ensure(stand.settings, "mail")
    admin, mail = stand.console.client("admin"), stand.console.client("admin", queues=["mail"])
    body = {"task": "add", "every": "1h"}
    assert admin.put("/api/v1/schedules/hourly", json=body).status_code == 201
    assert mail.get("/api/v1/schedules").json()["schedules"] == []
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/trigger"), ("POST", "/pause")):
        assert mail.request(method, f"/api/v1/schedules/hourly{path}").status_code == 404
    body["queue"] = "mail"
    assert mail.put("/api/v1/schedules/hourly", json=body).status_code == 403


def test_a_revoked_token_is_refused_and_its_stream_ends(stand: Stand) -> None:
    client = stand.console.client("read")
    with client.stream("GET", "/api/v1/tasks/stream") as response:
        assert response.status_code == 200
        TokenTable(stand.settings).revoke(client.get("/api/v1/me").json()["token"])
        eventually(lambda: client.get("/api/v1/me").status_code == 401)
        assert any(True for _ in response.iter_lines())


def test_what_is_open_is_open_and_the_page_is_strict(stand: Stand) -> None:
    with httpx.Client(base_url=stand.console.url) as anyone:
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/"):
            assert anyone.get(path).status_code == 200, path
        page = anyone.get("/")
        policy = page.headers["content-security-policy"]
        for part in ("default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert part in policy
        assert "unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert "taskmill_console_requests_total" in anyone.get("/metrics").text
        assert anyone.get("/../../etc/passwd").status_code == 404
        assert anyone.get("/%2e%2e/%2e%2e/pyproject.toml").status_code == 404
