"""Server-sent events: what changes, as it changes; gone on with after a break."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from support.consoles import Stand, ended, events, eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

STREAM = "/api/v1/tasks/stream"


@pytest.fixture
def admin(stand: Stand) -> httpx.Client:
    return stand.console.client("admin")


def enqueue(client: httpx.Client, id: str, name: str = "add", **args: Any) -> None:
    task = {"name": name, "args": args or {"a": 1}, "id": id}
    assert client.post("/api/v1/tasks", json=task).status_code == 202


def test_changes_come_as_they_happen(admin: httpx.Client) -> None:
    with admin.stream("GET", STREAM) as response:
        found = events(response)
        kind, first, _ = next(found)
        assert kind == "hello"
        enqueue(admin, "seen")
        for kind, id, data in found:
            assert (kind, id.rpartition("-")[0]) == ("task", first.rpartition("-")[0])
            if data["id"] == "seen" and data["status"] == "succeeded":
                break


def test_a_stream_goes_on_where_it_was(admin: httpx.Client) -> None:
    with admin.stream("GET", STREAM) as response:
        _, last, _ = next(events(response))
    for n in range(20):
        enqueue(admin, f"missed-{n}")
    for n in range(20):
        ended(admin, f"missed-{n}")
    enqueue(admin, "behind")
    got: set[str] = set()
    numbers = []
    with admin.stream("GET", STREAM, headers={"Last-Event-ID": last}) as response:
        for kind, id, data in events(response):
            if kind == "task":
                numbers.append(int(id.rpartition("-")[2]))
                got.add(data["id"])
            if {f"missed-{n}" for n in range(20)} | {"behind"} <= got:
                break
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("said", ["nonsense", "other-store-5", "x-99999999999999999999"])
def test_what_cannot_be_gone_on_with_says_so(admin: httpx.Client, said: str) -> None:
    with admin.stream("GET", STREAM, headers={"Last-Event-ID": said}) as response:
        assert next(events(response))[0] == "reset"


def test_a_number_of_the_future_is_none(admin: httpx.Client) -> None:
    with admin.stream("GET", STREAM) as response:
        store = next(events(response))[2]["store"]
    with admin.stream("GET", STREAM, headers={"Last-Event-ID": f"{store}-999999"}) as response:
        assert next(events(response))[0] == "reset"


def test_filters_hold(admin: httpx.Client) -> None:
    asked = {"status": ["dead"], "name": ["fails", "add"]}
    with admin.stream("GET", STREAM, params=asked) as response:
        found = events(response)
        next(found)
        enqueue(admin, "good")
        enqueue(admin, "bad", "fails", message="x")
        kind, _, data = next(found)
        assert (kind, data["id"], data["status"]) == ("task", "bad", "dead")


def test_a_console_that_ends_lets_streams_and_waits_go(stand: Stand, admin: httpx.Client) -> None:
    """Last in this file: the console is gone then."""
    enqueue(admin, "waits", "nap", ms=30_000)
    eventually(lambda: admin.get("/api/v1/tasks/waits").status_code == 200)
    with admin.stream("GET", STREAM) as response:
        found = response.iter_lines()
        next(found)
        stand.console.signal(15)
        for _ in found:
            pass
    assert stand.console.process.wait(20) == 0
