"""The results in plain words and a table each: no figure of a page is typed by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from measure import Figure, bound, shown

#: Question -> its answer; `{name}` is that figure's value and unit, `{name|reference}` what it is
#: compared with.
QUESTIONS = {
    "throughput": (
        "One worker process commits {committed} where a loop by hand on the same records "
        "commits {committed|reference}: {ratio to the loop by hand} its rate, for {CPU of the "
        "worker process} of CPU where the loop takes {CPU of the worker process|reference}. The "
        "loop has no deduplication, no validation, no handlers, and knows of no task that ends "
        "before the one ahead of it."
    ),
    "latency": (
        "On an idle system half of all tasks start within {enqueue to start, p50} of their "
        "enqueueing (a bare ping: {enqueue to start, p50|reference}), and 99 of 100 within "
        "{enqueue to start, p99}. Their outcome is visible to a reader of committed records "
        "after {enqueue to visible, p50}, 99 of 100 after {enqueue to visible, p99}; one "
        "transaction a record by hand takes {enqueue to visible, p50|reference} and {enqueue to "
        "visible, p99|reference}."
    ),
    "enqueue": (
        "`enqueue_many` gets {acknowledged} acknowledged where encoding with fastavro and "
        "producing by hand gets {acknowledged|reference}: {ratio to the bare producer} its "
        "rate. Where the tasks are made in the same loop, with their arguments validated, it is "
        "{ratio, tasks made in the loop too}."
    ),
    "cost": (
        "All steps of a task together take {all steps} of CPU in one thread; the whole worker, "
        "with its threads at once, takes {the whole worker}."
    ),
    "metrics": (
        "To count a task takes {counting alone}, which is {counting alone, share} of what a task "
        "costs without metrics. The whole worker, served and scraped every second, took {CPU more "
        "with metrics} more CPU than without, half of the pairs between {CPU more, first "
        "quartile} and {CPU more, third quartile}: no more than this says could be told from the "
        "noise."
    ),
    "tracing": (
        "With the API alone an attempt takes {attempt, more with the API only} and an enqueue "
        "{enqueue, more with the API only} more than without the package. With an SDK that "
        "samples one trace in a hundred an attempt takes {attempt, SDK, 1 % sampled}, not "
        "{attempt, SDK, 1 % sampled|reference}, and an enqueue {enqueue, SDK, 1 % sampled}, not "
        "{enqueue, SDK, 1 % sampled|reference}; sampled, {attempt, SDK, all sampled} and "
        "{enqueue, SDK, all sampled}."
    ),
    "cpu": (
        "A task costs the whole worker {the whole worker} of CPU, where it costs the loop by "
        "hand {the whole worker|reference}."
    ),
    "scaling": (
        "With handlers that compute for a millisecond, two processes commit {1 ms, two "
        "processes} where one commits {1 ms, one process}: {1 ms, two to one} as many (bare "
        "processes on this machine: {1 ms, two to one|reference}). With handlers that do "
        "nothing it is {no-op, two to one}."
    ),
    "concurrency": (
        "A thousand handlers at once that wait reach {share of the ideal, 20,000 tasks} of the "
        "ideal rate with 20,000 tasks, asyncio alone {share of the ideal, 20,000 "
        "tasks|reference}; with 2,000 tasks {share of the ideal, 2,000 tasks} and {share of the "
        "ideal, 2,000 tasks|reference}."
    ),
    "projection": (
        "A console reads {states into SQLite} of state into SQLite and {states into PostgreSQL} "
        "into PostgreSQL; a bare consumer that does nothing with them reads {states into "
        "SQLite|reference}."
    ),
    "console": (
        "One console takes {single enqueues} by single requests, half of them in {64 at once, p50} "
        "and 99 of 100 in {64 at once, p99}, and {by batches} by batches of a thousand."
    ),
    "restore": (
        "A worker whose disk is empty restores {restored}; a bare consumer that does nothing "
        "with the records reads {restored|reference}."
    ),
    "table": (
        "With 5,000,000 entries in its table a worker commits {ratio to an empty table, IDs in "
        "order} as many tasks a second as with none where their IDs are those that taskmill makes, "
        "and {ratio to an empty table, IDs without order} where they have no order at all. Its own "
        "memory is {own memory, IDs without order} (with an empty table {own memory, IDs without "
        "order|reference}); {mapped memory, IDs without order} more are pages of the local store "
        "that the kernel keeps at hand, and takes back when it needs them."
    ),
    "payload": (
        "No-op tasks of 100 bytes: {tasks of 100 B}; of 10 kB: {tasks of 10,000 B}; of 900 kB: "
        "{tasks of 900,000 B}, which is {bytes in tasks of 900,000 B}."
    ),
    "partitions": (
        "One worker commits {committed, 1 partitions} from one partition, {committed, 12 "
        "partitions} from twelve and {committed, 96 partitions} from 96, which it takes {start "
        "to ready, 96 partitions} to have ready."
    ),
    "backlog": (
        "From a backlog of 1,000 tasks a worker commits {committed, backlog 1,000}, from one of "
        "a million {committed, backlog 1,000,000}, in {own memory, backlog 1,000,000} of its "
        "own."
    ),
    "traffic": (
        "Bytes fetched for each byte of records consumed: {bytes fetched, no-op tasks, never "
        "full} where the worker is never full; {bytes fetched, tasks of 10 ms, full} with small "
        "slow tasks; {bytes fetched, tasks of 100 kB and 10 ms, full} with large ones."
    ),
    "brokers": (
        "From a backlog a task takes {a task on tasks} of `tasks`, {a task on state} of `state` "
        "and {a task on Kafka's own topics} of Kafka's own topics; alone in its batch and "
        "transaction {a task on tasks, alone}, {a task on state, alone} and {a task on Kafka's "
        "own topics, alone}. The broker takes {CPU of the broker} for it, with one replica; "
        "{tasks in a transaction} share a transaction."
    ),
    "times": (
        "The first outcome comes {start to the first outcome} after the command; a drain takes "
        "{drain, at work on tasks of 50 ms}. A partition stands still for {pause, a worker "
        "joins (KIP-848)} when a worker joins, {pause, a worker leaves (KIP-848)} when one "
        "leaves, {pause, a worker is killed (KIP-848)} when one is killed; with the classic "
        "protocol {pause, a worker joins (classic)}, {pause, a worker leaves (classic)} and "
        "{pause, a worker is killed (classic)}."
    ),
    "retries": (
        "A retry on the tier of a second is {lateness, single on 1s, p50} late, 99 of 100 at the "
        "most {lateness, single on 1s, p99}. Of many that are due together the first is "
        "{lateness, first of many} late, and {passed on, many due together} follow. With a tenth "
        "of its tasks failing once a worker reaches {share of the rate, a tenth fails once} of "
        "its rate with none."
    ),
    "schedules": (
        "Of a thousand schedules that are due in the same instant of every second, half are on "
        "their queue {lateness, overlap allow, p50} later, 99 of 100 "
        "{lateness, overlap allow, p99}; where no run may overlap with the last one, "
        "{lateness, overlap skip, p50} and "
        "{lateness, overlap skip, p99}. {missed, overlap allow} are missed, and "
        "{doubled, overlap allow} come twice."
    ),
    "delayed": (
        "A delayed task is {lateness, one each 100 ms, p50} late, 99 of 100 at the most {lateness, "
        "one each 100 ms, p99}. With a million that wait, many that are due together follow at "
        "{passed on, many due together}, the first {lateness, first of many} late. A scheduler "
        "whose disk is empty takes {restore of those that wait, empty disk} to read them all, one "
        "that comes back {restore of those that wait, own copy}; holding them takes {memory of "
        "its own with those that wait} of its own memory, and with the pages of its copies that "
        "the system keeps for it {memory, pages of the copies too}."
    ),
    "slope": (
        "After {tasks run} tasks at {committed}, its own memory grows by {slope of its own "
        "memory} tasks."
    ),
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


def brief(question: str, answer: dict[str, Any] | None) -> str:
    """What performance.md says to `question`: the sentence alone."""
    return _NOT_YET if answer is None else sentence(QUESTIONS[question], figures_of(answer))


def insert(
    page: str,
    results: Path,
    questions: Iterable[str] | None = None,
    say: Callable[[str, dict[str, Any] | None], str] = block,
) -> str:
    """`page` with every answer between its marks replaced by what `results` says now: those to
    `questions`, or to all, each as `say` says it."""
    for question in QUESTIONS if questions is None else questions:
        begin, end = f"<!-- {question} -->\n", f"\n<!-- end of {question} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page has no place for {question}: {begin.strip()} … {end[1:]}")
        page = f"{before}{begin}{say(question, load(question, results))}{end}{after}"
    return page
