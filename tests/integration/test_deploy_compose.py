"""docker-compose.yml, read by Compose's own library, which holds it against the specification."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from support.deployment import DEPLOY, ROOT, program

# A first run compiles the library.
pytestmark = [pytest.mark.tools, pytest.mark.timeout(600)]

#: Its command prints a project as it understands it. Of the later versions it leaves variables
#: unset, so today's schema is asked without them, and an earlier version what becomes of them.
TODAY, WITH_VARIABLES = "v2.16.2", "v2.1.6"


def read(version: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    go = program("go", "sudo apt-get install golang (or your system's way), 1.21 or later")
    command = [go, "run", f"github.com/compose-spec/compose-go/v2/cmd@{version}", "-format", "json"]
    return subprocess.run(
        [*command, *options, str(ROOT / "docker-compose.yml")],
        env={**os.environ, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def passwords(folder: Path) -> dict[str, str]:
    file = folder / ".env"
    subprocess.run([str(DEPLOY / "secrets.sh"), str(file)], check=True, capture_output=True)
    return dict(line.split("=", 1) for line in file.read_text("utf-8").splitlines())


def test_it_is_what_the_specification_of_today_allows() -> None:
    done = read(TODAY, "-no-interpolation")
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert services["worker"]["deploy"]["replicas"] == 2
    for name in ("worker", "scheduler", "console"):
        assert services[name]["read_only"] is True
        assert services[name]["depends_on"]["kafka"]["condition"] == "service_healthy"


def test_with_the_passwords_made_each_comes_to_its_place(tmp_path: Path) -> None:
    made = passwords(tmp_path)
    done = read(WITH_VARIABLES, **made)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    password = made["POSTGRES_PASSWORD"]
    url = f"postgresql://taskmill:{password}@postgres:5432/taskmill"
    assert services["console"]["environment"]["TASKMILL_STORE_URL"] == url
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == password
    grafana = services["grafana"]["environment"]
    assert grafana["GF_SECURITY_ADMIN_PASSWORD"] == made["GRAFANA_PASSWORD"]
    assert services["worker"]["command"][:3] == ["worker", "-A", "stdlib_index:app"]


@pytest.mark.parametrize("missing", ["POSTGRES_PASSWORD", "GRAFANA_PASSWORD"])
def test_without_a_password_it_says_what_to_run(missing: str, tmp_path: Path) -> None:
    done = read(WITH_VARIABLES, **{**passwords(tmp_path), missing: ""})
    assert done.returncode != 0
    assert f"{missing} is missing a value: is not set, run deploy/secrets.sh" in done.stderr


def test_prometheus_understands_its_configuration() -> None:
    promtool = program("promtool", "sudo apt-get install prometheus, or your system's way")
    config = DEPLOY / "prometheus" / "prometheus.yml"
    # The rules that it names lie where the container has them.
    check = [promtool, "check", "config", "--syntax-only", str(config)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
