"""Grafana's dashboards: whole, of one shape, linked, and asking for metrics that there are."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import Counter as PrometheusCounter
from prometheus_client import Histogram

from support.deployment import DEPLOY, ROOT, compose_file
from support.grafana import FOLDER, VARIABLE, boards, label_values, metrics, panels, queries
from support.grafana import variables as variables_of
from taskmill.console.api import tally
from taskmill.runtime.metric_table import METRICS

BOARDS = boards()
each = pytest.mark.parametrize("name", sorted(BOARDS))
NAMES = {"overview", "queue", "worker", "letters", "scheduler", "kafka"}
#: What Grafana itself knows.
ITS_OWN = {"__rate_interval", "__value", "__url_time_range"}


def series() -> set[str]:
    """Every name that a scrape of some role shows."""
    ends = {"histogram": ("_bucket", "_count", "_sum")}
    found = {n + end for n, m in METRICS.items() for end in ends.get(m.kind, ("",))}
    for one in vars(tally).values():
        if isinstance(one, PrometheusCounter | Histogram):
            kind = "histogram" if isinstance(one, Histogram) else "counter"
            (family,) = one.collect() if one.collect() else one.describe()
            found |= {family.name + end for end in ends.get(kind, ("_total",))}
    return found


def test_there_are_six() -> None:
    assert set(BOARDS) == NAMES
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.json" for name in NAMES}
    assert {board["uid"] for board in BOARDS.values()} == {f"taskmill-{name}" for name in NAMES}
    assert len({board["title"] for board in BOARDS.values()}) == len(NAMES)


def same(mine: Any, other: Any, where: str = "") -> None:
    """What is in `mine` is in `other`, which may have more fields."""
    if isinstance(mine, dict):
        assert isinstance(other, dict), where
        for key, value in mine.items():
            same(value, other.get(key), f"{where}.{key}")
    elif isinstance(mine, list):
        assert isinstance(other, list), where
        assert len(mine) == len(other), where
        for n, (one, two) in enumerate(zip(mine, other, strict=True)):
            same(one, two, f"{where}[{n}]")
    else:
        assert mine == other, where


@each
def test_grafanas_own_types_read_it_and_write_the_same(name: str) -> None:
    """Defaults apart, which they add. Go's types, which refuse what they do not know, read it in
    integration/."""
    register_default_plugins()
    same(BOARDS[name], json.loads(json.dumps(Dashboard.from_json(BOARDS[name]), cls=JSONEncoder)))


@each
def test_panels_are_numbered_once_and_do_not_overlap(name: str) -> None:
    board = BOARDS[name]
    assert max(Counter(one["id"] for one in board["panels"]).values()) == 1
    places = []
    for panel in board["panels"]:
        at = panel["gridPos"]
        x, y, w, h = (at.get(side, 0) for side in "xywh")
        assert x + w <= 24, panel["title"]
        places.append((panel["title"], x, y, x + w, y + h))
    for (one, *a), (other, *b) in combinations(places, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{one} and {other} overlap"
    filled: Counter[int] = Counter()
    for _, x0, y0, x1, y1 in places:
        filled.update(dict.fromkeys(range(y0, y1), x1 - x0))
    assert set(filled.values()) == {24}, "every line is full"


@each
def test_every_panel_says_what_it_is_and_asks_the_chosen_source(name: str) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    board = BOARDS[name]
    assert variables_of(board)["datasource"]["query"] == "prometheus"
    for panel in panels(board):
        assert re.fullmatch(r"[^\n]+[.?](\n\nMore: docs/runbooks\.md#\w+)?", panel["description"])
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == chosen
        assert panel["targets"]
        assert all(target["datasource"] == chosen for target in panel["targets"])
    titles = Counter((one["title"], one["type"]) for one in panels(board))
    assert max(titles.values()) == 1


@each
def test_every_variable_that_is_used_is_there(name: str) -> None:
    known = variables_of(BOARDS[name])
    text = [one.expr for one in queries() if one.board == name]
    text += [label_values(v)[0] for v in known.values() if v["type"] == "query"]
    used = {found for expr in text for found in VARIABLE.findall(expr)}
    assert used <= {*known, *ITS_OWN}
    assert set(known) - {"datasource"} <= used
    assert {"datasource", "namespace", "job"} <= set(known)


def test_every_metric_is_shown_and_no_other_is_asked_for() -> None:
    shown = {metric for asked in queries() for metric in metrics(asked.expr)}
    known = series()
    assert shown - known == {"ALERTS", "up"}
    of_a_histogram = re.compile(r"_(bucket|count|sum)$")
    families = {of_a_histogram.sub("", name) for name in known}
    assert families - {of_a_histogram.sub("", name) for name in shown} == set()
    for board in BOARDS.values():
        for variable in variables_of(board).values():
            if variable["type"] == "query":
                assert metrics(label_values(variable)[0]) <= known


def test_what_is_chosen_is_what_the_metric_has() -> None:
    """A matcher on a label that a metric has not would select nothing, or everything."""
    for asked in queries():
        for name, inner in re.findall(r"\b(taskmill_\w+)\{([^{}]*)\}", asked.expr):
            base = name if name in METRICS else re.sub(r"_(bucket|count|sum)$", "", name)
            if base in METRICS:
                said = set(re.findall(r'(\w+)=~?"', inner))
                extra = {"namespace", "job", "instance"}
                assert said <= {*METRICS[base].labels, *extra}, f"{asked}: {name}"


def test_gauges_of_one_truth_are_never_added_up() -> None:
    """Every worker and scheduler tells lag, age and letters: the greatest of them counts."""
    alike = "|".join(name for name, m in METRICS.items() if m.merge == "max")
    for asked in queries():
        for found in re.finditer(rf"\b({alike})\b", asked.expr):
            before = asked.expr[: found.start()]
            assert re.search(r"max( by \([a-z, ]+\))? \($", before), f"{asked}: {found[1]}"


def test_dashboards_lead_to_each_other_and_to_what_there_is() -> None:
    uids = {board["uid"] for board in BOARDS.values()}
    for board in BOARDS.values():
        assert board["tags"] == ["taskmill"]
        others, alerts = board["links"]
        assert (others["type"], others["tags"]) == ("dashboards", ["taskmill"])
        assert others["includeVars"] is True
        assert others["keepTime"] is True
        assert alerts["url"] == "/alerting/list"
        for uid in re.findall(r'"/d/([\w-]+)', json.dumps(board)):
            assert uid in uids


def test_what_is_said_leads_to_sections_and_pages_that_there_are() -> None:
    runbooks = (ROOT / "docs" / "runbooks.md").read_text("utf-8")
    sections = {line[3:].lower() for line in runbooks.splitlines() if line.startswith("## ")}
    for board in BOARDS.values():
        for panel in panels(board):
            for page, section in re.findall(r"(docs/\w+\.md)(?:#(\w+))?", panel["description"]):
                assert (ROOT / page).exists(), panel["title"]
                assert not section or section in sections, panel["title"]


def limits_of(panel: dict[str, Any]) -> list[float]:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return [step["value"] for step in steps if step["value"] is not None]


def test_colours_change_where_alerts_begin() -> None:
    rules = yaml.safe_load((DEPLOY / "alerts" / "taskmill.rules.yml").read_text("utf-8"))
    alerts = {r["alert"]: r["expr"] for g in rules["groups"] for r in g["rules"] if "alert" in r}
    by_title = {
        name: {p["title"]: p for p in panels(board) if p["type"] == "stat"}
        for name, board in BOARDS.items()
    }
    for board, title, alert in (
        ("overview", "Oldest task", "TaskmillOldestTaskTooOld"),
        ("overview", "Oldest task", "TaskmillOldestTaskNearRetention"),
        ("overview", "Behind", "TaskmillLagGrowing"),
        ("overview", "Dead in 1 h", "TaskmillDeadLettersGrow"),
        ("worker", "Longest restore", "TaskmillRestoreStuck"),
        ("scheduler", "Lateness, 99 of 100", "TaskmillSchedulesLate"),
        ("kafka", "Commits that fail", "TaskmillCommitFailures"),
        ("kafka", "Readers held up", "TaskmillReadersHeldUp"),
    ):
        said = re.search(r"> ([\d.]+)", alerts[alert])
        assert said
        assert float(said[1]) in limits_of(by_title[board][title]), alert
    assert limits_of(by_title["overview"]["Success"]) == [1 - 0.144, 1 - 0.06]


def test_grafana_finds_them_where_compose_puts_them() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    provider = yaml.safe_load((folder / "dashboards" / "taskmill.yml").read_text("utf-8"))
    (one,) = provider["providers"]
    mounts = compose_file()["services"]["grafana"]["volumes"]
    assert f"./deploy/grafana/dashboards:{one['options']['path']}:ro" in mounts
    assert "./deploy/grafana/provisioning:/etc/grafana/provisioning:ro" in mounts
    sources = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text("utf-8"))
    assert [source["type"] for source in sources["datasources"]] == ["prometheus"]
