"""Foreign clients: those of examples/clients enqueue, beside ours, and each ID runs once."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import clients
from support.brokers import quiet_port
from support.oracle import Oracle
from support.wire import partition_of, read_task
from support.workers import WorkerProcess, runs
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

#: No power of two: for such a count, more partitioners than murmur2's agree with it by chance.
PARTITIONS = 6

#: IDs of one to four UTF-8 bytes a character, and of every length modulo murmur2's word.
IDS = (
    *("a", "receipt:1", "customer/7?x=1 %", "é", "naïve café", "☃☃", "日本語のタスク", "𝄞 clef"),
    *("0192d3a4-7c1e-7def-8000-0123456789ab", "Ω", "quote'\"s", "x" * 200),
)
TASKS = {id: {"text": f"{id} — \n\\"} for id in IDS}

APP = """
from pathlib import Path
from taskmill import App, Context

app = App("clients")

@app.task
async def seen(ctx: Context, text: str) -> dict:
    with Path("runs").open("a", encoding="utf-8") as file:
        file.write(f"{ctx.id}\\n")
    return {"right": text == f"{ctx.id} \\u2014 \\n\\\\", "client": ctx.headers.get("client")}
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    changed = {"partitions": PARTITIONS, "metrics_port": quiet_port()}
    settings = Settings(**{**settings.model_dump(), **changed})
    ensure(settings, "default")
    clients.taskmill(settings, "schemas", "export", ".")
    return settings


@pytest.mark.parametrize("client", clients.ALL, ids=lambda c: c.heading)
def test_an_example_is_one_file_of_at_most_sixty_lines(client: clients.Client) -> None:
    text = client.source.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert "import taskmill" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_no_lock_file_names_a_registry() -> None:
    lock = json.loads((clients.CLIENTS / "node" / "package-lock.json").read_text())
    assert len(lock["packages"]) > 2
    for package in lock["packages"].values():
        assert "resolved" not in package
    assert "<repositor" not in (clients.CLIENTS / "java" / "pom.xml").read_text()
    assert "replace" not in (clients.CLIENTS / "go" / "go.mod").read_text()


@pytest.mark.kafka
@pytest.mark.timeout(clients.BUILD_LIMIT_S + clients.RUN_LIMIT_S)
@pytest.mark.parametrize("client", clients.ALL, ids=lambda c: c.heading)
def test_a_client_puts_a_task_on_the_partition_of_its_key(
    settings: Settings, client: clients.Client
) -> None:
    oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
    before_ms = time.time_ns() // 1_000_000
    client.enqueue(settings, oracle.tasks, "seen", TASKS)
    records = oracle.read(oracle.tasks)
    assert sorted(r.key.decode() for r in records if r.key) == sorted(IDS)
    for record in records:
        assert record.key is not None
        assert record.value is not None
        assert record.partition == partition_of(record.key, PARTITIONS)
        task = read_task(record.value)
        assert before_ms <= task.pop("enqueued_at") <= time.time_ns() // 1_000_000
        assert json.loads(task.pop("payload")) == TASKS[record.key.decode()]
        headers = record.headers.get("client", b"").decode()
        assert task.pop("headers") in ({}, {"client": headers})
        assert task == {
            "id": record.key.decode(),
            "name": "seen",
            "content_type": "application/json",
            **dict.fromkeys(("attempt",), 1),
            **dict.fromkeys(("generation", "seq"), 0),
            **dict.fromkeys(("not_before", "expires_at", "deadline", "timeout_ms")),
            **dict.fromkeys(("max_attempts", "lock_key", "parent_id")),
        }


@pytest.mark.kafka
@pytest.mark.timeout(5 * clients.BUILD_LIMIT_S)
@pytest.mark.parametrize("misled", [False, True], ids=["murmur2", "partitioners of their own"])
def test_the_same_ids_from_every_client_at_once_run_once(
    settings: Settings, tmp_path: Path, misled: bool
) -> None:
    for client in clients.ALL:
        client.built()
    (tmp_path / "client_tasks.py").write_text(APP, encoding="utf-8")
    oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
    with WorkerProcess(settings, tmp_path, target="client_tasks:app") as worker:
        worker.wait_ready(PARTITIONS)
        with ThreadPoolExecutor() as pool:
            enqueuing = [
                pool.submit(c.enqueue, settings, oracle.tasks, "seen", TASKS, misled=misled)
                for c in clients.ALL
            ]
            (tmp_path / "tasks.jsonl").write_text(clients.lines(TASKS), encoding="utf-8")
            clients.taskmill(settings, "enqueue", "seen", "--from", "tasks.jsonl")
            for one in enqueuing:
                one.result()
        states = oracle.wait_states(IDS)
        oracle.wait_consumed()
        duplicates = scrape(settings, "taskmill_duplicates_total")
        assert worker.terminate() == 0

    assert sorted(runs(tmp_path)) == sorted(IDS)
    oracle.check(IDS)
    assert set(oracle.states()) == {id.encode() for id in IDS}
    names = {"java", "go", "node", "kcat", "python"}
    for key, state in states.items():
        assert state["status"] == "succeeded", (key, state)
        result = json.loads(state["result"])
        assert result["right"], key
        assert result["client"] in {*names, None}

    records = oracle.read(oracle.tasks)
    # Each misplaced record has its copy where it belongs; ours and Python's have no such header.
    astray = [r for r in records if r.partition != partition_of(r.key or b"", PARTITIONS)]
    of_clients = Counter(r.headers.get("client", b"python").decode() for r in astray)
    assert set(of_clients) == (names if misled else set()), of_clients
    assert len(records) == (len(clients.ALL) + 1) * len(IDS) + len(astray)
    assert duplicates == len(clients.ALL) * len(IDS)


def scrape(settings: Settings, metric: str) -> float:
    """The worker's value of `metric`, over all labels."""
    url = f"http://127.0.0.1:{settings.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return sum(map(float, re.findall(rf"^{metric}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)))
