"""The Dockerfile, as far as it can be read; its steps are run in integration/."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from support.brokers import quiet_port
from support.deployment import DEPLOY, ROOT, dockerfile, environment_of_image

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FINAL = max(step.stage for step in dockerfile())


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def test_the_image_has_the_tests_versions_of_all_that_the_roles_need() -> None:
    image, tests = pins("image"), pins("dev")
    assert {name: tests.get(name) for name in image} == image
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    # A Java is the local broker's, which no container runs.
    wanted = [*project["dependencies"], *(r for e, rs in extras.items() if e != "jdk" for r in rs)]
    names = {re.split(r"[\[<>=~]", one)[0].strip() for one in wanted}
    assert names <= set(image)
    assert "://" not in (ROOT / "requirements" / "image.txt").read_text("utf-8")


def test_every_room_is_copied_and_nothing_beside_them() -> None:
    copied = {
        word
        for step in dockerfile()
        if step.what == "COPY" and step.stage == 0
        for word in step.words[:-1]
    }
    folders = {path.split("/")[0] for path in PROJECT["tool"]["setuptools"]["package-dir"].values()}
    files = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml"}
    assert copied == folders | files | {"requirements/image.txt"}
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    let = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert let == copied | {"deploy/image"}


def test_the_image_is_slim_and_runs_as_nobody_in_particular() -> None:
    steps = dockerfile()
    bases = [step.text.split()[0] for step in steps if step.what == "FROM"]
    assert len(bases) == FINAL + 1 == 2
    assert all("slim" in base for base in bases)
    assert (ROOT / "Dockerfile").read_text("utf-8").count("ARG PYTHON_IMAGE=") == 1
    last = {step.what: step for step in steps if step.stage == FINAL}
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"].text)
    assert last["ENTRYPOINT"].words == ["taskmill"]  # no shell, which would keep SIGTERM
    assert last["STOPSIGNAL"].text == "SIGTERM"
    assert "healthcheck.py" in last["HEALTHCHECK"].text
    assert not [s for s in steps if s.stage == FINAL and s.what == "RUN" and "install" in s.text]


def test_what_is_written_lies_in_the_state_directory_or_tmp() -> None:
    env = environment_of_image()
    assert env["TASKMILL_STATE_DIR"] == env["HOME"] == "/var/lib/taskmill"
    assert env["PYTHONDONTWRITEBYTECODE"] == "1"


class Server(HTTPServer):
    """Says `status` to whoever asks."""

    def __init__(self, port: int, status: int) -> None:
        self.asked: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        super().__init__(("127.0.0.1", port), Handler)
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    made: list[Server] = []
    yield made
    for one in made:
        one.close()


def healthcheck(metrics: int, console: int, *words: str) -> subprocess.CompletedProcess[str]:
    ports = {"TASKMILL_METRICS_PORT": str(metrics), "TASKMILL_CONSOLE_PORT": str(console)}
    command = [sys.executable, str(DEPLOY / "image" / "healthcheck.py"), *words]
    env = {**os.environ, **ports}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("role", ["worker", "console"])
def test_a_role_that_says_that_it_lives_is_healthy(role: str, servers: list[Server]) -> None:
    there, away = quiet_port(), quiet_port()
    servers.append(Server(there, 200))
    ports = (there, away) if role == "worker" else (away, there)
    assert healthcheck(*ports).returncode == 0
    assert healthcheck(*ports, "/readyz").returncode == 0
    assert servers[0].asked == ["/healthz", "/readyz"]


def test_a_role_that_says_no_or_nothing_is_not(servers: list[Server]) -> None:
    there, away = quiet_port(), quiet_port()
    servers.append(Server(there, 503))
    done = healthcheck(there, away)
    assert done.returncode == 1
    assert done.stderr == f"/healthz: {there}: 503, {away}: ConnectionRefusedError\n"


def test_the_file_is_where_the_image_expects_it() -> None:
    copies = [s.words for s in dockerfile() if s.what == "COPY" and "deploy" in s.text]
    assert copies == [["deploy/image/healthcheck.py", "/opt/taskmill/healthcheck.py"]]
    assert Path(ROOT, copies[0][0]).is_file()
