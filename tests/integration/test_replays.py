"""Replays that are killed and gone on with, and those of finished tasks."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from support.commands import Command
from support.letters import PARTITIONS, LetterBox
from support.wire import task_value
from taskmill.consumer.admin import Admin
from taskmill.consumer.migrate import Migration

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


def test_a_killed_replay_goes_on_where_it_was(letters: LetterBox, command: Command) -> None:
    letters.add().wait_ready(PARTITIONS)
    ids = [f"task {n}" for n in range(300)]
    letters.die(ids)
    letters.mend()
    words = ("dlq", "replay", "--yes", "--json", "--rate", "100/s", "--limit", "250")
    first = subprocess.Popen([sys.executable, "-m", "taskmill", *words], cwd=letters.folder)
    while not command("dlq", "history", "--json").json["replays"][:1]:
        assert first.poll() is None
    while command("dlq", "history", "--json").json["replays"][0]["replayed"] < 100:
        assert first.poll() is None
    second = command("dlq", "replay", "--yes")
    assert second.code == 1
    assert f":{first.pid}" in second.err
    assert "one at a time" in second.err
    first.kill()
    first.wait()
    rest = command(*words).json
    assert rest["replayed"] == 250, "both together"
    assert [one["id"] for one in command("dlq", "history", "--json").json["replays"]] == [
        rest["id"]
    ]
    assert command("dlq", "replay", "--yes", "--json").json["replayed"] == 50
    letters.wait_replayed(ids)
    assert letters.generations() == {id: [0, 1] for id in ids}
    copies = Counter(
        record.key
        for record in letters.oracle.read(letters.oracle.tasks)
        if "taskmill-replay" in record.headers
    )
    assert set(copies.values()) == {1}


def test_finished_tasks_run_again_on_purpose_and_offsets_set_back_run_nothing(
    letters: LetterBox, command: Command
) -> None:
    worker = letters.add()
    worker.wait_ready(PARTITIONS)
    letters.die(["dead"])
    letters.mend()
    ids = [f"task {n}" for n in range(30)]
    letters.oracle.put_tasks(ids, "brittle", {})
    letters.oracle.put_tasks(["other"], "add", {"a": 1})
    letters.oracle.wait_states([*ids, "other"])
    letters.oracle.wait_consumed()
    worker.terminate()
    # The table says that all is done.
    reset_offsets(letters)
    worker = letters.add()
    worker.wait_ready(PARTITIONS)
    letters.oracle.wait_consumed()
    assert letters.generations() == {id: [0] for id in ("dead", *ids)}

    dry = command("replay", "--since", "1h", "--dry-run", "--json").json
    assert {(t["task"], t["status"]): t["tasks"] for t in dry["tasks"]} == {
        ("brittle", "succeeded"): 30,
        ("brittle", "dead"): 1,
        ("add", "succeeded"): 1,
    }
    assert (
        command("replay", "--since", "3h", "--until", "1h", "--yes", "--json").json["replayed"] == 0
    )
    job = command("replay", "--since", "1h", "--name", "brittle", "--json").json
    assert (job["replayed"], job["what"], job["left"]) == (31, "tasks", {})
    letters.wait_replayed(["dead", *ids])
    assert letters.generations() == {id: [0, 1] for id in ("dead", *ids)}
    assert command("dlq", "list", "--json").json["matched"] == 0, "its letter counts no more"
    until = job["until"]
    again = command("replay", "--since", "1h", "--until", until, "--yes", "--json").json
    assert again["replayed"] == 1, "only the other task is still as it was then"
    assert command("replay", "--since", "1m", "--until", "2m").code == 2


def reset_offsets(letters: LetterBox) -> None:
    """The group's offsets, back to the beginning."""
    starts = dict.fromkeys(range(PARTITIONS), 0)
    Admin(letters.settings).begin_at(letters.oracle.group, letters.oracle.tasks, starts)


