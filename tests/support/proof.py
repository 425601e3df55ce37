"""The proof: a pytest plugin that gives tests their seeds, counts what they show, and records it.

A test that shows something at seeded points says what, and takes its seed; one call is one point:

    @pytest.mark.proof("worker killed")
    def test_nothing_is_lost_when_a_worker_is_killed(seed: int) -> None: ...

A test that loops over its points itself tells how many, by the fixture `points`; one that plants a
bug tells whether it was caught, by the fixture `planted`. A plain run takes 2 to 5 seeds; with
TASKMILL_TEST_PROOF=1 each check has its full number (30, or TASKMILL_TEST_POINTS), and a run that
was complete is written to proof/latest.json; any run to the file that TASKMILL_TEST_PROOF_FILE
names. TASKMILL_TEST_SEED=N runs one seed only: that is how a failing point is replayed.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent.parent
LATEST = TESTS.parent / "proof" / "latest.json"

#: Seeds that every plain run takes, and how many that nobody has tried yet: of checks whose name
#: says that something is killed, and of the others. Those of `slow=True` wait for a proof.
_FEW: tuple[Iterable[int], int] = (1, 2, 3), 2
_FEWER: tuple[Iterable[int], int] = (1,), 1
#: Of the points of a proof, a fifth are fresh.
_FRESH_SHARE = 5

#: What the fresh seeds of this run are drawn with.
_FRESH = "TASKMILL_TEST_FRESH"

Seed = int | str


def is_proof() -> bool:
    """Whether this run takes the full numbers."""
    return os.environ.get("TASKMILL_TEST_PROOF") == "1"


def points_asked() -> int:
    """How many seeded points each check has in a proof."""
    return int(os.environ.get("TASKMILL_TEST_POINTS", "30"))


def seeds(name: str) -> list[int]:
    """The seeds of the check `name` in this run: known ones, then fresh ones."""
    if only := os.environ.get("TASKMILL_TEST_SEED"):
        return [int(only)]
    if is_proof():
        fresh = points_asked() // _FRESH_SHARE
        known: Iterable[int] = range(1, points_asked() - fresh + 1)
    else:
        known, fresh = _FEW if "kill" in name.lower() else _FEWER
    return [*known, *fresh_seeds(name, fresh)]


def fresh_seeds(name: str, count: int) -> list[int]:
    """Seeds that nobody has tried yet: the same ones in all processes of a run, which must collect
    the same tests."""
    return Random(f"{os.environ[_FRESH]} {name}").sample(range(1000, 10**6), count)


def schedules_asked() -> int:
    """How many schedules the simulation runs."""
    return int(os.environ.get("TASKMILL_TEST_SCHEDULES", "100000" if is_proof() else "1000"))


class Check:
    """What the points of one name have shown."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failures = 0
        self.seconds = 0.0
        self.seeds: list[Seed] = []
        #: Test -> its points; a test that counts none itself is one.
        self.counts: dict[str, int] = {}

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "count": self.count,
            "failures": self.failures,
            "seconds": round(self.seconds, 1),
            "seeds": self.seeds,
        }


