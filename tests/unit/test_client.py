"""Both clients of the console against a console that is scripted: one list of tests for the two."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from support.asking import WAYS, Asking
from taskmill.console.client import Client
from taskmill.console.client.events import Follow
from taskmill.console.client.wire import Request
from taskmill.runtime.errors import ConfigError, InvalidInput, NotAllowed, Unreachable

URL = "http://console.test:8420"
ME = {"token": "t1", "scopes": ["read"], "queues": None, "expires_at": None}
Handler = Callable[[httpx.Request], httpx.Response]
pytestmark = pytest.mark.parametrize("way", WAYS)


def asking(way: str, handler: Handler, **more: Any) -> Asking:
    return Asking(way, URL, "tm_1_secret", transport=httpx.MockTransport(handler), **more)


def task(id: str, status: str = "running") -> dict[str, Any]:
    times = dict.fromkeys(("enqueued_at", "started_at", "finished_at", "next_attempt_at"))
    return {
        "id": id, "queue": "default", "name": "add", "status": status, "generation": 0, "seq": 0,
        "attempt": 1, "worker": None, **times, "error": None, "parent_id": None, "lock_key": None,
        "source_partition": 0, "source_offset": 0, "large": None, "result_expires_at": None,
        "updated_at": "2026-11-26T14:00:00.000Z",
    }  # fmt: skip


def test_the_token_goes_with_every_request_and_into_no_repr(way: str) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=ME)

    with asking(way, handler) as one:
        assert one.ask("me").scopes == ["read"]
        assert "tm_1_secret" not in repr(one.client)
        assert URL in repr(one.client)
    assert seen[0].headers["authorization"] == "Bearer tm_1_secret"
    assert seen[0].url == f"{URL}/api/v1/me"


def test_an_order_is_written_as_json_has_it(way: str) -> None:
    seen: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        preview = {"queue": "q", "matched": 0, "would_replay": 0, "fingerprints": []}
        return httpx.Response(200, json=preview)

    order = {"queue": "q", "reason": ["failed", "timed_out"], "offsets": [0, 5], "rate": 2}
    with asking(way, handler) as one:
        one.ask("preview_replay", **order)
        for field, value in (("reason", ["bad luck"]), ("offsets", [1]), ("rate", "2")):
            with pytest.raises(InvalidInput, match=field):
                one.ask("preview_replay", **{**order, field: value})
    (told,) = seen
    assert {name: told[name] for name in order} == order
    assert told["dry_run"] is True


def test_pages_are_loaded_as_they_are_reached(way: str) -> None:
    asked: list[list[tuple[str, str]]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.multi_items())
        number = int(request.url.params.get("cursor", "0"))
        following = str(number + 1) if number < 2 else None
        tasks = [task(f"{number}-{n}") for n in range(2)]
        body = {"tasks": tasks, "next": following, "as_of": "2026-11-26T14:00:00.000Z"}
        return httpx.Response(200, json=body)

    with asking(way, handler) as one:
        ids = [found.id for found in one.take("tasks", status="dead", queue=["a", "b"])]
        assert ids == ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]
        assert len(asked) == 3
        one.take("tasks", 2)
    assert len(asked) == 4
    assert asked[1] == [
        ("status", "dead"), ("queue", "a"), ("queue", "b"), ("limit", "100"), ("cursor", "1"),
    ]  # fmt: skip


def test_a_console_that_comes_back_is_not_noticed(way: str) -> None:
    replies: list[Any] = [httpx.ConnectError("refused"), httpx.ReadError("cut")]

    def handler(request: httpx.Request) -> httpx.Response:
        if replies:
            raise replies.pop(0)
        return httpx.Response(200, json=ME)

    with asking(way, handler) as one:
        assert one.ask("me").token == "t1"
    assert not replies


def test_a_console_that_does_not_come_back_is_unreachable(way: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("")

    with asking(way, handler, timeout_s=0.2) as one, pytest.raises(Unreachable, match=URL) as got:
        one.ask("me")
    assert "ConnectTimeout" in str(got.value)


def test_a_stream_goes_on_behind_the_last_event_where_it_was_lost(way: str) -> None:
    asked: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("last-event-id"))
        if len(asked) == 2:
            raise httpx.ConnectError("refused")
        number = len(asked)
        text = f"retry: 10\nid: s-{number}\nevent: hello\ndata: {{}}\n\n: beat\n\n"
        status = "running" if number == 1 else "succeeded"
        event = json.dumps(task(f"t{number}", status))
        text += f"id: s-{number}0\nevent: task\ndata: {event}\n\nid: s-half\nevent: task\nda"
        return httpx.Response(200, text=text)

    with asking(way, handler) as one:
        events = one.take("stream", until="succeeded", queue="default")
    assert asked == [None, "s-10", "s-10"]
    assert [(e.kind, e.id, e.task and e.task.id) for e in events] == [
        ("hello", "s-1", None), ("task", "s-10", "t1"),
        ("hello", "s-3", None), ("task", "s-30", "t3"),
    ]  # fmt: skip


def test_a_stream_ends_where_the_token_no_longer_counts_or_nobody_is_there(way: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        problem = {"type": "x", "title": "t", "status": 401, "detail": "revoked", "request_id": "r"}
        return httpx.Response(401, json=problem)

    with asking(way, handler) as one, pytest.raises(NotAllowed, match="revoked"):
        one.take("stream")

    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with asking(way, away, timeout_s=0.2) as one, pytest.raises(Unreachable, match="refused"):
        one.take("stream")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://host", "is no address of a console"),
        ("http://", "is no address"),
        ("http://h:port", "is no address"),
        ("http://h?a=1", "has no"),
        ("http://me:hunter2@h", "a token"),
    ],
)
def test_an_address_that_is_none_is_one_line(way: str, url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        Asking(way, url)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("given", [URL, f"{URL}/", f"{URL}/api/v1", f"{URL}/api/v1/"])
def test_an_address_may_be_written_with_its_end(way: str, given: str) -> None:
    with Asking(way, given) as one:
        assert one.client.address == URL


def test_events_are_the_same_in_whatever_pieces_they_come(way: str) -> None:
    text = "id: s-1\r\nevent: task\r\n" + f"data: {json.dumps(task('ü'))}\r\n\r\nid: s-2\n\n"
    data = text.encode()
    whole = Follow(Request("GET", "/")).feed(data)
    follow, found = Follow(Request("GET", "/")), []
    for n in range(len(data)):
        found += follow.feed(data[n : n + 1])
    assert found == whole
    assert [one.task.id for one in found if one.task] == ["ü"]
    assert dict(follow.request.headers)["last-event-id"] == "s-2"


def test_without_httpx_there_is_one_line(way: str) -> None:
    script = (
        "import sys; sys.modules['httpx'] = None\n"
        "from taskmill.console.client import AsyncClient, Client\n"
        f"kind = {'Client' if way == 'threads' else 'AsyncClient'}\n"
        "try: kind('http://h')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print([m for m in ('fastapi', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "ConfigError to ask a console, httpx is needed: pip install 'taskmill[client]'",
        "[]",
    ], done.stderr


def test_a_class_of_the_client_shows_its_calls(way: str) -> None:
    assert "returns once Kafka has acknowledged" in (Client.enqueue.__doc__ or "")