def killed_midway(letters: LetterBox, command: Command, *words: str, after: int) -> int:
    """Run `taskmill` with `words`, SIGKILL it once so many are replayed; its pid."""
    first = subprocess.Popen([sys.executable, "-m", "taskmill", *words], cwd=letters.folder)

    def replayed() -> int:
        jobs = command("dlq", "history", "--json").json["replays"]
        return int(jobs[0]["replayed"]) if jobs else -1

    while replayed() < after:
        assert first.poll() is None
    first.kill()
    first.wait()
    return first.pid


def test_a_killed_replay_of_finished_tasks_runs_none_of_them_twice(
    letters: LetterBox, command: Command
) -> None:
    letters.add().wait_ready(PARTITIONS)
    letters.mend()
    ids = [f"task {n}" for n in range(60)]
    letters.oracle.put_tasks(ids, "brittle", {})
    letters.oracle.wait_states(ids)
    letters.oracle.wait_consumed()
    words = ("replay", "--since", "1h", "--until", "2100-01-01", "--rate", "20/s", "--yes")
    killed_midway(letters, command, *words, after=20)
    letters.oracle.wait_consumed()  # what it replayed has finished by now, again before --until
    again = command(*words, "--json")
    assert "going on with replay" in again.err
    assert again.json["replayed"] == 60
    letters.wait_replayed(ids)
    assert letters.generations() == {id: [0, 1] for id in ids}


def test_canaries_of_a_killed_replay_are_not_forgotten(
    letters: LetterBox, command: Command
) -> None:
    worker = letters.add()
    worker.wait_ready(PARTITIONS)
    letters.die([f"task {n}" for n in range(8)])
    assert worker.terminate() == 0
    # Nobody runs its canaries: it waits for them, and is killed.
    words = ("dlq", "replay", "--yes", "--canary", "4", "--limit", "4")
    killed_midway(letters, command, *words, after=4)
    letters.add().wait_ready(PARTITIONS)
    ran = command(*words)
    assert ran.code == 1
    assert "canaries failed again: the others were not replayed" in ran.err
    letters.oracle.wait_consumed()
    assert command("dlq", "list", "--json").json["matched"] == 8


def test_after_an_hour_the_same_words_are_another_replay(
    letters: LetterBox, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters.add().wait_ready(PARTITIONS)
    letters.die([f"task {n}" for n in range(30)])
    letters.mend()
    words = ("dlq", "replay", "--yes", "--rate", "10/s", "--limit", "25")
    killed_midway(letters, command, *words, after=10)
    monkeypatch.setattr("taskmill.consumer.replay._SAME_MS", 0)
    done = command(*words, "--json")
    assert done.json["replayed"] >= 10
    assert "going on" not in done.err
    statuses = [one["status"] for one in command("dlq", "history", "--json").json["replays"]]
    assert statuses == ["done", "interrupted"]


def test_after_a_migration_what_is_gone_is_counted(letters: LetterBox, command: Command) -> None:
    worker = letters.add()
    worker.wait_ready(PARTITIONS)
    letters.mend()
    ids = [f"task {n}" for n in range(20)]
    letters.oracle.put_tasks(ids, "brittle", {})
    letters.oracle.wait_states(ids)
    letters.oracle.wait_consumed()
    assert worker.terminate() == 0
    Migration(letters.settings, "default", print).run(3)
    job = command("replay", "--since", "1h", "--yes", "--json").json
    assert job["replayed"] + sum(job["left"].values()) == 20


def test_garbage_under_the_id_of_a_task_is_not_taken_for_it(
    letters: LetterBox, command: Command
) -> None:
    letters.add().wait_ready(PARTITIONS)
    letters.oracle.put(b"same", b"no Avro")
    letters.oracle.wait_consumed()
    assert command("dlq", "replay", "--yes", "--json").json["replayed"] == 1
    letters.mend()
    letters.oracle.put(b"same", task_value("same", "brittle", {}))
    letters.oracle.wait_states(["same"])
    letters.oracle.wait_consumed()
    assert command("replay", "--since", "1h", "--yes", "--json").json["replayed"] == 1
    letters.wait_replayed(["same"])
    assert command("dlq", "list", "--json").json["matched"] == 1, "the garbage still counts"
