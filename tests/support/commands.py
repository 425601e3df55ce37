"""The `taskmill` command in this process, as a shell would see it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from taskmill.cli.main import cli
from taskmill.runtime.config import Settings


class Ran:
    """What a command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


#: Runs a command.
Command = Callable[..., Ran]


def set_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands, in this process and below it, use the test's settings."""
    for name in ("bootstrap_servers", "prefix", "partitions", "state_dir"):
        monkeypatch.setenv(f"TASKMILL_{name.upper()}", str(getattr(settings, name)))


def runner(capsys: pytest.CaptureFixture[str]) -> Command:
    """What runs a command and catches what it prints."""

    def run(*args: str) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main(list(args))
        printed = capsys.readouterr()
        return Ran(int(caught.value.code or 0), printed.out, printed.err)

    return run
