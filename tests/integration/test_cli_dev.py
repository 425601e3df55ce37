"""`taskmill dev`: everything up, tasks run, and Ctrl-C drains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from support.consoles import eventually
from taskmill.app import App
from taskmill.console.tokens import TokenTable
from taskmill.runtime.config import Settings

TASKS = """
import time
from pathlib import Path
from taskmill import App

app = App("shop")

@app.task
def add(a: int, b: int) -> int:
    return a + b

@app.task
def slow(started: str) -> str:
    Path(started).touch()
    time.sleep(2)
    return "done"
"""


@contextmanager
def dev(settings: Settings, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`taskmill dev` in `folder`, its output up to the end in `.stderr`."""
    (folder / "shop.py").write_text(TASKS, encoding="utf-8")
    env = {
        **os.environ,
        "TASKMILL_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "TASKMILL_PREFIX": settings.prefix,
        "TASKMILL_PARTITIONS": str(settings.partitions),
        "TASKMILL_STATE_DIR": str(settings.state_dir),
        "TASKMILL_CONSOLE_PORT": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "taskmill", "dev", "-A", "shop:app"],
        cwd=folder,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"no {text!r} in: {''.join(seen)}")


@pytest.mark.kafka
def test_dev_runs_tasks_and_ends_at_ctrl_c(settings: Settings, tmp_path: Path) -> None:
    with dev(settings, tmp_path) as process, App("test", settings) as app:
        read_until(process, "worker | ")
        assert app.enqueue("add", {"a": 1, "b": 2}, declared=False).result(timeout=60) == 3
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0


@pytest.mark.kafka
def test_dev_has_a_console_whose_token_holds_while_it_runs(
    settings: Settings, tmp_path: Path
) -> None:
    with dev(settings, tmp_path) as process:
        address = read_until(process, "console at http").split()[-1]
        url, _, secret = address.partition("/#token=")
        read_until(process, "console | console at ")
        headers = {"Authorization": f"Bearer {secret}"}
        eventually(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        assert httpx.get(f"{url}/api/v1/me", headers=headers).json()["scopes"] == ["admin"]
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
    table = TokenTable(settings)
    assert [one.revoked_at is None for one in table.all()] == [False]


@pytest.mark.kafka
def test_ctrl_c_waits_for_a_running_handler(settings: Settings, tmp_path: Path) -> None:
    started = tmp_path / "started"
    with dev(settings, tmp_path) as process, App("test", settings) as app:
        handle = app.enqueue("slow", {"started": str(started)}, declared=False)
        read_until(process, "restored")
        wait_for(started)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
        assert handle.result(timeout=30) == "done"


def wait_for(file: Path) -> None:
    """Poll for `file`: a handler in another process has no other signal to give."""
    from taskmill.runtime.clock import SYSTEM_CLOCK, Deadline

    deadline = Deadline(60)
    while not file.exists():
        assert not deadline.over(), f"{file} never came"
        SYSTEM_CLOCK.sleep(0.02)


@pytest.mark.kafka
def test_a_role_that_ends_by_itself_ends_the_others(settings: Settings, tmp_path: Path) -> None:
    settings.state_dir.mkdir()
    (settings.state_dir / "slots").write_text("a file where a folder should be", encoding="utf-8")
    with dev(settings, tmp_path) as process:
        output = process.communicate(timeout=60)[1]
        assert process.returncode == 1
    assert "worker | taskmill: state directory" in output
    assert "worker ended by itself" in output
    assert "Traceback" not in output


def test_a_bad_target_is_told_before_anything_starts(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "taskmill", "dev", "-A", "nowhere:app"],
        cwd=tmp_path,
        env={**os.environ, "TASKMILL_STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 2
    assert "no module 'nowhere'" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "state").exists()
