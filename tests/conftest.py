"""Fixtures of all tests: the run's broker, a test's own prefix and settings, private brokers."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest

from support.brokers import PrivateBroker, delete_topics, shared_broker
from support.postgres import Postgres
from taskmill.runtime.config import Settings

pytest_plugins = ["support.proof"]

# The compiler that pays off after an hour takes half the CPU of a broker that lives for minutes:
# 600 transactions in its first minute cost it 8 s, not 17, its start 4 s, not 9.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")

# How long one example takes is the machine's affair: tests have time limits of their own.
hypothesis.settings.register_profile("taskmill", deadline=None)
hypothesis.settings.load_profile("taskmill")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's TASKMILL_… variables do not reach a test."""
    for name in list(os.environ):
        if name.startswith("TASKMILL_") and not name.startswith("TASKMILL_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the root of the clone, a child's `import taskmill` would find the folder of that name
    before the installed package."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """The bootstrap address of the one broker that all tests of the run share."""
    with shared_broker() as bootstrap:
        yield bootstrap


@pytest.fixture
def prefix(broker: str) -> Iterator[str]:
    """A prefix of the test's own; the topics that start with it are deleted afterwards."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    yield name
    delete_topics(broker, name)


@pytest.fixture
def settings(broker: str, prefix: str, tmp_path: Path) -> Settings:
    """Settings on the shared broker: the test's own prefix and state directory, 2 partitions."""
    return Settings(
        bootstrap_servers=broker, prefix=prefix, partitions=2, state_dir=tmp_path / "state"
    )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The one PostgreSQL that all tests of the run share."""
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The URL of an empty database of the test's own."""
    return postgres.database(f"t_{uuid.uuid4().hex[:8]}")


@pytest.fixture
def private_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that the test may kill."""
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture
def private_broker() -> Iterator[Callable[..., PrivateBroker]]:
    """Makes brokers that the test may kill: `private_broker(nodes=1, env=None)`, started."""
    made: list[PrivateBroker] = []

    def make(nodes: int = 1, env: Mapping[str, str] | None = None) -> PrivateBroker:
        made.append(PrivateBroker(nodes, env))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.remove()
