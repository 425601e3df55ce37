"""The scripts of deploy/: whole, run by a test each, and quiet where there is nothing to do."""

from __future__ import annotations

import os
import subprocess

import pytest

from support.deployment import DEPLOY, ROOT

SCRIPTS = sorted(DEPLOY.rglob("*.sh"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_a_script_is_bash_can_be_run_and_stops_at_what_fails(path: os.PathLike[str]) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    assert os.access(path, os.X_OK)
    with open(path, encoding="utf-8") as file:
        assert file.readline() == "#!/usr/bin/env bash\n"
        assert "set -euo pipefail\n" in file.read()


def test_with_a_broker_given_nothing_is_installed() -> None:
    env = {"PATH": "/usr/bin:/bin", "TASKMILL_BOOTSTRAP_SERVERS": "kafka:9092"}
    command = [str(DEPLOY / "system.sh")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_script_is_run_by_a_test_or_by_make() -> None:
    callers = [*(ROOT / "tests").rglob("test_deploy_*.py"), ROOT / "Makefile", ROOT / "Dockerfile"]
    text = "".join(path.read_text("utf-8") for path in callers)
    modules = {path.parent for path in DEPLOY.rglob("__init__.py")}  # generate.py imports them
    scripts = [*SCRIPTS, *(path for path in DEPLOY.rglob("*.py") if path.parent not in modules)]
    assert [path.name for path in scripts if path.name not in text] == []
