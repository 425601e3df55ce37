"""Schedules, queues and workers over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from support.consoles import Stand, ended, eventually, quoted

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


@pytest.fixture
def admin(stand: Stand) -> httpx.Client:
    return stand.console.client("admin")


def test_a_schedule_is_made_changed_triggered_paused_and_removed(admin: httpx.Client) -> None:
    path = f"/api/v1/schedules/{quoted('nightly/1')}"
    body = {"task": "add", "args": {"a": 4}, "cron": "0 3 * * *", "tz": "Europe/Paris"}
    made = admin.put(path, json=body)
    assert (made.status_code, made.json()["status"]) == (201, "on"), made.text
    assert len(made.json()["next"]) == 5
    assert admin.put(path, json={**body, "args": {"a": 5}}).status_code == 200
    assert admin.get(path).json()["args"] == {"a": 5}
    task = admin.post(f"{path}/trigger")
    assert task.status_code == 202
    assert ended(admin, task.json()["id"])["result"] == 6
    paused = admin.post(f"{path}/pause").json()
    assert (paused["status"], paused["next"]) == ("paused", [])
    assert admin.put(path, json=body).json()["status"] == "paused"
    assert admin.post(f"{path}/resume").json()["status"] == "on"
    listed = admin.get("/api/v1/schedules").json()["schedules"]
    assert [one["id"] for one in listed] == ["nightly/1"]
    assert admin.delete(path).status_code == 204
    for method, more in (("GET", ""), ("DELETE", ""), ("POST", "/trigger"), ("POST", "/resume")):
        assert admin.request(method, path + more).status_code == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cron", "never"),
        ("every", "1"),
        ("tz", "Europe/Atlantis"),
        ("misfire", "hope"),
        ("jitter", "2d"),
        ("task", ""),
        ("queue", "never-made"),
        ("max_runs", 0),
        ("lock", "x"),
    ],
)
def test_a_wrong_schedule_is_named(admin: httpx.Client, field: str, value: Any) -> None:
    body = {"task": "add", "every": "1h", field: value}
    if field == "cron":
        del body["every"]
    answer = admin.put("/api/v1/schedules/wrong", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field, answer.text


def test_a_queue_is_paused_and_goes_on(admin: httpx.Client) -> None:
    assert admin.post("/api/v1/queues/nowhere/pause").status_code == 404
    assert admin.post("/api/v1/queues/default/pause").json()["paused"] is True

    def queue() -> dict[str, Any]:
        found = admin.get("/api/v1/queues").json()["queues"]
        return next(one for one in found if one["queue"] == "default")

    eventually(lambda: queue()["paused"])
    assert queue()["paused_by"].startswith("token ")
    assert admin.post("/api/v1/queues/default/resume").json()["paused"] is False
    task = admin.post("/api/v1/tasks", json={"name": "add", "args": {"a": 1}}).json()
    assert ended(admin, task["id"])["result"] == 2
    eventually(lambda: queue()["lag"] == 0 and not queue()["paused"])


def test_workers_are_listed_with_what_they_hold(admin: httpx.Client) -> None:
    def held() -> list[int]:
        return [p for w in admin.get("/api/v1/workers").json()["workers"] for p in w["partitions"]]

    eventually(lambda: sorted(held()) == [0, 1])


def test_the_overview_counts_what_became_of_tasks(admin: httpx.Client) -> None:
    tasks = [{"name": "add", "args": {"a": n}} for n in range(10)]
    tasks.append({"name": "fails", "args": {"message": "x"}})
    ids = admin.post("/api/v1/tasks:batch", json={"tasks": tasks}).json()["tasks"]
    for one in ids:
        ended(admin, one["id"])

    def seen() -> dict[str, Any]:
        return dict(admin.get("/api/v1/overview?minutes=5").json())

    eventually(lambda: seen()["totals"]["succeeded"] >= 10 and seen()["totals"]["dead"] == 1)
    told = seen()
    (queue,) = told["queues"]
    assert queue["finished"] >= 11
    assert 0 < queue["success"] < 1
    assert queue["run_p50"] is not None
    assert len(told["series"]) == 5
    assert sum(one["outcomes"].get("dead", 0) for one in told["series"]) == 1
