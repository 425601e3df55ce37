"""The proof counts what it says, and what is recorded of it is whole."""

from __future__ import annotations

import json

import pytest

from simulation.bugs import PLANTED, named
from support.proof import LATEST, Proof, declared, seeds

pytest_plugins = ["pytester"]

_TESTS = """
import pytest

@pytest.mark.proof("odd seeds")
def test_odd(seed):
    assert seed % 2

@pytest.mark.proof("many")
def test_many(points, planted):
    points(5000, "0-4999")
    planted("caught", "simulation, seed 3")
    planted("not caught", "")

def test_of_its_own():
    assert True
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A run of pytest within this one, with the plugin and a few tests."""
    for name in ("PROOF", "POINTS", "SEED", "PROOF_FILE"):
        monkeypatch.delenv(f"TASKMILL_TEST_{name}", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nmarkers =\n    proof: shows something\n")
    pytester.makeconftest("pytest_plugins = ['support.proof']")
    pytester.makepyfile(_TESTS)
    return pytester


def test_a_proof_counts_points_failures_and_planted_bugs_of_each_name(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKMILL_TEST_PROOF", "1")
    monkeypatch.setenv("TASKMILL_TEST_POINTS", "10")
    monkeypatch.setenv("TASKMILL_TEST_PROOF_FILE", "some.json")
    ran = inner.runpytest_inprocess("-p", "no:cacheprovider")
    assert ran.ret == pytest.ExitCode.TESTS_FAILED
    ran.stdout.fnmatch_lines(["many * 5,000 * 0 *", "not caught * NOBODY", "written to some.json"])
    record = json.loads((inner.path / "some.json").read_text())
    assert [c["name"] for c in record["checks"]] == ["many", "odd seeds"]
    many, odd = record["checks"]
    assert (many["count"], many["failures"], many["seeds"]) == (5000, 0, ["0-4999"])
    assert odd["count"] == len(odd["seeds"]) == 10
    assert odd["seeds"][:8] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert odd["failures"] == sum(1 for seed in odd["seeds"] if not seed % 2)
    assert record["planted"] == [
        {"bug": "caught", "caught": True, "by": "simulation, seed 3"},
        {"bug": "not caught", "caught": False, "by": ""},
    ]


def test_what_was_left_out_has_shown_nothing(inner: pytest.Pytester) -> None:
    (item,) = inner.getitems("import pytest\n@pytest.mark.proof('left out')\ndef test(): pass")
    proof = Proof()
    for when, outcome in (("setup", "passed"), ("call", "skipped"), ("teardown", "passed")):
        proof.saw(item, pytest.TestReport(item.nodeid, item.location, {}, outcome, None, when))
    check = proof.check("left out")
    assert (check.count, check.failures) == (1, 1)
    assert not proof.is_green()


def test_a_bug_that_nobody_caught_fails_a_proof_in_which_every_test_passed(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKMILL_TEST_PROOF", "1")
    monkeypatch.setenv("TASKMILL_TEST_PROOF_FILE", "some.json")
    ran = inner.runpytest_inprocess("-k", "many")
    ran.assert_outcomes(passed=1, deselected=30 + 1)
    assert ran.ret == pytest.ExitCode.TESTS_FAILED


def test_a_run_that_is_not_complete_leaves_the_recorded_proof_alone(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKMILL_TEST_PROOF", "1")
    before = LATEST.read_bytes() if LATEST.exists() else None
    ran = inner.runpytest_inprocess("-k", "of_its_own or many")
    ran.stdout.fnmatch_lines(["not written to proof/latest.json, since not run: *"])
    assert (LATEST.read_bytes() if LATEST.exists() else None) == before


def test_a_plain_run_takes_few_seeds_and_records_nothing(inner: pytest.Pytester) -> None:
    ran = inner.runpytest_inprocess("-k", "odd", "-v")
    ran.stdout.fnmatch_lines(["*test_odd*1* PASSED*"])
    assert sum(ran.parseoutcomes().get(word, 0) for word in ("passed", "failed")) == 2
    ran.stdout.no_fnmatch_line("*written to*")


def test_a_plain_run_takes_more_seeds_where_something_is_killed(
    inner: pytest.Pytester,
) -> None:
    killed = seeds("SIGKILL of a worker")
    assert killed[:3] == [1, 2, 3]
    assert len(set(killed)) == 5


def test_one_seed_is_replayed_where_it_is_named(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKMILL_TEST_SEED", "17")
    inner.runpytest_inprocess("-k", "odd").assert_outcomes(passed=1, deselected=2)


def test_the_recorded_proof_has_every_check_and_every_planted_bug_and_is_green() -> None:
    names = declared()
    assert names, "no test declares a check"
    page = (LATEST.parent / "README.md").read_text()
    younger = [name for name in names if f"- `{name}`" in page]
    for file in [LATEST] if LATEST.exists() else []:
        record = json.loads(file.read_text())
        assert list(record) == ["date", "commit", "checks", "planted"]
        recorded = [check["name"] for check in record["checks"]]
        assert recorded == [name for name in names if name not in younger], "run make proof"
        for check in record["checks"]:
            assert list(check) == ["name", "count", "failures", "seconds", "seeds"]
            assert check["count"] > 0
            assert not check["failures"], check["name"]
        assert {row["bug"] for row in record["planted"]} >= {named(b) for b in PLANTED.values()}
        assert all(row["caught"] and row["by"] for row in record["planted"])
