"""Dead letters from the command line: looked at, counted, replayed once each, whatever dies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.commands import Ran, runner, set_environment
from support.queues import Queue
from support.wire import read_task, task_value
from support.workers import runs
from taskmill.consumer.admin import Admin
from taskmill.runtime.config import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

PARTITIONS = 2


class Scene(Queue):
    """A queue whose brittle tasks can be made dead, and mended."""

    def die(self, ids: list[str], kind: str = "", **headers: bytes) -> None:
        """Put tasks of these IDs, and wait until they are dead."""
        for id in ids:
            value = task_value(id, "brittle", {"kind": kind})
            self.oracle.put(id.encode(), value, headers=headers)
        self.oracle.wait_states(ids)

    def mend(self) -> None:
        (self.folder / "mended").touch()

    def generations(self) -> dict[str, list[int]]:
        """In which generations each ID ran, in order."""
        found: dict[str, list[int]] = {}
        for line in runs(self.folder):
            id, _, generation = line.rpartition(" ")
            found.setdefault(id, []).append(int(generation))
        return found

    def wait_replayed(self, ids: list[str], generation: int = 1) -> None:
        """Wait until these ran in that generation, and that is committed."""
        self.oracle.wait_consumed()
        for id in ids:
            states = self.oracle.states()[id.encode()]
            assert [s["status"] for s in states if s["generation"] == generation] == ["succeeded"]


@pytest.fixture
def scene(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    set_environment(settings, monkeypatch)
    with Scene(settings, tmp_path) as one:
        yield one


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    return runner(capsys)


def test_letters_are_listed_filtered_shown_and_counted(
    scene: Scene, run: Callable[..., Ran]
) -> None:
    scene.add().wait_ready(PARTITIONS)
    empty = run("dlq", "stats")
    assert (empty.code, empty.out, empty.err) == (0, "", "0 letters in queue 'default'\n")
    scene.die(["a", "b"])
    scene.die(["c"], "key")
    scene.oracle.put(b"garbage", b"no Avro")
    scene.oracle.put_tasks(["d"], "nobody")
    scene.oracle.wait_consumed()

    def listed(*options: str) -> set[str]:
        return {one["id"] for one in run("dlq", "list", "--json", *options).json["letters"]}

    everything = run("dlq", "list", "--json").json
    assert (everything["queue"], everything["matched"]) == ("default", 5)
    of_c = next(one for one in everything["letters"] if one["id"] == "c")
    place = of_c["partition"], of_c["offset"]
    assert (of_c["task"], of_c["reason"], of_c["attempts"]) == ("brittle", "failed", 1)
    assert of_c["error"]["type"] == "KeyError"
    assert listed("--name", "brittle") == {"a", "b", "c"}
    assert listed("--reason", "undecodable", "--reason", "unknown_task") == {"garbage", "d"}
    assert listed("--error", "^ValueError: brok") == {"a", "b"}
    assert listed("--fingerprint", of_c["error"]["fingerprint"][:8]) == {"c"}
    assert listed("--id", "a", "--id", "d") == {"a", "d"}
    assert listed("--since", "1h") == {"a", "b", "c", "d", "garbage"}
    assert listed("--until", "1h") == set()
    assert listed("--since", of_c["at"], "--until", "2100-01-01") >= {"c"}
    offsets = f"{place[1]}-{place[1]}"
    assert listed("--partition", str(place[0]), "--offsets", offsets) == {"c"}
    assert len(run("dlq", "list", "--json", "--limit", "2").json["letters"]) == 2

    (shown,) = run("dlq", "show", "c", "--json").json["letters"]
    assert shown["record"]["payload"] == {"kind": "key"}
    assert "in brittle" in shown["stack"]
    assert shown["original"]["topic"] == scene.oracle.tasks
    (garbage,) = run("dlq", "show", "garbage", "--json").json["letters"]
    assert (garbage["record"], garbage["value_base64"]) == (None, "bm8gQXZybw==")
    assert "broken" in run("dlq", "show", "c").out
    assert run("dlq", "show", "nobody-there").code == 1

    stats = run("dlq", "stats", "--json").json
    assert stats["letters"] == 5
    assert {one["reason"]: one["letters"] for one in stats["reasons"]} == {
        "failed": 3,
        "undecodable": 1,
        "unknown_task": 1,
    }
    assert {one["task"]: one["letters"] for one in stats["tasks"]} == {
        "brittle": 3,
        "nobody": 1,
        "-": 1,
    }
    assert [one["letters"] for one in stats["fingerprints"]] == [2, 1, 1, 1]
    assert "██" in run("dlq", "stats").out


def test_a_replay_is_byte_for_byte_a_new_generation_and_once(
    scene: Scene, run: Callable[..., Ran]
) -> None:
    scene.add().wait_ready(PARTITIONS)
    ids = [f"task {n}" for n in range(20)]
    scene.die(ids, **{"x-own": b"kept"})
    before = {record.key: record for record in scene.oracle.read(scene.oracle.tasks)}
    scene.mend()
    dry = run("dlq", "replay", "--dry-run", "--json").json
    assert (dry["matched"], [one["letters"] for one in dry["fingerprints"]]) == (20, [20])
    refused = run("dlq", "replay")
    assert (refused.code, refused.err) == (
        2,
        "taskmill dlq replay: nobody is here to be asked: add --yes\n",
    )
    job = run("dlq", "replay", "--yes", "--json").json
    assert (job["replayed"], job["status"], job["left"]) == (20, "done", {})
    scene.wait_replayed(ids)
    assert scene.generations() == {id: [0, 1] for id in ids}
    again = [r for r in scene.oracle.read(scene.oracle.tasks) if "taskmill-replay" in r.headers]
    for record in again:
        assert (record.value, record.partition) == (
            before[record.key].value,
            before[record.key].partition,
        )
        assert record.headers["taskmill-generation"] == b"1"
        assert record.headers["taskmill-replay"] == job["id"].encode()
        assert record.headers["x-own"] == b"kept"
        assert not {"taskmill-error-stack", "taskmill-reason", "taskmill-task"} & set(
            record.headers
        )
    # They no longer count, and stay.
    assert run("dlq", "list", "--json").json["matched"] == 0
    kept = run("dlq", "list", "--all", "--json").json
    assert {one["replayed"]["replay"] for one in kept["letters"]} == {job["id"]}
    assert run("dlq", "replay", "--yes", "--json").json["replayed"] == 0
    # Asked for once more, on purpose, they do run: as a generation of their own.
    assert run("dlq", "replay", "--yes", "--all", "--id", ids[0], "--json").json["replayed"] == 1
    scene.wait_replayed([ids[0]], 2)
    history = run("dlq", "history", "--json").json["replays"]
    assert [one["replayed"] for one in history] == [1, 0, 20]
    assert history[-1]["id"] == job["id"]
    assert history[0]["asked"] == {"all": True, "id": [ids[0]]}
    assert str(os.getpid()) in history[0]["who"]
    assert "--all --id" in run("dlq", "history").out


def test_what_dies_again_is_a_letter_again_and_counts(
    scene: Scene, run: Callable[..., Ran]
) -> None:
    scene.add().wait_ready(PARTITIONS)
    scene.die(["one"])
    for generation in (1, 2):
        assert run("dlq", "replay", "--yes", "--json").json["replayed"] == 1
        scene.oracle.wait_consumed()
        letters = run("dlq", "list", "--json").json
        assert letters["matched"] == 1, generation
    scene.mend()
    assert run("dlq", "replay", "--yes", "--json").json["replayed"] == 1
    scene.wait_replayed(["one"], 3)
    assert scene.generations() == {"one": [0, 1, 2, 3]}
    letters = [letter.headers for letter in scene.oracle.letters()]
    assert {one["taskmill-original-offset"] for one in letters} == {
        letters[0]["taskmill-original-offset"]
    }


def test_what_expired_is_given_its_time_anew(scene: Scene, run: Callable[..., Ran]) -> None:
    now = 1_000_000
    value = task_value("late", "brittle", {"good": True}, enqueued_at=now, deadline=now + 60_000)
    scene.oracle.put(b"late", value)
    scene.add().wait_ready(PARTITIONS)
    assert scene.oracle.wait_state("late")["status"] == "dead"
    assert run("dlq", "list", "--json").json["letters"][0]["reason"] == "expired"
    assert run("dlq", "replay", "--reason", "expired", "--yes", "--json").json["replayed"] == 1
    scene.wait_replayed(["late"])
    last = scene.oracle.states()[b"late"][-1]
    assert last["enqueued_at"] > now, "it was enqueued again"


def test_undecodable_letters_are_replayed_too_and_one_stands_for_no_other(
    scene: Scene, run: Callable[..., Ran]
) -> None:
    worker = scene.add()
    worker.wait_ready(PARTITIONS)
    for _ in range(2):
        scene.oracle.put(b"same", b"no Avro")
    scene.oracle.put(None, b"no key")
    scene.oracle.wait_consumed()
    first = run("dlq", "list", "--id", "same", "--json").json["letters"][0]
    where = ("--partition", str(first["partition"]), "--offsets", str(first["offset"]))
    assert run("dlq", "replay", *where, "--yes", "--json").json["replayed"] == 1
    scene.oracle.wait_consumed()
    assert run("dlq", "list", "--json").json["matched"] == 3, "one replayed, and dead again"
    assert run("dlq", "replay", "--yes", "--json").json["replayed"] == 3
    scene.oracle.wait_consumed()
    assert run("dlq", "list", "--json").json["matched"] == 3
    assert len(scene.oracle.letters()) == 7


def test_a_letter_that_is_not_whole_is_left_and_named(
    settings: Settings, scene: Scene, run: Callable[..., Ran]
) -> None:
    scene.add().wait_ready(PARTITIONS)
    scene.oracle.put(b"k" * 300_000, b"")
    scene.die(["whole"])
    scene.mend()
    scene.oracle.wait_consumed()
    ran = run("dlq", "replay", "--yes")
    assert ran.code == 0
    assert "left out 1 record: not whole" in ran.err
    assert "replayed 1 record" in ran.err
    assert run("dlq", "list", "--json").json["matched"] == 1


def test_canaries_that_fail_again_end_a_replay_and_good_ones_let_it_go_on(
    scene: Scene, run: Callable[..., Ran]
) -> None:
    scene.add().wait_ready(PARTITIONS)
    scene.die([f"task {n}" for n in range(12)])
    canary = ("--canary", "4", "--abort-above", "20%")
    bad = run("dlq", "replay", "--yes", *canary)
    assert bad.code == 1
    assert "4 canaries failed again: the others were not replayed" in bad.err or (
        "of 4 canaries failed again" in bad.err
    )
    scene.oracle.wait_consumed()
    assert run("dlq", "list", "--json").json["matched"] == 12, "8 of before, 4 that died again"
    (aborted,) = run("dlq", "history", "--json").json["replays"]
    assert (aborted["status"], aborted["replayed"]) == ("aborted", 4)
    scene.mend()
    good = run("dlq", "replay", "--yes", "--json", *canary).json
    assert (good["replayed"], good["canary"]) == (12, {"succeeded": 4})
    scene.oracle.wait_consumed()
    assert run("dlq", "list", "--json").json["matched"] == 0
    late = run("dlq", "replay", "--all", "--yes", *canary, "--limit", "2", "--canary-wait", "1ms")
    assert late.code == 1
    assert "canaries have no outcome after 0.001 s" in late.err or "failed again" in late.err


def test_a_killed_replay_goes_on_where_it_was(scene: Scene, run: Callable[..., Ran]) -> None:
    scene.add().wait_ready(PARTITIONS)
    ids = [f"task {n}" for n in range(300)]
    scene.die(ids)
    scene.mend()
    command = [sys.executable, "-m", "taskmill", "dlq", "replay", "--yes", "--json"]
    options = ["--rate", "100/s", "--limit", "250"]
    first = subprocess.Popen([*command, *options], cwd=scene.folder)
    while not run("dlq", "history", "--json").json["replays"][:1]:
        assert first.poll() is None
    while run("dlq", "history", "--json").json["replays"][0]["replayed"] < 100:
        assert first.poll() is None
    second = run("dlq", "replay", "--yes")
    assert second.code == 1
    assert f":{first.pid}" in second.err
    assert "one at a time" in second.err
    first.kill()
    first.wait()
    rest = run("dlq", "replay", "--yes", "--json", "--rate", "100/s", "--limit", "250").json
    assert rest["replayed"] == 250, "both together"
    assert [one["id"] for one in run("dlq", "history", "--json").json["replays"]] == [rest["id"]]
    assert run("dlq", "replay", "--yes", "--json").json["replayed"] == 50
    scene.wait_replayed(ids)
    assert scene.generations() == {id: [0, 1] for id in ids}
    copies = Counter(
        record.key
        for record in scene.oracle.read(scene.oracle.tasks)
        if "taskmill-replay" in record.headers
    )
    assert set(copies.values()) == {1}


def test_one_argument_is_mended_in_an_editor(
    scene: Scene, run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scene.add().wait_ready(PARTITIONS)
    scene.die(["one", "two"])
    editor = tmp_path / "editor"

    def edits(text: str) -> None:
        editor.write_text(f"#!/bin/sh\ncat > $1 <<'E'\n{text}\nE\n")
        editor.chmod(0o755)

    monkeypatch.setenv("EDITOR", str(editor))
    app = ("-A", "support.jobs:app")
    edits('{"good": 3}')
    wrong = run("dlq", "replay", "--id", "one", "--edit", "--yes", *app)
    assert (wrong.code, "argument 'good'" in wrong.err) == (2, True), wrong.err
    edits('{"good": true')
    assert "what was edited is no JSON" in run("dlq", "replay", "--id", "one", "--edit").err
    edits('{"good": true}')
    many = run("dlq", "replay", "--edit", "--yes")
    assert (many.code, "--edit is for one letter, and more than one" in many.err) == (2, True)
    done = run("dlq", "replay", "--id", "one", "--edit", "--yes", *app, "--json").json
    assert done["replayed"] == 1
    scene.wait_replayed(["one"])
    values = [read_task(r.value or b"") for r in scene.oracle.read(scene.oracle.tasks)]
    first, second = (one for one in values if one["id"] == "one")
    assert second == {**first, "payload": b'{"good":true}'}
    assert run("dlq", "list", "--json").json["matched"] == 1
    monkeypatch.setenv("EDITOR", "true")
    assert run("dlq", "replay", "--id", "two", "--edit", "--yes").code == 130


def test_finished_tasks_run_again_on_purpose_and_offsets_set_back_run_nothing(
    scene: Scene, run: Callable[..., Ran]
) -> None:
    worker = scene.add()
    worker.wait_ready(PARTITIONS)
    scene.die(["dead"])
    scene.mend()
    ids = [f"task {n}" for n in range(30)]
    scene.oracle.put_tasks(ids, "brittle", {})
    scene.oracle.put_tasks(["other"], "add", {"a": 1})
    scene.oracle.wait_states([*ids, "other"])
    scene.oracle.wait_consumed()
    worker.terminate()
    # The table says that all is done.
    reset_offsets(scene)
    worker = scene.add()
    worker.wait_ready(PARTITIONS)
    scene.oracle.wait_consumed()
    assert scene.generations() == {id: [0] for id in ("dead", *ids)}

    dry = run("replay", "--since", "1h", "--dry-run", "--json").json
    assert {(t["task"], t["status"]): t["tasks"] for t in dry["tasks"]} == {
        ("brittle", "succeeded"): 30,
        ("brittle", "dead"): 1,
        ("add", "succeeded"): 1,
    }
    assert run("replay", "--since", "3h", "--until", "1h", "--yes", "--json").json["replayed"] == 0
    job = run("replay", "--since", "1h", "--name", "brittle", "--yes", "--json").json
    assert (job["replayed"], job["what"], job["left"]) == (31, "tasks", {})
    scene.wait_replayed(["dead", *ids])
    assert scene.generations() == {id: [0, 1] for id in ("dead", *ids)}
    assert run("dlq", "list", "--json").json["matched"] == 0, "its letter counts no more"
    until = job["until"]
    again = run("replay", "--since", "1h", "--until", until, "--yes", "--json").json
    assert again["replayed"] == 1, "only the other task is still as it was then"
    assert run("replay", "--since", "1m", "--until", "2m").code == 2


def reset_offsets(scene: Scene) -> None:
    """The group's offsets, back to the beginning."""
    starts = dict.fromkeys(range(PARTITIONS), 0)
    Admin(scene.settings).begin_at(scene.oracle.group, scene.oracle.tasks, starts)


def test_a_letter_that_the_dlq_does_not_take_holds_the_commit_until_it_does(
    scene: Scene,
) -> None:
    worker = scene.add()
    worker.wait_ready(PARTITIONS)
    admin = Admin(scene.settings)
    admin.set_configs(scene.oracle.dlq, {"max.message.bytes": "100"})
    scene.oracle.put_tasks(["one"], "brittle", {})
    worker.wait_for("transaction aborted|given up before its commit", times=3)
    assert not scene.oracle.letters()
    assert not [s for s in scene.oracle.states().get(b"one", ()) if s["status"] == "dead"]
    assert not scene.oracle.committed().get(0)
    admin.set_configs(scene.oracle.dlq, {"max.message.bytes": None})
    assert scene.oracle.wait_state("one")["status"] == "dead"
    scene.oracle.check(["one"])
    assert len(scene.oracle.letters()) == 1
