"""Grafana's dashboards: valid by Grafana's own types, and each query of each panel answered by a
real Prometheus that scrapes a real run, in agreement with the topics."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.brokers import quiet_ports
from support.consoles import ConsoleProcess
from support.deployment import VALUES, named, program, rendered
from support.grafana import (
    FOLDER,
    boards,
    filled_in,
    label_values,
    queries,
    variables,
)
from support.oracle import Put
from support.prometheus import Prometheus
from support.schedules import Scheduled
from support.wire import partition_of, task_value
from taskmill.runtime.config import Settings

SCHEMA = Path(__file__).resolve().parents[1] / "support" / "grafana_schema"
PARTITIONS = 4
NAMESPACE = "space"
#: All, as Grafana fills it in.
ALL = {
    "namespace": ".*",
    "job": "(worker|scheduler|console)",
    "instance": ".*",
    "queue": ".*",
    "task": ".*",
    "__rate_interval": "20s",
}
CHOSEN = {**ALL, "namespace": NAMESPACE, "queue": "default"}
#: Panels that rightly count nothing in a run in which all is well, and why.
NOTHING = {
    ("overview", "Alerts that fire"): "none does: each waits for its time",
    ("overview", "Down"): "every process is scraped",
    ("overview", "Unserved queues"): "the one queue has its workers",
}


# ---- valid --------------------------------------------------------------------------------------


def schema_says(*paths: Path) -> str:
    """What Grafana's types, which refuse what they do not know, say to these files."""
    go = program("go", "https://go.dev/doc/install, or your system's package")
    command = [go, "run", ".", *map(str, paths)]
    done = subprocess.run(
        command, cwd=SCHEMA, capture_output=True, text=True, check=False, timeout=110
    )
    assert (done.returncode == 0) is (done.stdout == ""), done.stderr
    return done.stdout


@pytest.mark.tools
def test_grafanas_types_read_every_dashboard_strictly(tmp_path: Path) -> None:
    assert schema_says(*sorted(FOLDER.glob("*.json"))) == ""
    board = boards()["queue"]
    board["panels"][1]["options"]["grpahMode"] = "area"
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(board), encoding="utf-8")
    assert "grpahMode" in schema_says(wrong)
    del board["panels"][1]["options"]["grpahMode"]
    board["panels"][1]["gridPos"]["w"] = "wide"
    wrong.write_text(json.dumps(board), encoding="utf-8")
    assert "gridPos" in schema_says(wrong)


@pytest.mark.tools
def test_the_chart_hands_them_to_grafanas_sidecar() -> None:
    (production,) = (path for path in VALUES if path.name == "production-values.yaml")
    maps = named(rendered(production), "ConfigMap")
    found: dict[str, Any] = {}
    for one in maps.values():
        if one["metadata"]["labels"].get("grafana_dashboard") == "1":
            found |= {Path(name).stem: json.loads(text) for name, text in one["data"].items()}
    assert found == boards()


# ---- answered -----------------------------------------------------------------------------------


class Scene(NamedTuple):
    """A run under way, what watches it, and since when."""

    run: Scheduled
    prometheus: Prometheus
    began: float


@pytest.fixture
def scene(settings: Settings, tmp_path: Path) -> Iterator[Scene]:
    """A worker of two processes, a scheduler and a console, scraped."""
    port = quiet_ports(3)
    jobs = {"worker": port, "scheduler": port + 1, "console": port + 2}
    changed = {"partitions": PARTITIONS, "retry_tiers": ("1s", "1m")}
    of_all = Settings(**{**settings.model_dump(), **changed})
    of_worker = Settings(**{**of_all.model_dump(), "metrics_port": port})
    with (
        Prometheus(tmp_path, jobs, NAMESPACE) as prometheus,
        Scheduled(of_all, tmp_path) as run,
        ConsoleProcess(of_all, tmp_path, "--port", str(port + 2)) as console,
    ):
        run.scheduler("--metrics-port", str(port + 1), serves=0)
        run.add("--processes", "2", settings=of_worker)
        console.wait_listening()
        prometheus.wait_scraping()
        prometheus.until("sum(taskmill_partitions_owned)", PARTITIONS)
        yield Scene(run, prometheus, time.time())


def put_work(run: Scheduled, stem: str) -> list[str]:
    """Tasks of every outcome, duplicates, garbage, and one on another partition; those that end."""
    oracle = run.oracle
    good = [f"{stem}-good-{n}" for n in range(60)]
    oracle.put_tasks(good, "noop")
    oracle.put_tasks(good[:7], "noop")
    bad = [f"{stem}-bad-{n}" for n in range(20)]
    oracle.put_tasks(bad, "fails", {"message": "no"})
    again = [f"{stem}-again-{n}" for n in range(5)]
    oracle.put_tasks(again[1:], "flaky", {"fails": 1})
    oracle.put_tasks(again[:1], "flaky", {"fails": 1, "wait": "1s"})
    late = f"{stem}-late"
    oracle.put(late.encode(), task_value(late, "noop", expires_at=1))
    astray = f"{stem}-astray"
    key = astray.encode()
    elsewhere = (partition_of(key, PARTITIONS) + 1) % PARTITIONS
    oracle.put_all([Put(key, task_value(astray, "noop"), elsewhere), Put(b"g", b"garbage")])
    return [*good, *bad, *again, late, astray]


