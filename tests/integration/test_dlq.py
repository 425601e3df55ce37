"""Dead letters from the command line: looked at, counted, replayed once each, whatever dies."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from support.commands import Command
from support.letters import PARTITIONS, LetterBox
from support.oracle import Put
from support.queues import Queue
from support.wire import read_task, task_value
from taskmill.consumer.admin import Admin
from taskmill.runtime.config import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


def test_letters_are_listed_filtered_shown_and_counted(
    letters: LetterBox, command: Command
) -> None:
    letters.add().wait_ready(PARTITIONS)
    empty = command("dlq", "stats")
    assert (empty.code, empty.out, empty.err) == (0, "", "0 letters in queue 'default'\n")
    letters.die(["a", "b"])
    letters.die(["c"], "key")
    letters.oracle.put(b"garbage", b"no Avro")
    letters.oracle.put_tasks(["d"], "nobody")
    letters.oracle.wait_consumed()

    def listed(*options: str) -> set[str]:
        return {one["id"] for one in command("dlq", "list", "--json", *options).json["letters"]}

    everything = command("dlq", "list", "--json").json
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
    assert len(command("dlq", "list", "--json", "--limit", "2").json["letters"]) == 2

    (shown,) = command("dlq", "show", "c", "--json").json["letters"]
    assert shown["record"]["payload"] == {"kind": "key"}
    assert "in brittle" in shown["stack"]
    assert shown["original"]["topic"] == letters.oracle.tasks
    (garbage,) = command("dlq", "show", "garbage", "--json").json["letters"]
    assert (garbage["record"], garbage["value_base64"]) == (None, "bm8gQXZybw==")
    assert "broken" in command("dlq", "show", "c").out
    assert command("dlq", "show", "nobody-there").code == 1

    stats = command("dlq", "stats", "--json").json
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
    assert "██" in command("dlq", "stats").out


def test_a_replay_is_byte_for_byte_a_new_generation_and_once(
    letters: LetterBox, command: Command
) -> None:
    letters.add().wait_ready(PARTITIONS)
    ids = [f"task {n}" for n in range(20)]
    letters.die(ids, **{"x-own": b"kept"})
    before = {record.key: record for record in letters.oracle.read(letters.oracle.tasks)}
    letters.mend()
    dry = command("dlq", "replay", "--dry-run", "--json").json
    assert (dry["matched"], [one["letters"] for one in dry["fingerprints"]]) == (20, [20])
    refused = command("dlq", "replay")
    assert (refused.code, refused.err) == (
        2,
        "taskmill dlq replay: nobody is here to be asked: add --yes\n",
    )
    job = command("dlq", "replay", "--yes", "--json").json
    assert (job["replayed"], job["status"], job["left"]) == (20, "done", {})
    letters.wait_replayed(ids)
    assert letters.generations() == {id: [0, 1] for id in ids}
    copies = [
        r for r in letters.oracle.read(letters.oracle.tasks) if "taskmill-replay" in r.headers
    ]
    for record in copies:
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
    assert command("dlq", "list", "--json").json["matched"] == 0
    kept = command("dlq", "list", "--all", "--json").json
    assert {one["replayed"]["replay"] for one in kept["letters"]} == {job["id"]}
    assert command("dlq", "replay", "--yes", "--json").json["replayed"] == 0
    # Asked for once more, on purpose, they do run: as a generation of their own.
    assert (
        command("dlq", "replay", "--yes", "--all", "--id", ids[0], "--json").json["replayed"] == 1
    )
    letters.wait_replayed([ids[0]], 2)
    history = command("dlq", "history", "--json").json["replays"]
    assert [one["replayed"] for one in history] == [1, 0, 20]
    assert history[-1]["id"] == job["id"]
    assert history[0]["asked"] == {"all": True, "id": [ids[0]]}
    assert str(os.getpid()) in history[0]["who"]
    assert "--all --id" in command("dlq", "history").out


def test_what_dies_again_is_a_letter_again_and_counts(letters: LetterBox, command: Command) -> None:
    letters.add().wait_ready(PARTITIONS)
    letters.die(["one"])
    for generation in (1, 2):
        assert command("dlq", "replay", "--yes", "--json").json["replayed"] == 1
        letters.oracle.wait_consumed()
        listed = command("dlq", "list", "--json").json
        assert listed["matched"] == 1, generation
    letters.mend()
    assert command("dlq", "replay", "--yes", "--json").json["replayed"] == 1
    letters.wait_replayed(["one"], 3)
    assert letters.generations() == {"one": [0, 1, 2, 3]}
    headers = [letter.headers for letter in letters.oracle.letters()]
    assert len({one["taskmill-original-offset"] for one in headers}) == 1


def test_what_expired_is_given_its_time_anew(letters: LetterBox, command: Command) -> None:
    now = 1_000_000
    value = task_value("late", "brittle", {"good": True}, enqueued_at=now, deadline=now + 60_000)
    letters.oracle.put(b"late", value)
    letters.add().wait_ready(PARTITIONS)
    assert letters.oracle.wait_state("late")["status"] == "dead"
    assert command("dlq", "list", "--json").json["letters"][0]["reason"] == "expired"
    assert command("dlq", "replay", "--reason", "expired", "--yes", "--json").json["replayed"] == 1
    letters.wait_replayed(["late"])
    last = letters.oracle.states()[b"late"][-1]
    assert last["enqueued_at"] > now, "it was enqueued again"


def test_undecodable_letters_are_replayed_too_and_one_stands_for_no_other(
    letters: LetterBox, command: Command
) -> None:
    worker = letters.add()
    worker.wait_ready(PARTITIONS)
    for _ in range(2):
        letters.oracle.put(b"same", b"no Avro")
    letters.oracle.put(None, b"no key")
    letters.oracle.wait_consumed()
    first = command("dlq", "list", "--id", "same", "--json").json["letters"][0]
    where = ("--partition", str(first["partition"]), "--offsets", str(first["offset"]))
    assert command("dlq", "replay", *where, "--yes", "--json").json["replayed"] == 1
    letters.oracle.wait_consumed()
    assert command("dlq", "list", "--json").json["matched"] == 3, "one replayed, and dead again"
    assert command("dlq", "replay", "--yes", "--json").json["replayed"] == 3
    letters.oracle.wait_consumed()
    assert command("dlq", "list", "--json").json["matched"] == 3
    assert len(letters.oracle.letters()) == 7


def test_a_letter_that_is_not_whole_is_left_and_named(letters: LetterBox, command: Command) -> None:
    letters.add().wait_ready(PARTITIONS)
    letters.oracle.put(b"k" * 300_000, b"")
    letters.die(["whole"])
    letters.mend()
    letters.oracle.wait_consumed()
    ran = command("dlq", "replay", "--yes")
    assert ran.code == 0
    assert "left out 1 record: not whole" in ran.err
    assert "replayed 1 record" in ran.err
    assert command("dlq", "list", "--json").json["matched"] == 1


def test_canaries_that_fail_again_end_a_replay_and_good_ones_let_it_go_on(
    letters: LetterBox, command: Command
) -> None:
    worker = letters.add()
    worker.wait_ready(PARTITIONS)
    letters.die([f"task {n}" for n in range(12)])
    canary = ("--canary", "4", "--abort-above", "20%")
    bad = command("dlq", "replay", "--yes", *canary)
    assert bad.code == 1
    assert "4 canaries failed again: the others were not replayed" in bad.err or (
        "of 4 canaries failed again" in bad.err
    )
    letters.oracle.wait_consumed()
    assert command("dlq", "list", "--json").json["matched"] == 12, "8 of before, 4 that died again"
    (aborted,) = command("dlq", "history", "--json").json["replays"]
    assert (aborted["status"], aborted["replayed"]) == ("aborted", 4)
    letters.mend()
    good = command("dlq", "replay", "--yes", "--json", *canary).json
    assert (good["replayed"], good["canary"]) == (12, {"succeeded": 4})
    letters.oracle.wait_consumed()
    assert command("dlq", "list", "--json").json["matched"] == 0
    assert worker.terminate() == 0
    late = command(
        "dlq", "replay", "--all", "--yes", *canary, "--limit", "2", "--canary-wait", "1s"
    )
    assert late.code == 1
    assert "2 of 2 canaries have no outcome after 1 s" in late.err


def test_one_argument_is_mended_in_an_editor(
    letters: LetterBox, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    letters.add().wait_ready(PARTITIONS)
    letters.die(["one", "two"])
    editor = tmp_path / "editor"

    def edits(text: str) -> None:
        editor.write_text(f"#!/bin/sh\ncat > $1 <<'E'\n{text}\nE\n")
        editor.chmod(0o755)

    monkeypatch.setenv("EDITOR", str(editor))
    app = ("-A", "support.jobs:app")
    edits('{"good": 3}')
    wrong = command("dlq", "replay", "--id", "one", "--edit", "--yes", *app)
    assert (wrong.code, "argument 'good'" in wrong.err) == (2, True), wrong.err
    edits('{"good": true')
    assert "what was edited is no JSON" in command("dlq", "replay", "--id", "one", "--edit").err
    edits('{"good": true}')
    many = command("dlq", "replay", "--edit", "--yes")
    assert (many.code, "--edit is for one letter, and more than one" in many.err) == (2, True)
    done = command("dlq", "replay", "--id", "one", "--edit", "--yes", *app, "--json").json
    assert done["replayed"] == 1
    letters.wait_replayed(["one"])
    values = [read_task(r.value or b"") for r in letters.oracle.read(letters.oracle.tasks)]
    first, second = (one for one in values if one["id"] == "one")
    assert second == {**first, "payload": b'{"good":true}'}
    assert command("dlq", "list", "--json").json["matched"] == 1
    monkeypatch.setenv("EDITOR", "true")
    assert command("dlq", "replay", "--id", "two", "--edit", "--yes").code == 130


def test_a_letter_that_the_dlq_does_not_take_holds_the_commit_until_it_does(
    letters: LetterBox,
) -> None:
    worker = letters.add()
    worker.wait_ready(PARTITIONS)
    admin = Admin(letters.settings)
    admin.set_configs(letters.oracle.dlq, {"max.message.bytes": "100"})
    letters.oracle.put_tasks(["one"], "brittle", {})
    worker.wait_for("transaction aborted|given up before its commit", times=3)
    assert not letters.oracle.letters()
    assert not [s for s in letters.oracle.states().get(b"one", ()) if s["status"] == "dead"]
    assert not letters.oracle.committed().get(0)
    admin.set_configs(letters.oracle.dlq, {"max.message.bytes": None})
    assert letters.oracle.wait_state("one")["status"] == "dead"
    letters.oracle.check(["one"])
    assert len(letters.oracle.letters()) == 1


def test_many_letters_of_one_transaction_fit_into_a_topic_that_takes_little(
    settings: Settings, tmp_path: Path
) -> None:
    with Queue(settings.model_copy(update={"max_task_bytes": 4_096}), tmp_path) as queue:
        ids = [f"task {n}" for n in range(4_000)]
        dice = Random(1)
        for first in range(0, len(ids), 50):  # the topic takes no larger batch of ours
            queue.oracle.put_all(
                Put(id.encode(), task_value(id, "fails", {"message": dice.randbytes(300).hex()}))
                for id in ids[first : first + 50]
            )
        queue.add()
        queue.oracle.wait_states(ids, 60)
        queue.oracle.check(ids)
        assert len(queue.oracle.letters()) == len(ids)
