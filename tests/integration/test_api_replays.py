"""Replays that a console is asked for outlive it: gone on with by the next one, each letter once;
and who asked is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from support.commands import set_environment
from support.consoles import ConsoleProcess, Stand, ended, eventually
from support.workers import runs

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

IDS = [f"k-{n}" for n in range(12)]


@pytest.fixture
def stand(broker: str, tmp_path: Path) -> Iterator[Stand]:
    """One of each test's own: its console is killed."""
    with Stand(broker, tmp_path) as one:
        yield one


def die(client: httpx.Client, ids: list[str]) -> list[dict[str, Any]]:
    """Their letters, once the store has them."""
    tasks = [{"name": "brittle", "id": id} for id in ids]
    client.post("/api/v1/tasks:batch", json={"tasks": tasks})
    for id in ids:
        assert ended(client, id)["status"] == "dead"

    def letters() -> list[dict[str, Any]]:
        return list(client.get("/api/v1/dlq?limit=500").json()["letters"])

    eventually(lambda: len(letters()) == len(ids))
    return letters()


def replays(client: httpx.Client) -> list[dict[str, Any]]:
    return list(client.get("/api/v1/dlq/replays").json()["replays"])


def test_a_replay_whose_console_is_killed_is_gone_on_with_by_the_next(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    first = stand.console.client("admin", name="ops")
    letters = die(first, IDS)
    last = max(one["offset"] for one in letters)
    # A range, too: it is known again as it was written down.
    order = {"queue": "default", "offsets": [0, last], "rate": 2}
    began = first.post("/api/v1/dlq/replay", json=order)
    assert began.status_code == 202, began.text
    job = began.json()["id"]
    where = began.headers["location"]
    (stand.folder / "mended").touch()
    eventually(lambda: first.get(where).json()["replayed"] >= 3)
    stand.console.kill()
    with ConsoleProcess(stand.settings, stand.folder) as console:
        second = console.wait_until_ready().client("admin", name="night shift")
        # Nobody runs it, and that is what is said, once its session is over.
        eventually(lambda: replays(second)[0]["status"] == "interrupted")
        (stopped,) = replays(second)
        assert (stopped["id"], stopped["who"][:11]) == (job, "ops (token ")
        assert 3 <= stopped["replayed"] < len(IDS)
        set_environment(stand.settings, monkeypatch)
        (told,) = command("dlq", "history", "--json").json["replays"]
        assert (told["status"], told["by"][:5]) == ("interrupted", "ops (")
        again = second.post("/api/v1/dlq/replay", json=order)
        assert (again.status_code, again.json()["id"]) == (202, job), again.text
        eventually(lambda: second.get(where).json()["status"] == "done", 60)
        (done,) = replays(second)
        assert (done["replayed"], done["who"][:19]) == (len(IDS), "night shift (token ")
        for id in IDS:
            eventually(lambda i=id: ended(second, i)["status"] == "succeeded")
    seen = list(runs(stand.folder))
    assert sorted(seen) == sorted(f"{id} {generation}" for id in IDS for generation in (0, 1))


def test_a_command_puts_back_what_a_killed_console_left(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    client = stand.console.client("admin")
    die(client, IDS)
    began = client.post("/api/v1/dlq/replay", json={"queue": "default", "rate": 2})
    where = began.headers["location"]
    (stand.folder / "mended").touch()
    eventually(lambda: client.get(where).json()["replayed"] >= 3)
    stand.console.kill()
    set_environment(stand.settings, monkeypatch)
    ran = command("dlq", "replay", "--yes")
    assert ran.code == 0, ran.err
    second, first = command("dlq", "history", "--json").json["replays"]
    assert (first["id"], first["status"]) == (began.json()["id"], "interrupted")
    assert (second["status"], second["by"]) == ("done", None)
    assert first["replayed"] + second["replayed"] == len(IDS)
    wanted = sorted(f"{id} {generation}" for id in IDS for generation in (0, 1))
    eventually(lambda: sorted(runs(stand.folder)) == wanted)


def test_garbage_on_the_topics_of_consoles_holds_up_nothing_else(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, command: Any
) -> None:
    client = stand.console.client("admin")
    die(client, ["g-1"])
    (stand.folder / "mended").touch()
    assert client.post("/api/v1/tasks/g-1/run").status_code == 202
    prefix = stand.settings.prefix
    producer = Producer({"bootstrap.servers": stand.settings.bootstrap_servers})
    for garbage in (b"[" * 100_000, b"{}", b"\xff", b'{"began_at": "x"}', b"null"):
        for topic in ("replays", "tokens", "replayed.default"):
            producer.produce(f"{prefix}.{topic}", garbage, key=garbage[:9])
    assert producer.flush(20) == 0
    # A token that is made after it is heard of, and what there was is told.
    client = stand.console.client("admin")
    assert [one["what"] for one in replays(client)] == ["tasks"]

    def queue() -> dict[str, Any]:
        return dict(client.get("/api/v1/queues").json()["queues"][0])

    eventually(lambda: not queue()["letters_is_exact"])
    assert queue()["letters"] == 1
    assert client.get("/readyz").status_code == 200
    set_environment(stand.settings, monkeypatch)
    assert len(command("tokens", "list", "--json").json["tokens"]) == 2
