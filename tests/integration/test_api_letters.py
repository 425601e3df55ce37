"""Dead letters over HTTP: looked at, grouped, replayed in the background, one replay at a time."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from support.consoles import Stand, ended, eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


@pytest.fixture
def admin(stand: Stand) -> httpx.Client:
    return stand.console.client("admin")


def die(client: httpx.Client, *ids: str, name: str = "brittle", **args: Any) -> None:
    tasks = [{"name": name, "args": args, "id": id} for id in ids]
    answer = client.post("/api/v1/tasks:batch", json={"tasks": tasks})
    assert answer.json()["accepted"] == len(ids)
    for id in ids:
        assert ended(client, id)["status"] == "dead"
    eventually(lambda: all(client.get(f"/api/v1/dlq?id={id}").json()["letters"] for id in ids))


def test_letters_are_listed_grouped_and_shown_whole(admin: httpx.Client) -> None:
    die(admin, "l-1", kind="key")
    die(admin, "l-2", kind="key")
    page = admin.get("/api/v1/dlq", params={"name": "brittle", "limit": 1}).json()
    assert [one["id"] for one in page["letters"]] == ["l-2"]
    asked = {"name": "brittle", "limit": 1, "cursor": page["next"]}
    assert admin.get("/api/v1/dlq", params=asked).json()["letters"][0]["id"] == "l-1"
    (group,) = admin.get("/api/v1/dlq/groups?error=keyerror").json()["groups"]
    assert (group["letters"], group["error"]["type"]) == (2, "KeyError")
    letter = page["letters"][0]
    path = f"/api/v1/dlq/{letter['queue']}/{letter['partition']}/{letter['offset']}"
    whole = admin.get(path).json()
    assert (whole["args"], whole["reason"]) == ({"kind": "key"}, "failed")
    assert "KeyError" in whole["stack"]
    assert admin.get("/api/v1/dlq/default/0/999999").status_code == 404


def test_a_replay_is_previewed_then_done_in_the_background(
    stand: Stand, admin: httpx.Client
) -> None:
    die(admin, "r-1", "r-2", "r-3", kind="type")
    order = {"queue": "default", "id": ["r-1", "r-2", "r-3"]}
    preview = admin.post("/api/v1/dlq/replay", json={**order, "dry_run": True, "limit": 2})
    assert preview.status_code == 200
    assert (preview.json()["matched"], preview.json()["would_replay"]) == (3, 2)
    (stand.folder / "mended").touch()
    answer = admin.post("/api/v1/dlq/replay", json=order)
    assert answer.status_code == 202, answer.text
    where = answer.headers["location"]
    eventually(lambda: admin.get(where).json()["status"] == "done")
    job = admin.get(where).json()
    assert (job["replayed"], job["total"], job["left"]) == (3, 3, {})
    for id in order["id"]:
        eventually(lambda i=id: ended(admin, i)["status"] == "succeeded")
    listed = admin.get("/api/v1/dlq/replays").json()["replays"]
    assert job["id"] in [one["id"] for one in listed]
    eventually(lambda: admin.get("/api/v1/dlq?id=r-1").json()["letters"] == [])
    (again,) = admin.get("/api/v1/dlq?id=r-1&replayed=true").json()["letters"]
    assert again["replayed"]["replay"] == job["id"]
    (stand.folder / "mended").unlink()


def test_a_second_replay_of_a_queue_is_409_and_names_the_first(admin: httpx.Client) -> None:
    die(admin, *(f"s-{n}" for n in range(6)))
    order = {"queue": "default", "id": [f"s-{n}" for n in range(6)], "rate": 0.5}
    first = admin.post("/api/v1/dlq/replay", json=order)
    assert first.status_code == 202, first.text
    second = admin.post("/api/v1/dlq/replay", json={"queue": "default"})
    assert (second.status_code, second.json()["replay"]) == (409, first.json()["id"])
    run = admin.post("/api/v1/tasks/s-0/run")
    assert run.status_code == 409
    where = first.headers["location"]
    assert admin.get(where).json()["status"] == "running"
    eventually(lambda: admin.get(where).json()["status"] == "done", 60)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("error", "("),
        ("reason", ["bad luck"]),
        ("since", "soon"),
        ("offsets", [5, 1]),
        ("rate", 0),
        ("abort_above", 2),
        ("canary_wait", "1w"),
        ("queue", "never-made"),
        ("filter", {}),
    ],
)
def test_a_wrong_order_is_named(admin: httpx.Client, field: str, value: Any) -> None:
    answer = admin.post("/api/v1/dlq/replay", json={"dry_run": True, field: value})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].split(".")[0] == field
