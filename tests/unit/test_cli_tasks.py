"""`taskmill tasks`, and what a shell completes: against a scripted console."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import Command, runner
from support.pty_run import Terminal, taskmill
from support.scripted import ScriptedConsole, shop

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ScriptedConsole]:
    with ScriptedConsole(shop) as one:
        monkeypatch.setenv("TASKMILL_API_URL", one.url)
        monkeypatch.setenv("TASKMILL_API_TOKEN", "tm_1_x")
        monkeypatch.setenv("TASKMILL_STATE_DIR", str(tmp_path / "state"))
        yield one


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return runner(capsys)


def test_tasks_are_asked_for_and_printed_as_json(
    console: ScriptedConsole, command: Command
) -> None:
    ran = command(
        "tasks", "--status", "dead", "--status", "running", "--name", "a b", "-q", "mail",
        "--since", "1h", "--limit", "2", "--json",
    )  # fmt: skip
    assert ran.code == 0
    assert ran.json["more"] is True
    first, second = ran.json["tasks"]
    assert first["enqueued_at"] == "2026-11-26T14:00:00.000Z"
    assert second["error"]["type"] == "ValueError"
    (path,) = console.asked
    assert path == (
        "/api/v1/tasks?status=dead&status=running&name=a%20b&queue=mail&since=1h&limit=3"
    ) or path.endswith("name=a+b&queue=mail&since=1h&limit=3")


def test_a_pipe_gets_all_columns_whole_and_no_colours(
    console: ScriptedConsole, command: Command
) -> None:
    ran = command("tasks")
    assert "\x1b" not in ran.out
    head, *lines = ran.out.splitlines()
    assert head.split() == [
        "id",
        "status",
        "name",
        "queue",
        "age",
        "try",
        "took",
        "error",
        "worker",
    ]
    assert len(lines) == 3
    assert "no such customer " * 8 in lines[1]


@pytest.mark.parametrize("width", [80, 200])
def test_a_table_fits_the_terminal(console: ScriptedConsole, tmp_path: Path, width: int) -> None:
    with Terminal(taskmill("tasks"), tmp_path, dict(os.environ), (width, 24)) as terminal:
        assert terminal.wait() == 0
    lines = terminal.plain.replace("\r", "").rstrip("\n").split("\n")
    assert max(map(len, lines)) <= width
    assert len([line for line in lines if line.strip()]) == 5  # a head, a rule, three tasks
    assert "receipt:2" in terminal.plain
    assert ("worker" in terminal.plain) == (width == 200)
    assert "\x1b[31m" in terminal.text  # dead is red


def test_no_color_is_heeded(console: ScriptedConsole, tmp_path: Path) -> None:
    env = {**os.environ, "NO_COLOR": "1"}
    with Terminal(taskmill("tasks"), tmp_path, env, (120, 24)) as terminal:
        assert terminal.wait() == 0
    assert "\x1b[31m" not in terminal.text
    assert "receipt:2" in terminal.plain


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--status", "broken"), "'broken' is not one of 'scheduled', 'queued'"),
        (("--limit", "0"), "0 is not in the range 1<=x<=100000"),
    ],
)
def test_wrong_use_is_one_line(
    console: ScriptedConsole, command: Command, arguments: tuple[str, ...], says: str
) -> None:
    ran = command("tasks", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert len(ran.err.splitlines()) == 1


def test_without_a_console_it_says_what_to_do(command: Command) -> None:
    ran = command("tasks")
    assert ran.code == 2
    assert ran.err.startswith("taskmill: `taskmill tasks` asks a console: set TASKMILL_API_URL")
    assert len(ran.err.splitlines()) == 1


# ---- completion ---------------------------------------------------------------------------------

_BASH = """
eval "$(_TASKMILL_COMPLETE=bash_source taskmill)"
COMP_WORDS=({words}) COMP_CWORD={at} COMP_LINE="{words}"
{function} taskmill
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(*words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    bash = shutil.which("bash")
    assert bash is not None
    script = _BASH.format(
        words=" ".join(f"'{word}'" for word in ("taskmill", *words)),
        at=len(words),
        function="_taskmill_completion",
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "--norc", "-c", script], env={**os.environ, "PATH": path}, capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.split()


def test_bash_completes_commands_options_and_states() -> None:
    assert completed("sta") == ["status"]
    assert {"tasks", "top", "tokens", "topics"} <= set(completed("t"))
    assert completed("tasks", "--st") == ["--status"]
    assert completed("tasks", "--status", "s") == ["scheduled", "succeeded"]


def test_bash_completes_what_the_console_knows(console: ScriptedConsole) -> None:
    assert completed("tasks", "-q", "m") == ["mail"]
    assert completed("tasks", "--name", "") == ["bill", "send_receipt"]
    assert completed("status", "receipt:1") == ["receipt:1"]
    assert any("prefix=receipt%3A1" in path for path in console.asked)


def test_without_a_console_nothing_is_offered_and_nothing_said() -> None:
    assert completed("tasks", "-q", "m") == []


def test_the_help_says_how_it_is_switched_on(command: Command) -> None:
    out = command("--help").out
    for shell in ("bash", "zsh", "fish"):
        assert f"_TASKMILL_COMPLETE={shell}_source taskmill" in out


def test_json_of_the_list_is_one_document(console: ScriptedConsole, command: Command) -> None:
    assert json.loads(command("tasks", "--json").out)["more"] is False
