"""The image: the Dockerfile's steps run without an engine, and built by one that answers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.brokers import quiet_port
from support.deployment import ROOT, dockerfile
from support.image_steps import Built
from support.oracle import Oracle
from support.workers import environment
from taskmill._version import __version__
from taskmill.cli.main import COMMANDS
from taskmill.runtime.broker_docker import DockerNodes
from taskmill.runtime.config import Settings

#: Some 50 wheels are fetched, unless pip has them.
pytestmark = [pytest.mark.tools, pytest.mark.timeout(600)]

APP = """
from taskmill import App

app = App("shop")

@app.task
async def add(a: int, b: int) -> int:
    return a + b
"""


@pytest.fixture(scope="module")
def image() -> Iterator[Built]:
    # Not pytest's own folder, which nobody else may enter.
    folder = Path(tempfile.mkdtemp(prefix="taskmill-image-", dir="/tmp"))
    built = Built(folder)
    (folder / "app" / "shop.py").write_text(APP, encoding="utf-8")
    yield built
    shutil.rmtree(folder)


def files(root: Path) -> dict[str, tuple[int, int]]:
    """Everything but what a container may write to: size and time of change, by path."""
    free = (root / "var", root / "tmp", root / "root")
    found = {}
    for path in root.rglob("*"):
        if not path.is_symlink() and not any(path.is_relative_to(one) for one in free):
            about = path.stat()
            found[str(path)] = (about.st_size, about.st_mtime_ns)
    return found


def test_every_step_was_run(image: Built) -> None:
    assert image.done == [step for step in dockerfile() if step.what != "FROM"]


def test_it_holds_taskmill_and_nothing_that_installs(image: Built) -> None:
    done = image.run("taskmill", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert __version__ in done.stdout
    assert not (image.root / "src").exists()
    names = {path.name for path in (image.root / "opt" / "taskmill" / "bin").iterdir()}
    assert "taskmill" in names
    assert not {name for name in names if name.startswith("pip")}
    done = image.run("python", "-c", "import setuptools")
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_there_with_what_it_imports(command: str, image: Built) -> None:
    done = image.run("taskmill", command, "--help")
    assert done.returncode == 0, done.stderr


@pytest.mark.kafka
def test_a_worker_of_it_works_is_healthy_writes_to_its_volume_alone_and_drains(
    image: Built, settings: Settings
) -> None:
    before = files(image.root)
    variables = environment(settings)
    variables["TASKMILL_METRICS_PORT"] = port = str(quiet_port())
    # The check asks there too, and on this machine another's console may answer.
    variables["TASKMILL_CONSOLE_PORT"] = str(quiet_port())
    variables["TASKMILL_STATE_DIR"] = str(image.root / "var" / "lib" / "taskmill")
    made = image.run("taskmill", "topics", "create", env=variables)
    assert made.returncode == 0, made.stderr
    check = ("python", str(image.root / "opt" / "taskmill" / "healthcheck.py"))
    assert image.run(*check, env=variables).returncode == 1
    user = image.uid
    worker = subprocess.Popen(
        ["taskmill", "worker", "-A", "shop:app"],
        executable=image.root / "opt" / "taskmill" / "bin" / "taskmill",
        cwd=image.root / "app",
        env={**image.environment(), **variables},
        stderr=subprocess.PIPE,
        text=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    try:
        assert worker.stderr is not None
        log = []
        for line in worker.stderr:
            log.append(line)
            if f"metrics on port {port}" in line:
                break
        assert worker.poll() is None, "".join(log)
        done = image.run(*check, env=variables)
        assert done.returncode == 0, done.stderr
        command = ("taskmill", "enqueue", "add", "--args", '{"a": 1, "b": 2}', "--id", "one")
        done = image.run(*command, env=variables)
        assert done.returncode == 0, done.stderr
        states = Oracle(str(settings.bootstrap_servers), settings.prefix).wait_states(["one"])
        assert states[b"one"]["status"] == "succeeded"
        worker.send_signal(signal.SIGTERM)
        rest = worker.stderr.read()
        assert worker.wait(30) == 0, rest
        assert "draining" in rest
    finally:
        worker.kill()
        worker.wait()
        assert worker.stderr is not None
        worker.stderr.close()
    assert files(image.root) == before
    assert (image.root / "var" / "lib" / "taskmill" / "node-id").exists()


ENGINE = (
    DockerNodes(os.environ, print)._docker
    and not subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, check=False
    ).returncode
)


@pytest.mark.skipif(not ENGINE, reason="no Docker engine answers: the image is NOT BUILT")
def test_an_engine_builds_it_and_runs_it_with_a_read_only_root() -> None:
    name = f"taskmill-test-{uuid.uuid4().hex[:8]}"
    build = ["docker", "build", "--quiet", "--tag", name, str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    try:
        safe = ["--rm", "--read-only", "--cap-drop", "ALL", "--network", "none"]
        run = ["docker", "run", *safe, name, "--version"]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        assert __version__ in done.stdout
        as_whom = ["docker", "run", *safe, "--entrypoint", "id", name, "-u"]
        done = subprocess.run(as_whom, capture_output=True, text=True, check=True)
        assert done.stdout == "10001\n"
    finally:
        subprocess.run(["docker", "rmi", "--force", name], capture_output=True, check=False)
