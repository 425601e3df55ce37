"""Worker: what each instance does, owns and restores, and whether it lives."""

from __future__ import annotations

from dashboards import limits
from dashboards.board import board
from dashboards.panels import Panel, Query, Text, labels, lines, number, rising, warning
from dashboards.promql import Scope

_IN = Scope(queue=True, instance=True)
_LIVE, _WANTED = "taskmill_worker_processes", "taskmill_worker_processes_wanted"
_RESTARTS, _STUCK = "taskmill_worker_restarts_total", "taskmill_stuck_handlers_total"


def _now() -> list[Panel]:
    restarts = f"max({_IN.new(_RESTARTS, by='job, instance', window='15m')}) or vector(0)"
    return [
        number("Instances", f"count({_IN.of('taskmill_worker_info')}) or vector(0)", "none",
               Text("Workers that are scraped; one with `--processes` is one instance.",
                    "TaskmillNoConsumers"), steps=[(0, "red"), (1, "green")]),
        number("Processes missing", f"{_IN.total(_WANTED)} - {_IN.total(_LIVE)}", "none",
               Text("Of those that `--processes` asks for, how many do not live. A dead one is "
                    "replaced, ever later where it dies again.", "TaskmillCrashLoop"),
               steps=warning(1), idle="one a worker"),
        number("Restarts in 15 min", restarts, "none",
               Text("Processes that ended by themselves and were replaced, at the instance where "
                    "most did. The supervisor's log says how each ended.", "TaskmillCrashLoop"),
               steps=rising(1, limits.RESTARTS + 1)),
        number("Partitions", _IN.total("taskmill_partitions_owned"), "none",
               Text("Partitions that these workers own, restored or not. With all queues and "
                    "instances: all that there are, else nobody owns the rest.",
                    "TaskmillNoConsumers")),
        number("Longest restore", _IN.greatest("taskmill_restore_under_way_seconds"), "s",
               Text("How long the longest restore that has not ended has taken; its partition's "
                    "tasks wait. 0: there is none.", "TaskmillRestoreStuck"),
               steps=rising(limits.RESTORE_S)),
        number("Stuck in 15 min", _IN.new(_STUCK, window="15m"), "none",
               Text("Handlers that did not end though their time was over: their places are gone "
                    "until the process ends.", "TaskmillStuckHandlers"), steps=warning(1)),
    ]  # fmt: skip


def _work() -> list[Panel]:
    run = _IN.quantile(0.99, "taskmill_task_duration_seconds", "instance")
    return [
        lines("Outcomes", "ops",
              Text("Attempts that each instance committed, a second. One that does nothing beside "
                   "others that do: it owns no partition, or is stuck."),
              Query(_IN.rate("taskmill_tasks_finished_total", by="instance"), "{{instance}}"),
              stacked=True),
        lines("In flight", "short",
              Text("Tasks that each instance took and has not committed. At its `--concurrency` it "
                   "is full."),
              Query(_IN.total("taskmill_tasks_in_flight", "instance"), "{{instance}}"),
              stacked=True),
        lines("Duration, 99 of 100", "s",
              Text("Within which 99 of 100 attempts end, by instance. One slower than the others: "
                   "its machine is."),
              Query(run, "{{instance}}")),
    ]  # fmt: skip


def _partitions() -> list[Panel]:
    restore = _IN.of("taskmill_restore_seconds_bucket")
    return [
        lines("Partitions owned", "none",
              Text("They move when a worker comes or goes. Many more at one than at another: the "
                   "others joined late, or have left.", "TaskmillNoConsumers"),
              Query(_IN.total("taskmill_partitions_owned", "instance"), "{{instance}}"),
              stacked=True),
        lines("Assignments", "none",
              Text("Assignments received within 5 minutes. All the time: workers come and go, or "
                   "are thrown out of the group; their logs say why.", "TaskmillCommitFailures"),
              Query(_IN.new("taskmill_rebalances_total", by="instance", window="5m"),
                    "{{instance}}")),
        lines("IDs in the tables", "short",
              Text("IDs that the local tables hold, each for the dedup window: what a restore has "
                   "to read, and what disks have to hold."),
              Query(_IN.total("taskmill_idempotency_entries", "instance"), "{{instance}}"),
              stacked=True),
        lines("Restore, since the start", "s",
              Text("How long the tables of partitions took to restore, since each worker's start: "
                   "half of them, 99 of 100. On a directory of its own a restart takes next to "
                   "nothing; without one the table is read anew."),
              *(Query(f"histogram_quantile({q:g}, sum by (le) ({restore}))", f"{q:.0%}")
                for q in (0.5, 0.99)), width=12),
        lines("Restore under way", "s",
              Text("How long the longest restore of each instance has taken so far.",
                   "TaskmillRestoreStuck"),
              Query(_IN.greatest("taskmill_restore_under_way_seconds", "instance"),
                    "{{instance}}"), steps=rising(limits.RESTORE_S), width=12),
    ]  # fmt: skip


def _processes() -> list[Panel]:
    return [
        lines("Processes that live", "none",
              Text("Of each supervisor, and how many it should have.", "TaskmillCrashLoop"),
              Query(_IN.total(_LIVE, "instance"), "{{instance}} live"),
              Query(_IN.total(_WANTED, "instance"), "{{instance}} wanted")),
        lines("Restarts", "none",
              Text("Processes that ended by themselves, within 15 minutes. SIGKILL: out of memory?",
                   "TaskmillCrashLoop"),
              Query(_IN.new(_RESTARTS, by="instance", window="15m"), "{{instance}}"),
              steps=rising(1, limits.RESTARTS + 1)),
        lines("Stuck handlers", "none",
              Text("Handlers that did not end though their time was over, within 15 minutes, by "
                   "task. What cannot be interrupted belongs into a process: "
                   "`isolate=\"process\"`.", "TaskmillStuckHandlers"),
              Query(_IN.new(_STUCK, by="task", window="15m"), "{{task}}")),
        labels("Versions", f"max by (instance, version) ({_IN.of('taskmill_worker_info')})",
               Text("What runs where. Two versions beside each other are well while you upgrade."),
               "instance", "version"),
    ]  # fmt: skip


def dashboard() -> str:
    return board(
        "taskmill-worker",
        "taskmill / Worker",
        "What each worker does, owns and restores, and whether it lives.",
        _IN,
        {
            "Now": _now(),
            "Work": _work(),
            "Partitions and tables": _partitions(),
            "Processes": _processes(),
        },
    )
