"""The results in plain words and a table each, for README.md: no figure is typed by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from measure import Figure, bound, shown

#: Question -> its answer; `{name}` is that figure's value and unit, `{name|reference}` what it is
#: compared with.
QUESTIONS = {
    "throughput": "One worker process commits {committed} where a loop by hand on the same records "
    "commits {committed|reference}: {ratio to the loop by hand} its rate, for "
    "{CPU of the worker process} of CPU where the loop takes "
    "{CPU of the worker process|reference}. The loop has no deduplication, no validation, no "
    "handlers, and knows of no task that ends before the one ahead of it.",
    "latency": "On an idle system half of all tasks start within {enqueue to start, p50} of their "
    "enqueueing (a bare ping: {enqueue to start, p50|reference}), and 99 of 100 within "
    "{enqueue to start, p99}. Their outcome is visible to a reader of committed records after "
    "{enqueue to visible, p50}, 99 of 100 after {enqueue to visible, p99}; one transaction a "
    "record by hand takes {enqueue to visible, p50|reference} and "
    "{enqueue to visible, p99|reference}.",
    "enqueue": "`enqueue_many` gets {acknowledged} acknowledged where encoding with fastavro and "
    "producing by hand gets {acknowledged|reference}: {ratio to the bare producer} its rate. Where "
    "the tasks are made in the same loop, with their arguments validated, it is "
    "{ratio, tasks made in the loop too}.",
    "cost": "All steps of a task together take {all steps} of CPU in one thread; the whole worker, "
    "with its threads at once, takes {the whole worker}.",
}

_NAME = re.compile(r"\{([^{}|]+)(\|reference)?\}")
_NOT_YET = "Not measured yet: `make bench`."


def load(question: str, results: Path) -> dict[str, Any] | None:
    """The kept answer to `question`, None where there is none."""
    file = results / f"{question}.json"
    return json.loads(file.read_text()) if file.exists() else None


def figures_of(answer: dict[str, Any]) -> list[Figure]:
    return [Figure(**figure) for figure in answer["figures"]]


def sentence(template: str, figures: list[Figure]) -> str:
    """`template` with each name replaced by its figure. Raises KeyError for one that is not."""
    by_name = {f.name: f for f in figures}

    def value(match: re.Match[str]) -> str:
        figure = by_name[match[1]]
        number = figure.reference if match[2] else figure.value
        if number is None:
            raise KeyError(match[0])
        return f"{shown(number)} {figure.unit}"

    return _NAME.sub(value, template)


def table(figures: list[Figure]) -> str:
    """All figures of an answer, in Markdown."""
    rows = [
        "| figure | value | unit | must | goal | reference | |",
        "|---|--:|---|--:|--:|--:|---|",
    ]
    for f in figures:
        reference = "" if f.reference is None else shown(f.reference)
        cells = (f.name, shown(f.value), f.unit, bound(f.must), bound(f.goal), reference, f.verdict)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def block(question: str, answer: dict[str, Any] | None) -> str:
    """What README.md says to `question`."""
    if answer is None:
        return _NOT_YET
    figures, machine = figures_of(answer), answer["machine"]
    settings = ", ".join(f"{name} {value}" for name, value in answer["settings"].items())
    versions = ", ".join(f"{name} {number}" for name, number in answer["versions"].items())
    measured = (
        f"{answer['date']}, {machine['cores']} cores of {machine['cpu']}, {machine['os']}, "
        f"Python {machine['python']}, {versions}; {settings}."
    )
    return f"{sentence(QUESTIONS[question], figures)}\n\n{table(figures)}\n\n{measured}"


def insert(readme: str, results: Path) -> str:
    """`readme` with every answer between its marks replaced by what `results` says now."""
    for question in QUESTIONS:
        begin, end = f"<!-- {question} -->\n", f"\n<!-- end of {question} -->"
        before, found, rest = readme.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"README.md has no place for {question}: {begin.strip()} … {end[1:]}")
        readme = f"{before}{begin}{block(question, load(question, results))}{end}{after}"
    return readme
