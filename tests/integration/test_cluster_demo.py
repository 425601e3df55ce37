"""The cluster demo as people run it, in small; and its recounts, which must see what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.brokers import java_only

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.append(str(EXAMPLES))

from cluster_demo import longest_gap, take_fired  # noqa: E402
from recount import Found  # noqa: E402
from recount_rows import Row, row_differences  # noqa: E402


def end(status: str = "succeeded", seq: int = 0) -> dict[str, Any]:
    return {"generation": 0, "seq": seq, "status": status}


def test_rows_that_agree_with_the_outcomes_differ_in_nothing() -> None:
    rows = [Row("a", 0, 0, "succeeded"), Row("b", 0, 1, "dead")]
    assert row_differences(rows, {"a": [end()], "b": [end("dead", 1)]}) == []


def test_rows_that_are_missing_strange_double_or_other_are_named() -> None:
    rows = [Row("b", 0, 0, "running"), Row("c", 0, 0, "dead"), Row("c", 0, 0, "dead")]
    assert row_differences(rows, {"a": [end()], "b": [end()]}) == [
        "c: a row of no outcome",
        "3 rows of 2 tasks",
        "a: succeeded on Kafka, and no row",
        f"b: {rows[0]} is its row, {Row('b', 0, 0, 'succeeded')} its outcome",
    ]


def test_a_run_of_the_schedule_that_is_missing_or_double_is_named() -> None:
    found = Found()
    for second, many in ((1, 1), (2, 2), (4, 1)):
        id = f"schedule:demo-tick@2026-01-02T03:04:0{second}Z"
        found.ends[id] = [end() for _ in range(many)]
    found.ends["a.py"] = [end()]
    fired, wrong = take_fired(found)
    assert fired == 3
    assert list(found.ends) == ["a.py"]
    assert [line.partition(" of ")[0].partition(" at ")[0] for line in wrong] == [
        "the schedule's run",
        "the schedule ran",
    ]


def test_the_longest_gap_counts_from_its_start_and_to_its_end() -> None:
    assert longest_gap([1.0, 2.0, 5.0, 9.0], 1.5, 6.0) == 3.0
    assert longest_gap([], 1.5, 6.0) == 4.5


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that user postgres may pass: PostgreSQL refuses to run as root."""
    made = Path(tempfile.mkdtemp(prefix="taskmill-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.timeout(120)
def test_the_cluster_demo_agrees_with_its_recounts_and_leaves_nothing_behind(folder: Path) -> None:
    ran = subprocess.run(
        [sys.executable, EXAMPLES / "cluster_demo.py", "--files", "60", "--seconds", "15"],
        env={**java_only(), "TMPDIR": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=115,
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
    fired = int(figures["runs of a schedule of every second"])
    assert int(figures["rows in the console's PostgreSQL"]) == 60 + fired
    assert "The recount agrees" in ran.stdout
    assert list(folder.iterdir()) == []
    pids = re.findall(r"\b\d+\b", " ".join(re.findall(r"at work .*|takes its place", ran.stderr)))
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []
