"""`topics migrate` on a real broker: nothing lost, nothing done twice, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.migrations import Command, Scene, migrate
from support.oracle import Oracle
from support.workers import Gate, WorkerProcess
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import ensure

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


@pytest.mark.parametrize(("old", "new"), [(2, 3), (3, 2)])
def test_a_half_processed_queue_moves_and_each_task_still_has_one_outcome(
    half: Callable[..., Scene], old: int, new: int
) -> None:
    scene = half(old)
    survey = migrate(scene.settings, "--partitions", str(new), "--dry-run", "--json")
    assert survey.exit_code == 0, survey.output
    done = migrate(scene.settings, "--partitions", str(new), "--yes", "--json")
    assert done.exit_code == 0, done.output
    report, counted = json.loads(done.stdout), json.loads(survey.stdout)
    assert (report["from"], report["to"], report["resumed"]) == (old, new, None)
    rows = {row["topic"]: row["records"] for row in report["topics"]}
    assert rows == {row["topic"]: row["records"] for row in counted["topics"]}
    assert rows[scene.oracle.results] == len(scene.large)
    assert f"set TASKMILL_PARTITIONS={new} (it is {old})" in done.stderr
    again = migrate(scene.settings, "--partitions", str(new), "--yes")
    assert again.exit_code == 0
    assert again.stderr == f"nothing to do: queue 'default' has {new} partitions\n"
    scene.goes_on(new)


def test_it_is_refused_while_a_worker_runs_and_names_it(settings: Settings, tmp_path: Path) -> None:
    ensure(settings, "default")
    with WorkerProcess(settings, tmp_path).wait_ready(2):
        refused = migrate(settings, "--partitions", "3", "--yes")
    assert refused.exit_code == 2
    (line,) = refused.stderr.splitlines()
    assert re.fullmatch(
        r"taskmill: queue 'default' has 1 workers: t-\S+ \(127\.0\.0\.1\)\. Stop them .*", line
    ), line
    oracle = Oracle(str(settings.bootstrap_servers), settings.prefix)
    assert oracle.partitions(oracle.tasks) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["-q", "nobody", "--partitions", "3", "--yes"],
            "'nobody' has no topics; queues here: def",
        ),
        (["--partitions", "0", "--yes"], "1<=x<=1000"),
        (["--partitions", "1001", "--yes"], "1<=x<=1000"),
        (["--partitions", "3"], "add --yes"),
        ([], "give --partitions N, or --abort"),
        (["--partitions", "3", "--abort"], "give --partitions N, or --abort"),
        (["--abort", "--dry-run"], "--abort has no --dry-run"),
        (["-q", "a.b", "--partitions", "3", "--yes"], "a queue's name is"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    settings: Settings, arguments: list[str], words: str
) -> None:
    ensure(settings, "default")
    refused = migrate(settings, *arguments)
    assert refused.exit_code == 2
    assert words in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_broker_that_is_away_ends_it_with_3(settings: Settings) -> None:
    away = settings.model_copy(update={"bootstrap_servers": "127.0.0.1:9"})
    told = migrate(away, "--partitions", "3", "--yes")
    assert told.exit_code == 3
    assert "127.0.0.1:9 did not answer" in told.stderr


def test_one_under_way_refuses_another_count_and_can_be_undone_until_it_swaps(
    half: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = half(2, many=30)
    before = scene.oracle.committed()
    command = Command(scene.settings, tmp_path, 3)
    assert command.until(r"^copying \(")
    command.kill()
    other = migrate(scene.settings, "--partitions", "4", "--yes")
    assert other.exit_code == 2
    assert "on its way from 2 to 3 partitions (copying): finish that first" in other.stderr
    undone = migrate(scene.settings, "--abort")
    assert (undone.exit_code, undone.stderr) == (
        0,
        "queue 'default' is as it was, with 2 partitions\n",
    )
    assert scene.oracle.committed() == before
    nothing = migrate(scene.settings, "--abort", "--json")
    assert json.loads(nothing.stdout) == {"queue": "default", "aborted": False}
    scene.goes_on(2)


def test_after_the_first_swap_there_is_no_way_back_but_one_forward(
    half: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = half(2, many=30)
    command = Command(scene.settings, tmp_path, 3)
    assert command.until(r"^filling \S+\.state\.")
    command.kill()
    refused = migrate(scene.settings, "--abort")
    assert refused.exit_code == 2
    assert "cannot go back any more (swapping state)" in refused.stderr
    # Nor does a worker start on what is half moved.
    with scene.worker() as worker:
        assert worker.wait() == 2
        assert "must have equally many partitions" in worker.log
    gone_on = migrate(scene.settings, "--partitions", "3", "--yes", "--json")
    assert gone_on.exit_code == 0, gone_on.stderr
    assert json.loads(gone_on.stdout)["resumed"] == "swapping state"
    scene.goes_on(3)


def test_a_worker_that_ran_since_it_was_begun_makes_it_begin_again(
    half: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = half(2, many=30)
    command = Command(scene.settings, tmp_path, 3)
    assert command.until(r"^copying \(")
    command.kill()
    with Gate() as gate, scene.worker("--drain-timeout", "0s", env=gate.env) as worker:
        scene.oracle.wait_states(scene.waiting[:1])
        worker.terminate()
    scene.wait_left()
    again = migrate(scene.settings, "--partitions", "3", "--yes")
    assert again.exit_code == 0, again.stderr
    assert "a worker has run since it was begun: copying begins again" in again.stderr
    scene.goes_on(3)