def work(scene: Scene) -> None:
    """The same twice: what was never counted has no series that could rise."""
    run, prometheus = scene.run, scene.prometheus
    run.oracle.put_tasks(["waits"], "flaky", {"fails": 1, "wait": "10m"})
    run.put_all(["tick"], "noop", every_ms=1_000, max_runs=6, overlap="allow")
    run.put_all(["missed"], "noop", every_ms=60_000, max_runs=1, misfire="skip",
                since=1_700_000_000_000)  # fmt: skip
    for stem in ("first", "second"):
        ended = put_work(run, stem)
        run.oracle.wait_states(ended)
        told = Counter(s["status"] for found in run.oracle.states().values() for s in found)
        for outcome in ("dead", "expired", "retrying"):
            name = f'sum(taskmill_tasks_finished_total{{outcome="{outcome}"}})'
            prometheus.until(name, told[outcome])
    run.wait_runs("tick", 6)
    run.oracle.wait_consumed()
    prometheus.until("sum(taskmill_schedule_runs_total)", len(run.runs()))
    prometheus.until('sum(taskmill_waiting_tasks{tier="delayed"})', 1)
    prometheus.until("sum(taskmill_dlq_depth)", len(run.oracle.letters()))
    prometheus.until("max(taskmill_consumer_lag)", 0)


def unanswered(scene: Scene, values: dict[str, str]) -> list[str]:
    """The queries without a single number, those apart that may have none.

    What a panel shows where there is nothing (`or vector(0)`) is no number."""
    end = time.time()
    missing = []
    for asked in queries():
        expr = filled_in(asked.expr, values).removesuffix(" or vector(0)")
        found = (
            scene.prometheus.instant(expr)
            if asked.is_instant
            else scene.prometheus.over(expr, scene.began, end)
        )
        is_told = any(one.has_data for one in found)
        if not is_told and (asked.board, asked.panel) not in NOTHING:
            missing.append(f"{asked}: {expr}")
    return missing


def variables_have_values(scene: Scene) -> None:
    for board in boards().values():
        for variable in variables(board).values():
            if variable["type"] == "query":
                series, label = label_values(variable)
                found = scene.prometheus.label_values(filled_in(series, ALL), label)
                assert found, f"{board['title']}: {variable['name']}"


def shown(scene: Scene, board: str, panel: str) -> float:
    """The number that the first panel of this title shows."""
    asked = next(one for one in queries() if (one.board, one.panel) == (board, panel))
    (one,) = scene.prometheus.instant(filled_in(asked.expr, ALL))
    return one.values[0]


def counted(values: dict[str, float]) -> dict[str, float]:
    """Those that are not 0, as which some are served before they count anything."""
    return {label: value for label, value in values.items() if value}


def agrees(scene: Scene) -> None:
    """The counters, and what panels show, are what lies on the topics."""
    run, by = scene.run, scene.prometheus.by
    states = run.oracle.states()
    told = Counter(s["status"] for found in states.values() for s in found)
    outcomes = ("succeeded", "dead", "retrying", "expired")
    finished = by("sum by (outcome) (taskmill_tasks_finished_total)", "outcome")
    assert counted(finished) == {one: told[one] for one in outcomes}
    letters = run.oracle.letters()
    reasons = Counter(letter.headers["taskmill-reason"].decode() for letter in letters)
    assert counted(by("sum by (reason) (taskmill_dead_letters_total)", "reason")) == reasons
    came_back = Counter(key.decode()[-2:] == "-0" for key, found in states.items()
                        for s in found if s["seq"] > 0 and s["status"] == "succeeded")  # fmt: skip
    passed_on = by("sum by (tier) (taskmill_passed_on_total)", "tier")
    assert counted(passed_on) == {"1s": came_back[False], "delayed": came_back[True]}
    retried = sum(by("sum by (tier) (taskmill_retries_total)", "tier").values())
    assert retried == told["retrying"] == came_back.total() + 1
    runs = sum(key.startswith(b"schedule:") for key in states)
    enqueued = by("sum by (job) (taskmill_tasks_enqueued_total)", "job")
    assert counted(enqueued) == {"scheduler": runs}
    for board, panel, number in (
        ("overview", "Behind", 0),
        ("overview", "Schedulers", 1),
        ("overview", "Down", 0),
        ("overview", "Unserved queues", 0),
        ("queue", "Dead letters", len(letters)),
        ("queue", "Workers", 2),
        ("queue", "In workers", 0),
        ("worker", "Partitions", PARTITIONS),
        ("worker", "Instances", 1),
        ("worker", "Processes missing", 0),
        ("worker", "IDs in the tables", len(states)),
        ("letters", "Dead letters", len(letters)),
        ("letters", "Waiting", 1),
        ("scheduler", "Waiting", 1),
        ("kafka", "Readers held up", 0),
    ):
        assert shown(scene, board, panel) == number, f"{board} / {panel}"
    assert by("sum(taskmill_duplicates_total) by (queue)", "queue") == {"default": 14}
    assert by("sum(taskmill_rerouted_total) by (queue)", "queue") == {"default": 2}


@pytest.mark.kafka
@pytest.mark.tools
def test_every_query_of_every_panel_is_answered_as_the_topics_say(scene: Scene) -> None:
    work(scene)
    agrees(scene)
    variables_have_values(scene)
    assert len(list(queries())) > 100
    assert not scene.prometheus.over('taskmill_schedules{job="nobody"}', scene.began, time.time())
    assert not unanswered(scene, ALL)
    assert not unanswered(scene, CHOSEN)
