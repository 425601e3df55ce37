"""docker-compose.yml: who waits for whom, what is secret, and that it agrees with the code."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.deployment import DEPLOY, ROOT, compose_file
from taskmill.runtime.broker_docker import IMAGE
from taskmill.runtime.broker_settings import LONE_SESSION_MS, shared_settings
from taskmill.runtime.config import Settings

SERVICES: dict[str, Any] = compose_file()["services"]
OURS = ("topics", "worker", "scheduler", "console")
TEXT = (ROOT / "docker-compose.yml").read_text("utf-8")


def conditions(service: str) -> dict[str, str]:
    waits = SERVICES[service].get("depends_on", {})
    return {name: how["condition"] for name, how in waits.items()}


def test_all_roles_are_there_and_run_the_one_image() -> None:
    assert set(SERVICES) == {*OURS, "kafka", "postgres", "prometheus", "grafana"}
    assert len({SERVICES[name]["image"] for name in OURS}) == 1
    assert SERVICES["worker"]["deploy"]["replicas"] == 2


def test_nothing_starts_before_what_it_needs() -> None:
    assert conditions("topics") == {"kafka": "service_healthy"}
    after_topics = {"kafka": "service_healthy", "topics": "service_completed_successfully"}
    assert conditions("worker") == conditions("scheduler") == after_topics
    assert conditions("console") == {**after_topics, "postgres": "service_healthy"}
    assert conditions("grafana") == {"prometheus": "service_healthy"}


@pytest.mark.parametrize("name", ["kafka", "postgres", "prometheus", "grafana"])
def test_what_is_not_ours_has_a_health_check(name: str) -> None:
    # Of ours it is the image's own.
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_kafka_is_the_version_and_has_the_settings_of_the_local_broker() -> None:
    kafka = SERVICES["kafka"]
    assert kafka["image"] == IMAGE
    wanted = {
        f"KAFKA_{name.upper().replace('.', '_')}": value
        for name, value in shared_settings(1).items()
    }
    wanted["KAFKA_BROKER_SESSION_TIMEOUT_MS"] = str(LONE_SESSION_MS)
    assert {name: kafka["environment"].get(name) for name in wanted} == wanted


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_do_no_more_than_they_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service
    # What is drained has the time for it.
    assert service["stop_grace_period"] == "60s"


def test_ports_are_published_to_this_machine_alone() -> None:
    published = [port for one in SERVICES.values() for port in one.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_what_is_mounted_from_here_is_here() -> None:
    for name, service in SERVICES.items():
        for mount in service.get("volumes", ()):
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", mount).split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name}: {source}"


def test_the_app_that_runs_unless_you_say_otherwise_is_an_example() -> None:
    module = re.findall(r"\$\{APP:-(\w+):app\}", TEXT)
    assert len(module) == 2
    assert all((ROOT / "examples" / f"{one}.py").is_file() for one in module)


def secrets(folder: Path, text: str | None = None) -> dict[str, str]:
    file = folder / "secrets.env"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    script = str(DEPLOY / "secrets.sh")
    done = subprocess.run([script, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = dict(line.split("=", 1) for line in file.read_text("utf-8").splitlines())
    assert not any(value and value in done.stdout + done.stderr for value in found.values())
    return found


def test_passwords_are_made_and_none_is_written_in_the_file(tmp_path: Path) -> None:
    made = secrets(tmp_path)
    assert set(made) == set(re.findall(r"\$\{(\w+):\?", TEXT))
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in made.values())
    assert len(set(made.values())) == len(made)
    # Each place of a password fails without one, and says what to do.
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable or "PASSWORD" in str(value):
                assert ":?is not set, run deploy/secrets.sh}" in value, (name, variable)
    assert not re.search(r"\$\{\w*PASSWORD\w*:?-", TEXT)


def test_passwords_that_there_are_stay(tmp_path: Path) -> None:
    first = secrets(tmp_path)
    assert secrets(tmp_path) == first
    # The last line lacks its end.
    mine = secrets(tmp_path, "POSTGRES_PASSWORD=chosen\nGRAFANA_PASSWORD=\nAPP=a:b")
    assert mine["POSTGRES_PASSWORD"] == "chosen"
    assert mine["APP"] == "a:b"
    assert len(mine["GRAFANA_PASSWORD"]) == 48


def test_the_file_of_passwords_is_ignored() -> None:
    assert "/.env" in (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert "!.env" not in (ROOT / ".dockerignore").read_text("utf-8").splitlines()


def test_prometheus_scrapes_every_role_where_it_serves() -> None:
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8")
    for target in ("[worker]", "[scheduler]", "console:8420", "9464"):
        assert target in text
    assert "/etc/prometheus/rules/*.rules.yml" in text
    assert any(v.startswith("./deploy/alerts:") for v in SERVICES["prometheus"]["volumes"])


def test_no_setting_of_ours_is_misspelt() -> None:
    known = {f"TASKMILL_{name.upper()}" for name in Settings.model_fields}
    for name in OURS:
        assert set(SERVICES[name]["environment"]) <= known
