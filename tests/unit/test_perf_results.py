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


def test_the_tables_cost_is_a_ratio_of_pairs(answers: ModuleType) -> None:
    import table

    shape = {"anonymous": 1.0, "mapped": 2.0, "peak": 3.0, "disk": 4.0, "ready": 5.0}
    full = [{"seconds": s, **shape} for s in (2.0, 4.0, 10.0)]
    empty = [{"seconds": s, **shape} for s in (1.0, 3.0, 10.0)]
    figures = table.figures_of(full, empty, 100, 5_000_000)
    assert answers.sentence(answers.QUESTIONS["table"], figures)
    found = {f.name: f.value for f in figures}
    assert found["ratio to an empty table"] == 0.75
    assert found["committed, 5,000,000 entries"] == 25.0


def test_the_restored_are_counted_by_the_restore_threads_time(answers: ModuleType) -> None:
    import restore

    run = {"seconds": 2.0, "ready": 3.0, "cpu": 1.0, "anonymous": 1.0, "mapped": 1.0}
    figures = restore.figures_of([run], [{**run, "seconds": 1.0}], 400_000)
    assert answers.sentence(answers.QUESTIONS["restore"], figures)
    assert (figures[0].value, figures[0].reference, figures[0].verdict) == (2e5, 4e5, "met")


def test_a_share_of_the_ideal_is_what_the_waiting_alone_would_take(answers: ModuleType) -> None:
    import concurrency

    assert concurrency.ideal_s(2_000, 1_000) == 0.1
    assert concurrency.ideal_s(2_001, 1_000) == pytest.approx(0.15)
    side = {"seconds": 0.125, "committed": 0.2, "cpu": 0.02}
    both = {"taskmill": side, "asyncio": {**side, "seconds": 0.1}}
    figures = concurrency.figures_of({2_000: both, 20_000: both})
    assert answers.sentence(answers.QUESTIONS["concurrency"], figures)
    assert (figures[0].value, figures[0].reference, figures[0].verdict) == (0.8, 1.0, "met")


def test_sizes_partitions_and_backlogs_have_a_figure_each(answers: ModuleType) -> None:
    import backlog
    import partitions
    import payload

    rate = {"taskmill": 10.0, "hand": 20.0}
    figures = payload.figures_of(dict.fromkeys(payload.SIZES, rate), 1.0)
    assert answers.sentence(answers.QUESTIONS["payload"], figures)
    assert {f.name: f.value for f in figures}["bytes in tasks of 900,000 B"] == 9.0
    figures = partitions.figures_of({p: {**rate, "ready": 1.0} for p in partitions.COUNTS})
    assert answers.sentence(answers.QUESTIONS["partitions"], figures)
    found = {"rate": 1.0, "seconds": 1.0, "anonymous": 1.0}
    figures = backlog.figures_of(dict.fromkeys(backlog.BACKLOGS, found))
    assert answers.sentence(answers.QUESTIONS["backlog"], figures)


def test_times_are_medians_and_the_worst(answers: ModuleType) -> None:
    import times

    starts = [
        dict.fromkeys(("first", "every", "again", "idle drain", "busy drain"), float(n))
        for n in range(3)
    ]
    runs = [
        dict.fromkeys(("undisturbed", "joins", "leaves", "is killed"), float(n)) for n in range(3)
    ]
    figures = times.figures_of(starts, {"KIP-848": runs, "classic": runs})
    assert answers.sentence(answers.QUESTIONS["times"], figures)
    found = {f.name: f.value for f in figures}
    assert found["pause, a worker joins (classic)"] == 1.0
    assert found["pause, a worker joins (classic), worst"] == 2.0


@given(
    st.floats(-100, 100),
    st.floats(-100, 100),
    st.lists(st.integers(0, 1000), min_size=2, max_size=50, unique=True),
)
def test_a_slope_is_that_of_the_line_that_the_points_lie_on(
    steep: float, start: float, xs: list[int]
) -> None:
    import slope

    points = [(float(x), start + steep * x) for x in xs]
    assert slope.slope(points) == pytest.approx(steep, abs=1e-6)


