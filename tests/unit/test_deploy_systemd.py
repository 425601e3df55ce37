"""The systemd units: they run our commands, give them time to drain, and keep their slots."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.deployment import DEPLOY, ROLES
from taskmill.cli.main import COMMANDS

UNITS = DEPLOY / "systemd"


def settings(role: str) -> dict[str, list[str]]:
    """What the role's unit says, by name."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / f"taskmill-{role}.service").read_text("utf-8").splitlines():
        name, is_one, value = line.partition("=")
        if is_one and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_a_unit_that_restarts_and_drains_it(role: str) -> None:
    unit = settings(role)
    (command,) = unit["ExecStart"]
    assert command.split()[:2] == ["/opt/taskmill/bin/taskmill", role]
    assert unit["KillMode"] == ["mixed"]  # a supervisor drains its workers itself
    assert unit["Restart"] == ["always"]
    assert unit["RestartPreventExitStatus"] == ["2"]
    drain = re.search(r"--drain-timeout (\d+)s", command)
    assert int(unit["TimeoutStopSec"][0]) >= 30 + (int(drain[1]) if drain else 0)
    assert any(one == f"TASKMILL_STATE_DIR=/var/lib/taskmill/{role}" for one in unit["Environment"])
    assert f"taskmill/{role}" in unit["StateDirectory"][0].split()


@pytest.mark.parametrize("role", sorted({*ROLES} & set(COMMANDS)))
def test_the_options_of_a_unit_are_the_commands(role: str) -> None:
    import importlib

    module, name = COMMANDS[role].target.split(":")
    known = {o for p in getattr(importlib.import_module(module), name).params for o in p.opts}
    (command,) = settings(role)["ExecStart"]
    assert {word for word in command.split()[2:] if word.startswith("-")} <= known


def test_what_units_read_from_the_environment_is_in_the_file() -> None:
    text = (UNITS / "taskmill.env").read_text("utf-8")
    named = set(re.findall(r"^(\w+)=", text, re.MULTILINE))
    for role in ROLES:
        assert set(re.findall(r"\$\{(\w+)\}", settings(role)["ExecStart"][0])) <= named


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is systemd's own")
def test_systemd_understands_the_units_and_finds_them_closed(tmp_path: Path) -> None:
    for path in UNITS.glob("taskmill*.*"):
        text = path.read_text("utf-8").replace("/opt/taskmill/bin/taskmill", "/bin/true")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    units = [str(p) for p in tmp_path.iterdir() if p.suffix in {".service", ".target"}]
    analyze = ["systemd-analyze", "--man=no", "verify", *units]
    done = subprocess.run(analyze, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for role in ROLES:
        service = str(tmp_path / f"taskmill-{role}.service")
        command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", service]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
