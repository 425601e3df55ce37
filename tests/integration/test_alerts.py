"""The alerts: promtool finds them right, each fires and does not, each has a runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy" / "alerts"
RULES, TESTS = ALERTS / "taskmill.rules.yml", ALERTS / "taskmill.tests.yml"


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def promtool(*arguments: str) -> str:
    """What it says; it must find nothing wrong."""
    found = shutil.which("promtool")
    assert found, "promtool is missing: deploy/system.sh --tests installs it (Debian: prometheus)"
    done = subprocess.run(
        [found, *arguments], cwd=ALERTS, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_valid() -> None:
    assert f"SUCCESS: {len(alerts()) + 7} rules found" in promtool("check", "rules", RULES.name)


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", TESTS.name)
    fires: dict[str, set[bool]] = defaultdict(set)
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for case in test["alert_rule_test"]:
            fires[case["alertname"]].add(bool(case["exp_alerts"]))
    assert fires == {name: {True, False} for name in alerts()}


def test_a_wrong_expectation_would_be_found(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    wrong = TESTS.read_text().replace("q are 3d 12h", "q are 4d 12h")
    (tmp_path / TESTS.name).write_text(wrong)
    with pytest.raises(AssertionError, match="4d 12h"):
        promtool("test", "rules", str(tmp_path / TESTS.name))


def test_each_alert_leads_to_a_section_with_commands_or_to_one_that_has_them() -> None:
    text = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    sections = {
        section.partition("\n")[0].lower(): section
        for section in re.split(r"^## ", text, flags=re.M)[1:]
    }
    for name, rule in alerts().items():
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "docs/runbooks.md"
        assert anchor in sections, name
        assert "\n    " in sections[anchor] or "](#" in sections[anchor], f"{name}: what to do?"
        assert rule["labels"]["severity"] in {"warning", "critical"}
    for link in re.findall(r"\]\(#(\w+)\)", text):
        assert link in sections, f"runbooks.md leads to #{link}, which is not there"
