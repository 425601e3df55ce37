"""The scripts of perf/, importable, and those that most tests of them ask."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

PERF = Path(__file__).resolve().parents[3] / "perf"


@pytest.fixture(scope="module", autouse=True)
def _perf_on_the_path() -> Iterator[None]:
    """perf/ is a folder of scripts, which import each other by their bare names."""
    sys.path.insert(0, str(PERF))
    yield
    sys.path.remove(str(PERF))
    for script in PERF.glob("*.py"):
        sys.modules.pop(script.stem, None)


@pytest.fixture
def measure() -> ModuleType:
    import measure

    return measure


@pytest.fixture
def answers() -> ModuleType:
    import answers

    return answers


@pytest.fixture
def run() -> ModuleType:
    import run

    return run
