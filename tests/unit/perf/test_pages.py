"""perf/README.md, docs/performance.md and the plots say what perf/results/ holds."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

PERF = Path(__file__).resolve().parents[3] / "perf"


def answer_of(*figures: dict[str, Any]) -> dict[str, Any]:
    plain = {"better": "higher", "must": None, "goal": None, "reference": None}
    return {
        "date": "2020-01-02T03:04:05Z",
        "machine": {"cores": 2, "cpu": "a cpu", "os": "Linux", "python": "3.11.0"},
        "versions": {"taskmill": "0"},
        "settings": {"tasks": 7},
        "figures": [{**plain, **figure} for figure in figures],
    }


def test_values_that_differ_in_their_last_digit_have_one_pair_of_ticks() -> None:
    import plot

    assert plot.ticks(0.001, 0.0010000000000000002, log=False) == plot.ticks(0.001, 0.001, False)


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6), st.booleans())
def test_ticks_are_in_order_and_hold_all_values(a: float, b: float, log: bool) -> None:
    import plot

    low, high = min(a, b), max(a, b)
    marks = plot.ticks(low, high, log)
    assert marks == sorted(set(marks))
    assert 2 <= len(marks) <= 12
    slack = 1e-9 * (1 + high)
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack


def test_a_plot_is_an_svg_with_its_lines_inside_its_frame() -> None:
    from xml.etree import ElementTree

    import plot

    text = plot.drawn(
        "A & B", plot.Axis("x", log=True), plot.Axis("y"), {"one": [(1, 0), (1000, 7)]}
    )
    root = ElementTree.fromstring(text)
    path = next(e for e in root if e.get("stroke-width") == "2")
    places = [float(n) for n in re.findall(r"[\d.]+", path.get("d", ""))]
    assert len(places) == 4
    assert all(plot.LEFT <= x <= plot.WIDTH - plot.RIGHT for x in places[::2])
    assert all(plot.TOP <= y <= plot.HEIGHT - plot.BOTTOM for y in places[1::2])


def test_a_flame_graph_is_as_wide_as_its_weights() -> None:
    import flame

    tree: dict[str, Any] = {}
    flame.add(tree, ["a", "b"], 1.0)
    flame.add(tree, ["a", "c"], 2.0)
    flame.add(tree, ["d"], 0.001)
    assert tree["a"][0] == 3.0
    kept = flame.pruned(tree, 0.01)
    assert list(flame.boxes(kept)) == [("a", 0.0, 3.0, 0), ("b", 0.0, 1.0, 1), ("c", 1.0, 2.0, 1)]
    svg = flame.drawn(kept, "of <it>")
    assert "<title>b: 33.3%</title>" in svg
    assert "of &lt;it&gt;" in svg


def test_docs_and_plots_say_what_the_results_hold(answers: ModuleType) -> None:
    import plots

    page = (plots.DOCS / "performance.md").read_text()
    told = answers.insert(page, PERF / "results", plots.TOLD, answers.brief)
    assert told == page, "run perf/run.py, or revert"
    for name, svg in plots.plots(PERF / "results").items():
        assert (plots.DOCS / "performance" / name).read_text() == svg, name
        assert f"(performance/{name})" in page, f"{name} is shown nowhere"


def test_the_scale_guide_says_what_the_results_hold() -> None:
    import plots
    import scale

    page = (plots.DOCS / "scaling-guide.md").read_text()
    assert scale.insert(page, PERF / "results") == page, "run perf/run.py, or revert"


def test_every_measured_figure_of_the_scale_guide_is_one_of_the_question_it_names() -> None:
    """Written apart from the code that inserts them."""
    page = (PERF.parent / "docs" / "scaling-guide.md").read_text()
    table = page.partition("<!-- measured -->")[2].partition("<!-- end of measured -->")[0]
    rows = re.findall(r"^\| .* \| ([\d,.]+) ?(\S*) \| \[(\w+)\]\(", table, re.MULTILINE)
    assert len(rows) > 15
    for number, unit, question in rows:
        found = json.loads((PERF / "results" / f"{question}.json").read_text())["figures"]
        digits = len(number.partition(".")[2])
        value = float(number.replace(",", ""))
        assert any(f["unit"] == unit and round(f["value"], digits) == value for f in found), number


def test_what_a_rate_takes_grows_with_it_and_is_worked_out_as_the_guide_says() -> None:
    import scale

    known = scale.values(PERF / "results")
    process, restore = known["process"].value, known["restore"].value
    lines = scale.derived(known).splitlines()[2:]
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:5] for line in lines}
    needed = math.ceil(1_000_000 / (0.6 * process))
    assert cells["worker processes"][0] == "2"
    assert cells["worker processes"][3] == f"{needed:,}"
    hours = 1_000_000 * (8 * 24 + 6) * 3600 / needed / restore / 3600
    assert cells["restore of all, empty disks"][3] == f"{hours:.0f} h"


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


def test_a_quick_run_says_only_whether_a_question_works(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "HERE", tmp_path)
    script(tmp_path, "works", "import sys", "sys.exit(sys.argv[1:] != ['--quick'])")
    script(tmp_path, "breaks", "import sys", "sys.exit(3)")
    assert run.ask("works", tmp_path, quick=True) == []
    assert run.ask("breaks", tmp_path, quick=True) == ["breaks: ended with exit code 3"]


def test_the_readme_says_what_the_results_hold(answers: ModuleType) -> None:
    readme = (PERF / "README.md").read_text()
    assert answers.insert(readme, PERF / "results") == readme, "run perf/run.py, or revert"


def test_every_figure_in_the_readme_stands_in_the_results() -> None:
    """Written apart from the code that inserts them: numbers are compared as numbers."""
    known: list[float] = []
    readme = (PERF / "README.md").read_text()
    found = [json.loads(file.read_text()) for file in (PERF / "results").glob("*.json")]
    settings = {f"{k} {v}" for answer in found for k, v in answer["settings"].items()}
    for setting in sorted(settings, key=len, reverse=True):
        readme = readme.replace(setting, "")  # "handler async, waits 50 ms"
    for answer in found:
        for figure in answer["figures"]:
            known += [figure[k] for k in ("value", "must", "goal", "reference") if figure[k]]
            # Its name may tell of sizes: "drain, at work on tasks of 50 ms".
            readme = readme.replace(f"| {figure['name']} |", "|")
    quoted = re.findall(r"([\d,]*\.?\d+) (?:\| )?(tasks/s|µs/task|ms|×|MiB)", readme)
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
