"""`dev --reload`: edited code runs, what ran is finished, a slip of the pen ends nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskmill.app import App
from taskmill.runtime.clock import SYSTEM_CLOCK, Deadline
from taskmill.runtime.config import Settings

SHOP = """
import time
from pathlib import Path

from taskmill import App
from prices import price

app = App("shop")

@app.task
def total(count: int) -> int:
    return count * price()

@app.task
def slow(folder: str) -> str:
    Path(folder, "started").touch()
    while not Path(folder, "edited").exists():
        time.sleep(0.02)
    time.sleep(1)
    return "finished"
"""


def prices(cents: int) -> str:
    return f"def price() -> int:\n    return {cents}\n"


@contextmanager
def dev(settings: Settings, folder: Path) -> Iterator[Path]:
    """`taskmill dev --reload` in `folder`; the file that its words go to."""
    said = folder / "said.txt"
    env = {
        **os.environ,
        "TASKMILL_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "TASKMILL_PREFIX": settings.prefix,
        "TASKMILL_PARTITIONS": str(settings.partitions),
        "TASKMILL_STATE_DIR": str(settings.state_dir),
        "TASKMILL_CONSOLE_PORT": "0",
    }
    command = [sys.executable, "-P", "-m", "taskmill", "dev", "--reload", "-A", "shop:app"]
    with said.open("w") as out:
        process = subprocess.Popen(command, cwd=folder, env=env, stderr=out, start_new_session=True)
        try:
            yield said
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(60) == 0, said.read_text()
        finally:
            process.kill()
            process.wait()


def wait_for(said: Path, pattern: str) -> None:
    deadline = Deadline(60)
    while not re.search(pattern, said.read_text()):
        assert not deadline.over(), f"no {pattern!r} in: {said.read_text()}"
        SYSTEM_CLOCK.sleep(0.02)


@pytest.mark.kafka
def test_edited_code_runs_and_what_cannot_be_imported_changes_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop.py").write_text(SHOP, encoding="utf-8")
    edited = folder / "prices.py"
    edited.write_text(prices(5), encoding="utf-8")
    with dev(settings, folder) as said, App("test", settings) as app:

        def total() -> object:
            return app.enqueue("total", {"count": 2}, declared=False).result(timeout=60)

        assert total() == 10

        # A module that the App imports; a handler that is running then is finished first.
        slow = app.enqueue("slow", {"folder": str(folder)}, declared=False)
        deadline = Deadline(60)
        while not (folder / "started").exists():
            assert not deadline.over()
            SYSTEM_CLOCK.sleep(0.02)
        edited.write_text(prices(7), encoding="utf-8")
        (folder / "edited").touch()
        wait_for(said, r"prices\.py changed\n")
        assert slow.result(timeout=60) == "finished"
        assert slow.state().attempt == 1
        wait_for(said, r"(?s)changed\n.*worker \|.*restored")
        assert total() == 14

        edited.write_text("def price(:\n", encoding="utf-8")
        wait_for(said, r"SyntaxError: .* at \S*prices\.py:1: what runs goes on as it was")
        assert total() == 14

        edited.write_text(prices(9), encoding="utf-8")
        wait_for(said, r"(?s)goes on as it was.*changed\n.*worker \|.*restored")
        assert total() == 18
    assert "Traceback" not in said.read_text()
