"""The questions' own arithmetic, and the load that they put on."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

PERF = Path(__file__).resolve().parents[3] / "perf"


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
    figures = [
        figure
        for kind in table.KINDS
        for figure in table.figures_of(kind, full, empty, 100, 5_000_000)
    ]
    assert answers.sentence(answers.QUESTIONS["table"], figures)
    found = {f.name: f.value for f in figures}
    for kind in ("in order", "without order"):
        assert found[f"ratio to an empty table, IDs {kind}"] == 0.75
        assert found[f"committed, 5,000,000 entries, IDs {kind}"] == 25.0


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

    sources: dict[str, list[Path]] = {}
    for folder in ("runtime", "schemas", "producer", "consumer", "scheduler", "taskmill", "perf"):
        for path in (PERF.parent / folder).rglob("*.py"):
            sources.setdefault(path.name, []).append(path)
    for file, function, stage in cpu.STAGES:
        paths = sources.get(file, [])
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
