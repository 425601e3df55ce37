"""docs/metrics.md names every metric as the code has it, and no other."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import click

from taskmill.cli.main import cli
from taskmill.runtime.metric_table import BUCKETS, METRICS, Metric

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "metrics.md"
MARKS = re.compile(r"(<!-- metrics -->\n).*?(<!-- end of metrics -->)", re.DOTALL)


def row(metric: Metric) -> str:
    labels = ", ".join(metric.labels) or "–"
    many = {"counter": "sum", "histogram": "sum", "info": "–"}.get(metric.kind, metric.merge)
    roles = ", ".join(metric.roles)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {many} | {roles} | {metric.text} |"


def test_the_table_is_what_the_code_says() -> None:
    """With TASKMILL_TEST_REWRITE set it is written anew."""
    head = [
        "| metric | type | labels | of many | served by | meaning |",
        "|---|---|---|---|---|---|",
    ]
    table = "\n".join([*head, *map(row, METRICS.values())])
    text = PAGE.read_text(encoding="utf-8")
    wanted = MARKS.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)
    if os.environ.get("TASKMILL_TEST_REWRITE"):
        PAGE.write_text(wanted, encoding="utf-8")
    assert text == wanted, "TASKMILL_TEST_REWRITE=1 pytest tests/unit/test_metrics_doc.py"


def test_the_buckets_are_those_of_the_code() -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"in seconds: {', '.join(f'{bound:g}' for bound in BUCKETS)}." in text


def test_every_name_in_the_docs_and_rules_is_a_metric() -> None:
    known = set(METRICS)
    for name, metric in METRICS.items():
        if metric.kind == "histogram":
            known |= {f"{name}_{end}" for end in ("bucket", "count", "sum")}
    pages = [PAGE, ROOT / "docs" / "runbooks.md", *(ROOT / "deploy" / "alerts").glob("*.yml")]
    for page in pages:
        said = set(re.findall(r"\btaskmill_[a-z_]+\b", page.read_text(encoding="utf-8")))
        assert said <= known, f"{page.name}: {sorted(said - known)}"


def test_every_command_of_the_runbooks_is_one_with_these_options() -> None:
    text = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    (taskmill .*)$", text, re.MULTILINE)
    assert len(lines) >= 10
    for line in lines:
        words = shlex.split(line)[1:]
        command: click.Command = cli
        context = click.Context(cli)
        while isinstance(command, click.Group):
            found = command.get_command(context, words.pop(0))
            assert found is not None, line
            command = found
        known = {option for param in command.params for option in param.opts}
        said = {word for word in words if word.startswith("-")}
        assert said <= known, f"{line}: no {sorted(said - known)}"
