"""The demo as people run it, in small; and its recount, which must see what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.append(str(EXAMPLES))

from plain_reader import Record  # noqa: E402
from recount import Found, differences  # noqa: E402

GOOD = {"functions": 2, "classes": 1, "sha256": "00ff"}
DIRECT: dict[str, dict[str, Any]] = {"good.py": GOOD, "bad.py": {"error": "SyntaxError"}}


def found() -> Found:
    """What lies on Kafka after a run in which all went well: both files enqueued twice."""
    found = Found()
    found.tasks = {
        (0, 0): (b"good.py", b"good"),
        (0, 1): (b"bad.py", b"bad"),
        (0, 2): (b"good.py", b"good again"),
        (0, 3): (b"bad.py", b"bad again"),
    }
    found.committed = {0: 4}
    place = {"source_partition": 0, "source_offset": 1}
    found.ends["good.py"] = [{"status": "succeeded", "result": json.dumps(GOOD).encode()}]
    found.ends["bad.py"] = [{"status": "dead", "error": {"type": "SyntaxError"}, **place}]
    headers = {"taskmill-original-partition": "0", "taskmill-original-offset": "1"}
    found.letters["bad.py"] = [Record(0, 0, b"bad.py", b"bad", headers)]
    return found


def test_the_recount_finds_nothing_where_all_agrees() -> None:
    assert differences(found(), DIRECT) == []


def test_the_recount_names_a_file_without_an_outcome() -> None:
    there = found()
    del there.ends["good.py"]
    assert differences(there, DIRECT) == ["good.py: 0 committed outcomes, not one"]


def test_the_recount_names_a_second_outcome() -> None:
    there = found()
    there.ends["good.py"] *= 2
    assert differences(there, DIRECT) == ["good.py: 2 committed outcomes, not one"]


def test_the_recount_names_a_wrong_count() -> None:
    there = found()
    there.ends["good.py"][0]["result"] = json.dumps({**GOOD, "classes": 7}).encode()
    (told,) = differences(there, DIRECT)
    assert told.startswith("good.py: taskmill counted {'functions': 2, 'classes': 7")


def test_the_recount_names_a_dead_letter_that_is_missing_or_too_many() -> None:
    there = found()
    there.letters["good.py"] = there.letters.pop("bad.py")
    assert differences(there, DIRECT) == [
        "good.py: succeeded, and has a dead letter",
        "bad.py: dead, with 0 dead letters, not one",
    ]


def test_the_recount_names_a_letter_with_other_bytes() -> None:
    there = found()
    there.letters["bad.py"] = [there.letters["bad.py"][0]._replace(value=b"Bad")]
    assert differences(there, DIRECT) == ["bad.py: its letter is not the original, byte for byte"]


def test_the_recount_names_records_that_were_not_passed_and_strangers() -> None:
    there = found()
    there.committed = {0: 3}
    there.ends["other.py"] = there.ends["good.py"]
    assert differences(there, DIRECT) == [
        "other.py: an outcome of no file of ours",
        "4 records on tasks, of which 3 are passed",
    ]


@pytest.mark.kafka
def test_the_demo_agrees_with_its_recount_and_leaves_nothing_behind(
    broker: str, tmp_path: Path
) -> None:
    prefix = "t-demo"
    env = {**os.environ, "TASKMILL_BOOTSTRAP_SERVERS": broker, "TMPDIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py", "--files", "60", "--prefix", prefix],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    figures = {
        cells[0].strip(): cells[1].strip()
        for line in ran.stdout.splitlines()
        if len(cells := line.strip().split("   ", 1)) == 2
    }
    assert figures["files"] == "60"
    assert figures["tasks enqueued"] == "120"
    assert figures["run to a committed outcome"] == "60"
    assert figures["duplicates dropped"] == "60"
    assert "1 letter in queue 'default'" in ran.stderr
    assert "replayed 1 record" in ran.stderr
    assert "The recount agrees" in ran.stdout
    assert "by SIGKILL" in ran.stderr
    assert list(tmp_path.iterdir()) == []
    topics = AdminClient({"bootstrap.servers": broker}).list_topics(timeout=10).topics
    assert [name for name in topics if name.startswith(prefix)] == []