def test_the_first_quarter_is_left_out_of_the_slope(answers: ModuleType) -> None:
    import slope

    warm = [(n * 10**6, 100.0 * n, 0.0) for n in range(25)]
    flat = [(n * 10**6, 2500.0, float(n)) for n in range(25, 100)]
    figures = slope.figures_of(warm + flat, 10.0, 1.0)
    assert answers.sentence(answers.QUESTIONS["slope"], figures)
    assert [round(f.value, 9) for f in figures[:2]] == [0.0, 1.0]


def test_a_stack_belongs_to_the_innermost_stage_that_is_named(answers: ModuleType) -> None:
    import cpu

    poll = ("poll.py", "_poll")
    assert cpu.stage_of([poll]) == "consume"
    assert cpu.stage_of([poll, ("decode.py", "decode"), ("fastpath.py", "x")]) == "decode"
    assert cpu.stage_of([poll, ("core.py", "deliver"), ("table.py", "lookup")]) == "look up"
    assert cpu.stage_of([("threading.py", "run")]) == "other"
    found = {"stages": {"a": 1.0, "b": 2.0, "none": 0.0}, "whole": 3.0}
    figures = cpu.figures_of(found, 30.0, 1_000_000)
    assert answers.sentence(answers.QUESTIONS["cpu"], figures)
    assert [(f.name, f.value) for f in figures] == [
        ("b", 2.0), ("a", 1.0), ("the whole worker", 3.0),
    ]  # fmt: skip


def test_files_and_functions_that_stages_name_exist() -> None:
    import ast

    import cpu

    root = PERF.parent
    for file, function, stage in cpu.STAGES:
        paths = [p for p in root.rglob(file) if not {".venv", "build"} & set(p.parts)]
        assert paths, f"{stage}: no file {file}"
        if function:
            names = {
                node.name
                for path in paths
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            assert function in names, f"{stage}: no {function} in {file}"


def test_every_question_asks_in_its_first_line_and_can_be_asked_quickly(
    answers: ModuleType,
) -> None:
    import importlib

    for question in answers.QUESTIONS:
        module = importlib.import_module(question)
        assert module.__doc__.splitlines()[0].endswith("?"), question
        assert hasattr(module, "main"), question
        text = (PERF / f"{question}.py").read_text(encoding="utf-8")
        assert "sized(" in text or "add_quick(" in text, question
        assert "keep=" in text, f"{question}: a quick answer is not kept"


# --- the load -------------------------------------------------------------------------------------


def test_balanced_ids_give_each_partition_equally_many() -> None:
    import load

    from taskmill.runtime.partition import partition_for

    ids = list(load.balanced(40, 8))
    assert len(set(ids)) == 40
    assert [partition_for(id.encode(), 8) for id in ids] == [n % 8 for n in range(40)]


def test_a_tenth_of_repeating_ids_repeat() -> None:
    import load

    ids = list(load.repeating(1_000))
    assert len(set(ids)) == 901


@pytest.mark.parametrize("size", [100, 10_000])
def test_a_text_has_its_size_and_does_not_compress(size: int) -> None:
    import zlib

    import load

    payload = load.text_of(size, 10)
    assert len(payload) == size
    assert json.loads(payload)["ms"] == 10
    assert len(zlib.compress(payload)) > size * 0.7


# --- plots ----------------------------------------------------------------------------------------


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


def test_a_quick_run_says_only_whether_a_question_works(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "HERE", tmp_path)
    script(tmp_path, "works", "import sys", "sys.exit(sys.argv[1:] != ['--quick'])")
    script(tmp_path, "breaks", "import sys", "sys.exit(3)")
    assert run.ask("works", tmp_path, quick=True) == []
    assert run.ask("breaks", tmp_path, quick=True) == ["breaks: ended with exit code 3"]


# --- README.md ------------------------------------------------------------------------------------


def test_the_readme_says_what_the_results_hold(answers: ModuleType) -> None:
    readme = (PERF / "README.md").read_text()
    assert answers.insert(readme, PERF / "results") == readme, "run perf/run.py, or revert"


def test_every_figure_in_the_readme_stands_in_the_results() -> None:
    """Written apart from the code that inserts them: numbers are compared as numbers."""
    known: list[float] = []
    readme = (PERF / "README.md").read_text()
    for file in (PERF / "results").glob("*.json"):
        for figure in json.loads(file.read_text())["figures"]:
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
