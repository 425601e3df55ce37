"""Kafka and commits: transactions, groups and partitions, as taskmill sees them."""

from __future__ import annotations

from dashboards import limits
from dashboards.board import board
from dashboards.panels import Panel, Query, Text, heat, lines, number, rising, warning
from dashboards.promql import Scope

_IN = Scope(queue=True)
_SECONDS, _FAILURES = "taskmill_commit_seconds", "taskmill_commit_failures_total"
_REBALANCES = "taskmill_rebalances_total"


def _now() -> list[Panel]:
    return [
        number("Commits", _IN.rate(f"{_SECONDS}_count"), "ops",
               Text("Transactions a second. Each holds the outcomes of a batch and their offsets. "
                    "None, while tasks wait: see the workers' logs.", "TaskmillCommitFailures")),
        number("Commit, 99 of 100", _IN.quantile(0.99, _SECONDS, window="5m"), "s",
               Text("Within which 99 of 100 transactions of 5 minutes were done, from begin to the "
                    "broker's answer. Above a second: the brokers are slow.",
                    "TaskmillCommitFailures"), idle="no commit"),
        number("Commits that fail", f"max({_IN.commits_failed()})", "percentunit",
               Text("Of all transactions, of the queue where it is most. Nothing is lost or done "
                    "twice: they are made again.", "TaskmillCommitFailures"),
               steps=warning(limits.COMMITS_FAIL), idle="no commit"),
        number("Readers held up", _IN.greatest("taskmill_lso_stuck_seconds"), "s",
               Text("How long a last stable offset has stood still behind its partition's end: "
                    "some transaction is open there, and workers get no further. The broker ends a "
                    "dead worker's in some 20 s; an older one hangs (docs/hanging.md).",
                    "TaskmillReadersHeldUp"), steps=rising(limits.HELD_UP_S)),
        number("Behind", _IN.behind(), "short",
               Text("Records that are not done.", "TaskmillLagGrowing"),
               steps=warning(limits.BEHIND)),
        number("Assignments in 5 min", _IN.new(_REBALANCES, window="5m"), "none",
               Text("Assignments received. Some with each worker that comes or goes; all the time: "
                    "workers are thrown out of the group.", "TaskmillCommitFailures")),
    ]  # fmt: skip


def _commits() -> list[Panel]:
    commits = _IN.rate(f"{_SECONDS}_count", by="queue")
    outcomes = _IN.rate("taskmill_tasks_finished_total", by="queue")
    return [
        lines("Commits", "ops",
              Text("Transactions a second, by queue."), Query(commits, "{{queue}}"), stacked=True),
        lines("Duration", "s",
              Text("From begin to the broker's answer: half of them, 95, 99 of 100.",
                   "TaskmillCommitFailures"),
              *(Query(_IN.quantile(q, _SECONDS), f"{q:.0%}") for q in (0.5, 0.95, 0.99))),
        heat("Durations", _IN.buckets(_SECONDS),
             Text("How many transactions took how long.", "TaskmillCommitFailures")),
        lines("Outcomes a commit", "short",
              Text("How many outcomes a transaction holds. 1: workers idle enough to commit each "
                   "task by itself; hundreds: a busy queue, where each costs little."),
              Query(f"{outcomes} / ({commits} > 0)", "{{queue}}")),
        lines("Commits that fail", "percentunit",
              Text("Of all transactions, by queue. A rebalance or a restarted broker causes some "
                   "for seconds; for minutes: look at the brokers.", "TaskmillCommitFailures"),
              Query(_IN.commits_failed(), "{{queue}}"), steps=warning(limits.COMMITS_FAIL)),
        lines("Failures, by answer", "ops",
              Text("aborted: made again at once. unknown: the answer was lost, so the partitions "
                   "are restored to see what came of it.", "TaskmillCommitFailures"),
              Query(_IN.rate(_FAILURES, by="answer"), "{{answer}}"), stacked=True),
    ]  # fmt: skip


def _partitions() -> list[Panel]:
    return [
        lines("Behind, by topic", "short",
              Text("Records that are not done.", "TaskmillLagGrowing"),
              Query(f"sum by (topic) ({_IN.greatest('taskmill_consumer_lag', 'topic, partition')})",
                    "{{topic}}"), steps=warning(limits.BEHIND), width=12),
        lines("Readers held up", "s",
              Text("By topic: for how long the last stable offset has not moved, though there is "
                   "more behind it.", "TaskmillReadersHeldUp"),
              Query(_IN.greatest("taskmill_lso_stuck_seconds", "topic"), "{{topic}}"),
              steps=rising(limits.HELD_UP_S), width=12),
        lines("Members of the group", "none",
              Text("Workers that the broker counts, by queue. Fewer than run: the others cannot "
                   "reach the brokers, or serve another prefix.", "TaskmillNoConsumers"),
              Query(_IN.greatest("taskmill_group_members", "queue"), "{{queue}}"), width=12),
        lines("Assignments", "none",
              Text("Assignments received within 5 minutes, by queue.", "TaskmillCommitFailures"),
              Query(_IN.new(_REBALANCES, by="queue", window="5m"), "{{queue}}"), width=12),
    ]  # fmt: skip


def dashboard() -> str:
    return board(
        "taskmill-kafka",
        "taskmill / Kafka and commits",
        "Transactions, groups and partitions, as taskmill sees them; the brokers' own metrics are "
        "not in it.",
        _IN,
        {"Now": _now(), "Commits": _commits(), "Groups and partitions": _partitions()},
    )
