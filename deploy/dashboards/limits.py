"""The numbers at which panels turn colour: those of the alerts, read from their rules."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

_RULES = Path(__file__).resolve().parents[1] / "alerts" / "taskmill.rules.yml"


def _limits() -> dict[str, float]:
    """The number that each alert's expression is compared with, by its name."""
    groups = yaml.safe_load(_RULES.read_text("utf-8"))["groups"]
    found = {}
    for rule in (rule for group in groups for rule in group["rules"] if "alert" in rule):
        if number := re.search(r"> ([\d.]+)(?: \* ([\d.]+))?", rule["expr"]):
            found[rule["alert"]] = round(float(number[1]) * float(number[2] or 1), 6)
    return found


_OF = _limits()

OLD_S = _OF["TaskmillOldestTaskTooOld"]
NEAR_RETENTION_S = _OF["TaskmillOldestTaskNearRetention"]
BEHIND = _OF["TaskmillLagGrowing"]
BURNS_FAST = _OF["TaskmillSuccessBurnFast"]
BURNS_SLOWLY = _OF["TaskmillSuccessBurnSlow"]
NEW_LETTERS = _OF["TaskmillDeadLettersGrow"]
RESTARTS = _OF["TaskmillCrashLoop"]
COMMITS_FAIL = _OF["TaskmillCommitFailures"]
HELD_UP_S = _OF["TaskmillReadersHeldUp"]
RESTORE_S = _OF["TaskmillRestoreStuck"]
LATE_S = _OF["TaskmillSchedulesLate"]
