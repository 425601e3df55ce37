"""Scheduler: whether schedules fire in time, and whether what waits comes back."""

from __future__ import annotations

from dashboards import limits
from dashboards.board import board
from dashboards.panels import Panel, Query, Text, heat, lines, number, warning
from dashboards.promql import Scope

_IN = Scope(queue=True, task=True)
_LATE, _RUNS = "taskmill_schedule_lateness_seconds", "taskmill_schedule_runs_total"
_MISSED, _PASSED = "taskmill_misfires_total", "taskmill_passed_on_total"


def _now() -> list[Panel]:
    return [
        number("Schedulers", f"count({_IN.of('taskmill_schedules')}) or vector(0)", "none",
               Text("Schedulers that are seen. With none, no schedule fires, no retry and no "
                    "delayed task goes on; the next one makes up for it. Run two.",
                    "TaskmillNoScheduler"), steps=[(0, "red"), (1, "green")]),
        number("Schedules", _IN.total("taskmill_schedules"), "none",
               Text("Schedules that are fired, of all schedulers. Fewer than "
                    "`taskmill schedules list` shows: some have no scheduler, or are paused.",
                    "TaskmillNoScheduler")),
        number("Lateness, 99 of 100", _IN.quantile(0.99, _LATE, window="10m"), "s",
               Text("How late 99 of 100 runs of 10 minutes were at most, from the time at which "
                    "they were due to their commit.", "TaskmillSchedulesLate"),
               steps=warning(limits.LATE_S), idle="no run"),
        number("Misfires in 15 min", _IN.new(_MISSED, window="15m"), "none",
               Text("Times that were reached too late and dropped by their schedule's misfire "
                    "policy. `taskmill schedules backfill` runs them now.",
                    "TaskmillSchedulesLate"), steps=warning(1)),
        number("Runs in 1 h", _IN.new(_RUNS), "short",
               Text("Runs of schedules that were enqueued within an hour.",
                    "TaskmillSchedulesLate")),
        number("Waiting", _IN.waiting(), "short",
               Text("Retries and delayed tasks before their time.", "TaskmillNoScheduler")),
    ]  # fmt: skip


def _schedules() -> list[Panel]:
    return [
        lines("Runs, by task", "ops",
              Text("Runs of schedules a second, by the task that they enqueue.",
                   "TaskmillSchedulesLate"),
              Query(_IN.rate(_RUNS, by="task"), "{{task}}"), stacked=True),
        lines("Lateness", "s",
              Text("From due to committed: half of the runs, 99 of 100. Late: no scheduler for a "
                   "while, a clock that is wrong, or a broker that is slow.",
                   "TaskmillSchedulesLate"),
              *(Query(_IN.quantile(q, _LATE), f"{q:.0%}") for q in (0.5, 0.99)),
              steps=warning(limits.LATE_S)),
        heat("Latenesses", _IN.buckets(_LATE),
             Text("How many runs were how late. A band that moves up: a scheduler that cannot keep "
                  "up; single ones: it was restarted.", "TaskmillSchedulesLate")),
        lines("Misfires, by task", "none",
              Text("Times that were dropped within 15 minutes, by task.", "TaskmillSchedulesLate"),
              Query(_IN.new(_MISSED, by="task", window="15m"), "{{task}}"), width=12),
        lines("Schedules, by instance", "none",
              Text("How many each scheduler fires: they share them. All at one beside others that "
                   "have none: those have just come, or stand by.", "TaskmillNoScheduler"),
              Query(_IN.total("taskmill_schedules", "instance"), "{{instance}}"),
              stacked=True, width=12),
    ]  # fmt: skip


def _waits() -> list[Panel]:
    return [
        lines("Waiting, by tier", "short",
              Text("Retries by tier, and delayed tasks, before their time.",
                   "TaskmillNoScheduler"),
              Query(_IN.waiting("tier"), "{{tier}}"), stacked=True, width=12),
        lines("Back on the queue, by instance", "ops",
              Text("Tasks a second whose wait was over, by the scheduler that put them back.",
                   "TaskmillNoScheduler"),
              Query(_IN.rate(_PASSED, by="instance"), "{{instance}}"), stacked=True, width=12),
    ]  # fmt: skip


def dashboard() -> str:
    return board(
        "taskmill-scheduler",
        "taskmill / Scheduler",
        "Whether schedules fire in time, and whether what waits comes back.",
        _IN,
        {"Now": _now(), "Schedules": _schedules(), "What waits for its time": _waits()},
    )
