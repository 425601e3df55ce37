"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import taskmill

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("taskmill", "runtime", "schemas", "producer", "consumer", "scheduler", "console")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
_RAW_TIME = re.compile(r"\btime\.(time|time_ns|monotonic|monotonic_ns|perf_counter|sleep)\b")
#: The settings read it; the local broker is handed it, to pass on to its children.
_READS_ENVIRONMENT = {
    "runtime/config.py",
    "runtime/local_broker.py",
    "runtime/broker_docker.py",
    "runtime/broker_java.py",
    "runtime/broker_jars.py",
    "taskmill/cli/dev.py",
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_opens_with_its_duty_and_keeps_its_size(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module opens with one sentence that names its duty"
    assert len(text.splitlines()) <= 400
    for function in functions(tree):
        assert function.end_lineno is not None
        lines = function.end_lineno - function.lineno + 1
        assert lines <= 70, f"{function.name} has {lines} lines"


OTHERS = sorted(
    path
    for folder in ("tests", "perf", "proof", "examples", "deploy")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", OTHERS, ids=name)
def test_a_file_of_tests_or_of_scripts_keeps_its_size_too(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_raw_time_is_read_in_the_clock_alone() -> None:
    found = [
        f"{name(path)}: {line.strip()}"
        for path in MODULES
        if name(path) != "runtime/clock.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if _RAW_TIME.search(line.split("#")[0])
    ]
    assert not found


def test_the_environment_is_read_where_the_settings_are() -> None:
    readers = {
        name(path)
        for path in MODULES
        if re.search(r"os\.(environ|getenv)\b", path.read_text(encoding="utf-8"))
    }
    assert readers <= _READS_ENVIRONMENT


def test_no_file_names_an_address_of_a_package_registry() -> None:
    lock = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    assert "://" not in lock
    assert "--hash=sha256:" in lock
    node = ROOT / "examples" / "clients" / "node" / "package-lock.json"
    assert "://" not in node.read_text(encoding="utf-8")


def test_the_public_surface_is_what_it_says() -> None:
    for public in taskmill.__all__:
        assert getattr(taskmill, public) is not None
    assert {"App", "Context", "Handle", "Middleware"} <= set(taskmill.__all__)
