"""`taskmill top` in a pseudo-terminal: what it shows at which size, its keys, and how it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.pty_run import ALT_OFF, ALT_ON, CURSOR_ON, Terminal, taskmill
from support.scripted import ScriptedConsole, groups, overview, problem, queues, shop

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def console() -> Iterator[ScriptedConsole]:
    with ScriptedConsole(shop) as one:
        yield one


def environment(console: ScriptedConsole, folder: Path) -> dict[str, str]:
    return {
        "TASKMILL_API_URL": console.url,
        "TASKMILL_API_TOKEN": "tm_1_x",
        "TASKMILL_STATE_DIR": str(folder / "state"),
    }


def top(
    console: ScriptedConsole, folder: Path, size: tuple[int, int] = (120, 30), *more: str
) -> Terminal:
    return Terminal(taskmill("top", *more), folder, environment(console, folder), size)


def assert_restored(terminal: Terminal) -> None:
    assert terminal.text.count(ALT_ON) == terminal.text.count(ALT_OFF) >= 1
    assert terminal.text.rindex(CURSOR_ON) > terminal.text.rindex("\x1b[?25l")
    assert terminal.modes == terminal.before


@pytest.mark.parametrize("width", [80, 200])
def test_it_fits_the_terminal(console: ScriptedConsole, tmp_path: Path, width: int) -> None:
    with top(console, tmp_path, (width, 24)) as terminal:
        terminal.wait_for(r"q quit")
        terminal.type("q")
        assert terminal.wait() == 0
    shown = terminal.plain
    for word in ("running 3", "1,234,567", "default", "mail", "1,234.5", "12,345", "no such"):
        assert word in shown, word
    assert ("wait p50" in shown) == (width == 200)
    assert "it is \\x1b[31mbroken\\n" in shown
    lines = [line.rstrip() for line in terminal.plain.replace("\r", "").split("\n")]
    assert max(map(len, lines)) <= width + len("q quit")
    assert_restored(terminal)


@pytest.mark.parametrize("size", [(20, 5), (1, 1), (40, 8)])
def test_a_tiny_terminal_is_no_trouble(
    console: ScriptedConsole, tmp_path: Path, size: tuple[int, int]
) -> None:
    with top(console, tmp_path, size) as terminal:
        terminal.wait_for("t" if size[0] > 1 else ".")
        terminal.type("q")
        assert terminal.wait() == 0
    assert_restored(terminal)


def test_it_follows_the_size_of_its_terminal(console: ScriptedConsole, tmp_path: Path) -> None:
    with top(console, tmp_path, (80, 24), "--interval", "1h") as terminal:
        terminal.wait_for("q quit")
        assert "wait p50" not in terminal.plain
        terminal.resize(200, 50)
        terminal.wait_for("wait p50")
        terminal.type("\x04")
        assert terminal.wait() == 0


def test_space_asks_at_once(console: ScriptedConsole, tmp_path: Path) -> None:
    with top(console, tmp_path, (120, 30), "--interval", "1h") as terminal:
        terminal.wait_for("q quit")
        before = len(console.asked)
        terminal.type(" ")
        terminal.wait_for("as of", fresh=True)
        terminal.type("q")
        assert terminal.wait() == 0
    assert len(console.asked) > before


@pytest.mark.parametrize(
    ("way", "code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
        (signal.SIGINT, 0),
        (signal.SIGQUIT, 131),
    ],
)
def test_whatever_ends_it_the_terminal_is_as_it_was(
    console: ScriptedConsole, tmp_path: Path, way: signal.Signals, code: int
) -> None:
    with top(console, tmp_path) as terminal:
        terminal.wait_for("q quit")
        terminal.process.send_signal(way)
        assert terminal.wait() == code
    assert_restored(terminal)


def test_ctrl_z_gives_the_terminal_back_and_fg_takes_it_again(
    console: ScriptedConsole, tmp_path: Path
) -> None:
    with top(console, tmp_path) as terminal:
        terminal.wait_for("q quit")
        terminal.process.send_signal(signal.SIGTSTP)
        _, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        while ALT_OFF not in terminal.text:
            terminal._read(1.0)
        assert_restored(terminal)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.wait_for("q quit", fresh=True)
        terminal.type("q")
        assert terminal.wait() == 0
    assert_restored(terminal)


def test_a_console_that_goes_away_is_told_of_and_comes_back(tmp_path: Path) -> None:
    is_away = False

    def answer(path: str) -> Any:
        return None if is_away else shop(path)

    with (
        ScriptedConsole(answer) as console,
        pytest.MonkeyPatch.context(),
        top(console, tmp_path, (120, 30), "--interval", "100ms") as terminal,
    ):
        terminal.wait_for("q quit")
        is_away = True
        terminal.wait_for("no answer for .*the store is behind")
        is_away = False
        terminal.wait_for("as of", fresh=True)
        terminal.type("q")
        assert terminal.wait() == 0


def test_a_token_that_is_revoked_ends_it_with_one_line(tmp_path: Path) -> None:
    calls = 0

    def answer(path: str) -> Any:
        nonlocal calls
        calls += 1
        if calls > 3:
            return {**problem(401, "the token was revoked"), "status_code": 401}
        return shop(path)

    with (
        ScriptedConsole(answer) as console,
        top(console, tmp_path, (120, 30), "--interval", "100ms") as terminal,
    ):
        assert terminal.wait() == 2
    assert terminal.plain.rstrip().endswith("taskmill: the token was revoked")
    assert_restored(terminal)


def test_more_than_there_is_room_for_is_counted(tmp_path: Path) -> None:
    names = [f"queue-{n:02}" for n in range(40)]

    def answer(path: str) -> Any:
        if path.startswith("/overview"):
            return overview(*names)
        return queues(*names) if path.startswith("/queues") else groups()

    with ScriptedConsole(answer) as console, top(console, tmp_path, (80, 24)) as terminal:
        terminal.wait_for(r"… and \d+ more")
        terminal.type("q")
        assert terminal.wait() == 0


# ---- without a terminal -------------------------------------------------------------------------


def piped(folder: Path, env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        taskmill("top", *arguments), cwd=folder, env={**os.environ, **env}, capture_output=True,
        text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_json_is_an_object_a_line(console: ScriptedConsole, tmp_path: Path) -> None:
    env = environment(console, tmp_path)
    done = piped(tmp_path, env, "--json", "--count", "2", "--interval", "100ms")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first.keys() == second.keys()
    assert first["totals"]["running"] == 3
    assert first["as_of"] == "2026-11-26T14:00:00.000Z"
    assert [one["queue"] for one in first["queues"]] == ["default", "mail", "paused"]
    assert first["queues"][0]["workers"] == 3
    assert first["failures"][0]["error"]["message"] == "no such customer"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        ((), "top shows itself in a terminal; elsewhere --json prints lines", 2),
        (("--count", "2"), "--count goes with --json", 2),
        (("--json", "--interval", "1ms"), "--interval is at least 100ms", 2),
        (("--json", "--interval", "soon"), "duration 'soon'", 2),
    ],
)
def test_wrong_use_is_one_line(
    console: ScriptedConsole, tmp_path: Path, arguments: tuple[str, ...], says: str, code: int
) -> None:
    done = piped(tmp_path, environment(console, tmp_path), *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_console_it_says_what_to_do(tmp_path: Path) -> None:
    done = piped(tmp_path, {"TASKMILL_STATE_DIR": str(tmp_path)}, "--json")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "set TASKMILL_API_URL to its address" in line