class Proof:
    """The checks of this run, and the planted bugs."""

    def __init__(self) -> None:
        self.checks: dict[str, Check] = {}
        #: Bug -> who caught it, "" where nobody did.
        self.planted: dict[str, str] = {}
        self._failed: set[str] = set()

    def check(self, name: str) -> Check:
        return self.checks.setdefault(name, Check(name))

    def saw(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """A test's set-up, call or tear-down has ended."""
        marker = item.get_closest_marker("proof")
        if marker is None:
            return
        check = self.check(marker.args[0])
        if item.nodeid not in check.counts:
            check.counts[item.nodeid] = 1
            params = getattr(getattr(item, "callspec", None), "params", {})
            if "seed" in params:
                check.seeds.append(params["seed"])
        check.seconds += report.duration
        # What was skipped has shown nothing.
        if not report.passed and item.nodeid not in self._failed:
            self._failed.add(item.nodeid)
            check.failures += 1

    def add(self, part: dict[str, Any]) -> None:
        """What another run has written: one of many that make up a proof."""
        for told in part["checks"]:
            check = self.check(told["name"])
            check.failures += told["failures"]
            check.seconds += told["seconds"]
            check.seeds += told["seeds"]
            check.counts[f"part {len(check.counts)}"] = told["count"]
        self.planted |= {bug["bug"]: bug["by"] for bug in part["planted"]}

    def is_green(self) -> bool:
        return all(not c.failures for c in self.checks.values()) and all(self.planted.values())

    def missing(self) -> list[str]:
        """What a complete run would have, and this one has not."""
        few = points_asked()
        return [name for name in declared() if name not in self.checks] + [
            f"{check.name} ({check.count} of {few} points)"
            for check in self.checks.values()
            if check.count < few and check.seeds
        ]

    def to_json(self) -> str:
        """One check and one bug a line, for people and for diffs."""
        commit, date = _commit()
        checks = [self.checks[name].to_json() for name in sorted(self.checks)]
        planted = [{"bug": b, "caught": bool(by), "by": by} for b, by in self.planted.items()]
        return (
            f'{{\n"date": {json.dumps(date)},\n"commit": {json.dumps(commit)},\n'
            f'"checks": {_lines(checks)},\n"planted": {_lines(planted)}\n}}\n'
        )

    def table(self) -> Iterator[str]:
        """For the terminal."""
        yield f"{'check':<58} {'points':>8} {'failures':>8} {'seconds':>8}"
        for name in sorted(self.checks):
            c = self.checks[name]
            yield f"{name:<58} {c.count:>8,} {c.failures:>8} {c.seconds:>8.1f}"
        if self.planted:
            yield ""
            yield f"{'planted bug':<58} caught by"
            for bug, by in self.planted.items():
                yield f"{bug:<58} {by or 'NOBODY'}"


def _lines(rows: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]" if rows else "[]"


def _commit() -> tuple[str, str]:
    """The commit that the tests belong to, marked where files differ from it; and its date."""

    def git(*words: str) -> str:
        ran = subprocess.run(["git", *words], cwd=TESTS, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    try:
        commit, date = git("log", "-1", "--format=%H %cI").split()
        changed = git("status", "--porcelain", "--", "..", ":(exclude)../proof")
    except (OSError, subprocess.CalledProcessError):
        return "unknown", datetime.now(UTC).isoformat(timespec="seconds")
    return commit + ("+changes" if changed else ""), date


def declared() -> list[str]:
    """The names of all checks that the tests declare, as their source says."""
    return sorted({name for path in TESTS.rglob("test_*.py") for name in _declared_in(path)})


def is_proof_file(path: Path) -> bool:
    """Whether `path` declares a check."""
    return any(_declared_in(path))


def _declared_in(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return list(_names(ast.parse(text))) if "mark.proof" in text else []


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.proof":
            first = node.args[0]
            assert isinstance(first, ast.Constant), "a check's name is written out"
            yield str(first.value)


# ---- the plugin ----------------------------------------------------------------------------------

_PROOF = pytest.StashKey[Proof]()


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault(_FRESH, str(SystemRandom().randrange(10**9)))
    config.stash[_PROOF] = Proof()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    own = metafunc.definition.iter_markers("parametrize")
    if (
        "seed" in metafunc.fixturenames
        and (marker := metafunc.definition.get_closest_marker("proof"))
        and not any("seed" in str(marker.args[0]) for marker in own)
    ):
        metafunc.parametrize("seed", seeds(marker.args[0]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A check whose points take a minute each is a proof's, or that of whoever replays a seed."""
    if is_proof() or "TASKMILL_TEST_SEED" in os.environ:
        return
    slow = [item for item in items if _is_slow(item)]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not _is_slow(item)]


def _is_slow(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("proof")
    return marker is not None and bool(marker.kwargs.get("slow"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.config.stash[_PROOF].saw(item, report)
    return report


@pytest.fixture
def points(request: pytest.FixtureRequest) -> Callable[[int, Seed], None]:
    """`points(count, seeds)`: this test has looked at so many points, of seeds such as "0-999"."""
    marker = request.node.get_closest_marker("proof")
    check = request.config.stash[_PROOF].check(marker.args[0])

    def tell(count: int, seeds: Seed) -> None:
        check.counts[request.node.nodeid] = count
        check.seeds.append(seeds)

    return tell


@pytest.fixture
def planted(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`planted(bug, by)`: who has caught a planted bug; by "" nobody."""
    proof = request.config.stash[_PROOF]

    def tell(bug: str, by: str) -> None:
        proof.planted[bug] = by

    return tell


def pytest_sessionfinish(session: pytest.Session) -> None:
    proof = session.config.stash[_PROOF]
    if is_proof() and not proof.is_green():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    proof, out = config.stash[_PROOF], terminalreporter
    if not is_proof() or not proof.checks:
        return
    out.section("proof")
    for line in proof.table():
        out.write_line(line)
    if named := os.environ.get("TASKMILL_TEST_PROOF_FILE"):
        Path(config.invocation_params.dir, named).write_text(proof.to_json())
        out.write_line(f"written to {named}")
    elif missing := proof.missing():
        out.write_line(f"not written to proof/latest.json, since not run: {', '.join(missing)}")
    else:
        LATEST.write_text(proof.to_json())
        out.write_line("written to proof/latest.json")
