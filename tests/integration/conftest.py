"""Fixtures that more than one file of the integration tests takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import pages
from support.commands import Command, runner, set_environment
from support.consoles import Stand
from support.letters import LetterBox
from support.migrations import Scene
from support.postgres import Postgres
from taskmill.runtime.config import Settings


@pytest.fixture
def half(settings: Settings, tmp_path: Path) -> Callable[..., Scene]:
    """`half(old)`: a queue of `old` partitions, half processed."""

    def make(old: int, many: int = 60) -> Scene:
        scene = Scene(settings, tmp_path, old, many)
        scene.half_processed()
        return scene

    return make


@pytest.fixture
def letters(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LetterBox]:
    """A queue to make dead letters in; commands use its settings."""
    set_environment(settings, monkeypatch)
    with LetterBox(settings, tmp_path) as one:
        yield one


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `taskmill`."""
    return runner(capsys)


@pytest.fixture
def url(postgres: Postgres, database: str) -> str:
    """A database of the test's own, with a table for what handlers do."""
    postgres.query("CREATE TABLE effects (id text, n int)", database)
    return database


@pytest.fixture(scope="module")
def stand(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A console and a worker, shared by the tests of a file."""
    with Stand(broker, tmp_path_factory.mktemp("stand")) as one:
        yield one


@pytest.fixture(scope="module")
def stage(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pages.Stage]:
    """A console, a worker with a gate and a scheduler, for a file of tests of the dashboard."""
    with pages.Stage(broker, tmp_path_factory.mktemp("stage")) as one:
        yield one


@pytest.fixture(scope="module")
def chromium() -> Iterator[pages.Chromium]:
    """The browser that the tests of a file share."""
    with pages.Chromium() as one:
        yield one


@pytest.fixture
def tab(stage: pages.Stage, chromium: pages.Chromium) -> Iterator[pages.Tab]:
    """A blank tab, wide and light."""
    with chromium.tab(stage.console.url) as one:
        yield one
