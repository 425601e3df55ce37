"""The benchmarks' arithmetic, and that perf/README.md says what perf/results/ holds."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

PERF = Path(__file__).resolve().parents[2] / "perf"


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


def answer_of(*figures: dict[str, Any]) -> dict[str, Any]:
    plain = {"better": "higher", "must": None, "goal": None, "reference": None}
    return {
        "date": "2020-01-02T03:04:05Z",
        "machine": {"cores": 2, "cpu": "a cpu", "os": "Linux", "python": "3.11.0"},
        "versions": {"taskmill": "0"},
        "settings": {"tasks": 7},
        "figures": [{**plain, **figure} for figure in figures],
    }


# --- measure --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "better", "goal", "verdict"),
    [
        (9.0, "higher", None, "MISSED"),
        (10.0, "higher", None, "met"),
        (19.0, "higher", 20.0, "met"),
        (20.0, "higher", 20.0, "goal"),
        (11.0, "lower", None, "MISSED"),
        (10.0, "lower", None, "met"),
        (5.0, "lower", 5.0, "goal"),
    ],
)
def test_a_figure_is_judged_by_its_must_and_its_goal(
    measure: ModuleType, value: float, better: str, goal: float | None, verdict: str
) -> None:
    assert measure.Figure("f", value, "ms", better, 10.0, goal).verdict == verdict


def test_a_figure_without_a_must_is_not_judged(measure: ModuleType) -> None:
    assert measure.Figure("f", 1.0, "ms").verdict == ""


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 1))
def test_a_quantile_is_a_value_with_at_least_its_share_not_above_it(
    values: list[float], q: float
) -> None:
    import measure

    found = measure.quantile(values, q)
    assert found in values
    assert sum(v <= found for v in values) >= q * len(values) - 1e-6


def test_quantiles_of_a_hundred_values_are_the_ones_at_their_places(measure: ModuleType) -> None:
    values = [float(v) for v in range(100, 0, -1)]
    assert [measure.quantile(values, q) for q in (0.0, 0.5, 0.99, 1.0)] == [1, 51, 100, 100]


def test_the_sides_of_a_pair_take_turns_at_going_first(measure: ModuleType) -> None:
    orders = [measure.sides(pair, "ours", "theirs") for pair in range(4)]
    assert [first for first, _ in orders] == ["theirs", "ours", "theirs", "ours"]
    assert all(set(order) == {"ours", "theirs"} for order in orders)


@pytest.mark.parametrize(
    ("value", "text"),
    [(31_234.5, "31,234"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123")],
)
def test_a_value_is_shown_with_three_digits_that_count(
    measure: ModuleType, value: float, text: str
) -> None:
    assert measure.shown(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(25_000, "25,000"), (0.5, "0.5"), (3.0, "3"), (None, "")]
)
def test_a_bound_is_shown_as_it_was_asked(
    measure: ModuleType, value: float | None, text: str
) -> None:
    assert measure.bound(value) == text


def test_a_report_keeps_its_figures_and_tells_of_a_miss(
    measure: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measure, "HERE", tmp_path)
    good = measure.Figure("good", 2.0, "×", "higher", 1.0, None, 1.5)
    bad = measure.Figure("bad", 2.0, "ms", "lower", 1.0)
    assert measure.report("q", "A question?", [good], {"tasks": 1}) is True
    assert measure.report("q", "A question?", [good, bad], {"tasks": 1}) is False
    kept = json.loads((tmp_path / "results" / "q.json").read_text())
    assert kept["figures"][0] == {
        "name": "good", "value": 2.0, "unit": "×", "better": "higher",
        "must": 1.0, "goal": None, "reference": 1.5,
    }  # fmt: skip
    assert {"date", "machine", "versions", "settings", "question"} <= kept.keys()


# --- the questions' own arithmetic ----------------------------------------------------------------


def test_rates_and_ratios_of_enqueueing_are_medians_over_pairs(answers: ModuleType) -> None:
    import enqueue

    ours = [{"make": 1.0, "send": s, "cpu": 1.0} for s in (1.0, 2.0, 10.0)]
    bare = [{"make": 2.0, "send": s, "cpu": 2.0} for s in (1.0, 1.0, 10.0)]
    figures = enqueue.figures_of(ours, bare, 100)
    assert answers.sentence(answers.QUESTIONS["enqueue"], figures)
    found = {f.name: (f.value, f.reference) for f in figures}
    assert found["acknowledged"] == (50.0, 100.0)
    assert found["ratio to the bare producer"] == (1.0, 1.0)
    assert found["time to make"] == (10_000.0, 20_000.0)


def test_latencies_count_from_before_the_task_was_made(answers: ModuleType) -> None:
    import latency

    samples = {n: latency.Sample(10**9, 2.0, 10.0 + n) for n in range(5)}
    stamps = {n: 10**9 + (n + 1) * 10**6 for n in range(5)}
    times = latency.measured(samples, stamps, range(1, 5))
    assert times["start"] == [2.0, 3.0, 4.0, 5.0]
    assert times["visible"] == [11.0, 12.0, 13.0, 14.0]
    figures = latency.figures_of(times, times)
    assert answers.sentence(answers.QUESTIONS["latency"], figures)
    assert [f.must for f in figures] == [None, None, 3, 25, 12, 60]


def test_parts_of_a_step_are_shown_below_it_and_not_added_again(answers: ModuleType) -> None:
    import cost

    costs = dict.fromkeys((*cost.STEPS, *dict(cost.PARTS).values()), 1.0)
    figures = cost.figures_of(costs, 30.0)
    assert answers.sentence(answers.QUESTIONS["cost"], figures)
    names = [f.name for f in figures]
    assert names[names.index("decode") + 1] == "decode, of which codec"
    assert next(f.value for f in figures if f.name == "all steps") == len(cost.STEPS)


# --- run ------------------------------------------------------------------------------------------


def script(folder: Path, question: str, *lines: str) -> None:
    (folder / f"{question}.py").write_text("\n".join(lines))


def test_a_missed_figure_is_named_with_its_must(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "HERE", tmp_path)
    answer = answer_of(
        {"name": "slow", "value": 4.0, "unit": "ms", "better": "lower", "must": 3.0},
        {"name": "fast", "value": 4.0, "unit": "ms", "better": "lower", "must": 5.0},
    )
    script(
        tmp_path,
        "latency",
        "import pathlib, sys",
        f"pathlib.Path({str(tmp_path / 'latency.json')!r}).write_text({json.dumps(answer)!r})",
        "sys.exit(1)",
    )
    assert run.ask("latency", tmp_path) == ["latency: slow is 4.00 ms, must be 3 or lower"]


def test_a_question_that_breaks_is_missed_even_beside_an_old_answer(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "HERE", tmp_path)
    (tmp_path / "latency.json").write_text(json.dumps(answer_of()))
    script(tmp_path, "latency", "import sys", "sys.exit(3)")
    assert run.ask("latency", tmp_path) == ["latency: ended with exit code 3 and no answer"]


# --- README.md ------------------------------------------------------------------------------------


def test_the_readme_says_what_the_results_hold(answers: ModuleType) -> None:
    readme = (PERF / "README.md").read_text()
    assert answers.insert(readme, PERF / "results") == readme, "run perf/run.py, or revert"


def test_every_figure_in_the_readme_stands_in_the_results() -> None:
    """Written apart from the code that inserts them: numbers are compared as numbers."""
    known: list[float] = []
    for file in (PERF / "results").glob("*.json"):
        for figure in json.loads(file.read_text())["figures"]:
            known += [figure[k] for k in ("value", "must", "goal", "reference") if figure[k]]
    quoted = re.findall(
        r"([\d,]*\.?\d+) (?:\| )?(tasks/s|µs/task|ms|×|MiB)", (PERF / "README.md").read_text()
    )
    for text, unit in quoted:
        digits = len(text.partition(".")[2])
        number = float(text.replace(",", ""))
        assert any(round(k, digits) == number for k in known), f"{text} {unit} is in no result"


def test_a_sentence_takes_values_references_and_units(answers: ModuleType) -> None:
    figures = answers.figures_of(
        answer_of({"name": "a rate", "value": 1234.5, "unit": "tasks/s", "reference": 0.25})
    )
    text = answers.sentence("{a rate}, not {a rate|reference}", figures)
    assert text == "1,234 tasks/s, not 0.250 tasks/s"


def test_a_sentence_that_names_no_figure_is_an_error(answers: ModuleType) -> None:
    with pytest.raises(KeyError):
        answers.sentence("{a rate}", [])


def test_answers_replace_what_stood_between_their_marks_and_nothing_else(
    answers: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(answers, "QUESTIONS", {"q": "It is {f}."})
    frame = "before\n<!-- q -->\n{}\n<!-- end of q -->\nafter\n"
    assert "Not measured yet" in answers.insert(frame.format("old"), tmp_path)
    figure = {"name": "f", "value": 2.0, "unit": "ms", "must": 3.0, "better": "lower"}
    (tmp_path / "q.json").write_text(json.dumps(answer_of(figure)))
    filled = answers.insert(frame.format("old"), tmp_path)
    assert filled.startswith("before\n<!-- q -->\nIt is 2.00 ms.\n")
    assert "| f | 2.00 | ms | 3 |  |  | met |" in filled
    assert filled.endswith("<!-- end of q -->\nafter\n")
    assert answers.insert(filled, tmp_path) == filled


def test_a_readme_without_a_place_for_an_answer_is_an_error(
    answers: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no place for throughput"):
        answers.insert("nothing", tmp_path)
