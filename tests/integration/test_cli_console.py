"""`taskmill console`: what it says where it cannot start, and how it ends."""

from __future__ import annotations

import resource
import signal
import socket
import sys
from pathlib import Path

import pytest

from support.commands import Command, set_environment
from support.consoles import ConsoleProcess
from taskmill.runtime.config import Settings

pytestmark = pytest.mark.timeout(120)

NOWHERE = Settings(bootstrap_servers="127.0.0.1:1", prefix="t", partitions=1)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = NOWHERE.model_copy(update={"state_dir": tmp_path / "state"})
    set_environment(settings, monkeypatch)
    return settings


def test_a_port_that_is_taken_is_one_line(nowhere: Settings, command: Command) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ran = command("console", "--port", str(port))
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert f"port {port} of 127.0.0.1 cannot be had" in ran.err
    assert not nowhere.state_dir.exists()


def test_without_the_extra_it_says_what_to_install(
    nowhere: Settings, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    ran = command("console")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "pip install 'taskmill[console]'" in ran.err


def test_two_on_one_file_are_one_too_many(nowhere: Settings, tmp_path: Path) -> None:
    with ConsoleProcess(nowhere, tmp_path) as one:
        one.wait_listening()
        with ConsoleProcess(nowhere, tmp_path) as two:
            assert two.process.wait(60) == 2
            assert "in use by another console" in two.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_also_without_kafka(
    nowhere: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    with ConsoleProcess(nowhere, tmp_path) as console:
        console.wait_listening()
        assert console.client().get("/healthz").status_code == 200
        assert console.client().get("/readyz").status_code == 503
        console.signal(number)
        assert console.process.wait(60) == 0


def test_it_takes_more_connections_than_a_shell_allows(nowhere: Settings, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        console = ConsoleProcess(nowhere, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with console:
        console.wait_listening()
        allowed, _ = resource.prlimit(console.pid, resource.RLIMIT_NOFILE)
        assert allowed == min(16_384, hard)
