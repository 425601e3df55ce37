"""The frame of the commands: every failure ends in one line and the contract's exit code."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from taskmill.cli import main as frame
from taskmill.cli.main import COMMANDS, Entry, cli
from taskmill.cli.output import print_json, print_table, shown
from taskmill.runtime.errors import ConfigError, TaskmillError, Unreachable


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKMILL_STATE_DIR", str(tmp_path / "state"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def run_raising(monkeypatch: pytest.MonkeyPatch, error: BaseException, *options: str) -> Result:
    """`taskmill fail`, a command that raises `error`."""

    @click.command()
    def fail() -> None:
        raise error

    monkeypatch.setitem(COMMANDS, "fail", Entry("not.imported:fail", ""))
    stand_in: Any = type("Module", (), {"fail": fail})
    monkeypatch.setattr(frame.importlib, "import_module", lambda name: stand_in)
    return run(*options, "fail")


def test_every_command_of_the_table_can_be_loaded_and_is_listed() -> None:
    listed = run("--help").output
    for name, entry in COMMANDS.items():
        module, attribute = entry.target.split(":")
        assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)
        assert f"  {name} " in listed


def test_help_imports_no_command() -> None:
    script = (
        "import sys; from taskmill.cli.main import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('confluent_kafka', 'pydantic', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TaskmillError("the work failed"), 1),
        (ConfigError("the option is wrong"), 2),
        (Unreachable("nobody there"), 3),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
)
def test_an_error_ends_in_its_line_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    result = run_raising(monkeypatch, error)
    assert result.exit_code == code
    assert result.stdout == ""
    # Of an interruption nothing is said; click ends the line that shows ^C.
    assert result.stderr.strip() == (f"taskmill: {error}" if str(error) else "")


def test_an_error_nobody_foresaw_is_one_line_too_and_debug_shows_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = run_raising(monkeypatch, ZeroDivisionError("division by zero"))
    assert result.exit_code == 1
    assert "unexpected ZeroDivisionError: division by zero" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_debug_shows_the_traceback_and_keeps_the_exit_code() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "taskmill", "--debug", "config"],
        env={**os.environ, "TASKMILL_PARTITIONS": "0"},
        capture_output=True,
        text=True,
    )
    assert "Traceback" in done.stderr
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("taskmill: setting partitions")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["brokr"], "no command 'brokr'; did you mean 'broker'?"),
        (["broker", "up", "--nodes", "2"], "'2' is not one of '1', '3'"),
        (["config", "--jsn"], "--json"),
        (["topics", "create", "-q", "a.b"], "letters, digits"),
    ],
)
def test_wrong_use_is_one_line_that_says_what_is_allowed(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody answers there: wrong use is told before any broker is asked.
    monkeypatch.setenv("TASKMILL_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_wrong_setting_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_PARTITIONS", "0")
    result = run("config")
    assert result.exit_code == 2
    assert result.stderr.startswith("taskmill: setting partitions (TASKMILL_PARTITIONS)")
    assert len(result.stderr.splitlines()) == 1


def test_config_shows_values_their_origin_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKMILL_KAFKA__SASL_PASSWORD", "hunter2")
    monkeypatch.setenv("TASKMILL_PREFIX", "shop")
    monkeypatch.setenv("TASKMILL_PREFFIX", "shop")
    plain = run("config")
    assert plain.exit_code == 0
    assert "hunter2" not in plain.output
    assert "TASKMILL_PREFFIX" in plain.stderr
    settings = json.loads(run("config", "--json").stdout)["settings"]
    assert settings["prefix"] == {"value": "shop", "from": "environment"}
    assert settings["partitions"] == {"value": 12, "from": "default"}
    assert settings["bootstrap_servers"] == {
        "value": "localhost:9092",
        "from": "default (no local broker runs)",
    }
    assert "hunter2" not in json.dumps(settings)


def test_config_of_an_app_names_its_tasks_without_a_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (
        "from taskmill import App",
        "app = App('clocked', prefix='own')",
        "app.task(lambda: 1, name='quick', timeout='5s')",
        "app.task(lambda: 1, name='endless')",
    )
    (tmp_path / "clocked.py").write_text("\n".join(lines))
    monkeypatch.setattr(sys, "path", list(sys.path))
    plain = run("config", "-A", "clocked:app")
    assert "tasks without a timeout, which may run for ever: endless\n" in plain.stderr
    told = json.loads(run("config", "-A", "clocked:app", "--json").stdout)
    assert told["tasks_without_timeout"] == ["endless"]
    assert told["settings"]["prefix"] == {"value": "own", "from": "given"}


def test_an_unreachable_broker_is_told_with_its_address_and_exit_code_3(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The discard port: nobody listens there.
    monkeypatch.setenv("TASKMILL_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setattr("taskmill.cli.broker._STATUS_LIMIT_S", 0.3)
    up = run("broker", "up")
    assert up.exit_code == 3
    assert "Kafka at 127.0.0.1:9 did not answer within 0.3 s" in up.stderr
    status = run("broker", "status", "--json")
    assert status.exit_code == 3
    assert json.loads(status.stdout)["answers"] is False


def test_a_reader_that_leaves_early_causes_no_traceback() -> None:
    command = f"{sys.executable} -m taskmill config --json | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


def test_a_table_in_a_pipe_is_neither_cut_nor_coloured_and_holds_no_escape_sequence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("id", "n"), [("x" * 500, None), ("[red]a\x1b[31m\n", 1)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "x" * 500 in lines[1]
    assert "[red]a\\x1b[31m\\n" in lines[2]


def test_json_is_one_document_and_nothing_is_a_dash(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_json({"path": Path("a"), "name": "ä"})
    assert json.loads(capsys.readouterr().out) == {"path": "a", "name": "ä"}
    assert shown(None) == "-"
