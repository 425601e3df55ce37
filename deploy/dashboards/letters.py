"""Retries and DLQ: what failed, what is tried again, and what is dead."""

from __future__ import annotations

from dashboards import limits
from dashboards.board import board
from dashboards.panels import Panel, Query, Text, falling, lines, number, warning
from dashboards.promql import WINDOW, Scope

_IN = Scope(queue=True, task=True)
_ENDED, _LETTERS = "taskmill_tasks_finished_total", "taskmill_dead_letters_total"
_SUCCESS = falling(1 - limits.BURNS_FAST, 1 - limits.BURNS_SLOWLY)


def _failed(by: str, window: str) -> str:
    """Of all attempts, the share that did not go well."""
    attempts = 'outcome=~"succeeded|retrying|dead"'
    whole = _IN.rate(_ENDED, attempts, by=by, window=window)
    failed = _IN.rate(_ENDED, 'outcome=~"retrying|dead"', by=by, window=window)
    return f"({failed} or 0 * {whole}) / ({whole} > 0)"


def _now() -> list[Panel]:
    return [
        number("Dead letters", "sum(" + _IN.greatest("taskmill_dlq_depth", "queue") + ")", "short",
               Text("Letters that were not replayed. They are kept for 30 days. "
                    "`taskmill dlq stats` groups them by cause; `taskmill dlq replay --canary 10` "
                    "puts back some first.", "TaskmillDeadLettersGrow")),
        number("New in 1 h", _IN.new(_LETTERS), "short",
               Text("Letters written within an hour.", "TaskmillDeadLettersGrow"),
               steps=warning(limits.NEW_LETTERS)),
        number("Crash loops in 1 h", _IN.new(_LETTERS, 'reason="crash_loop"'), "none",
               Text("Tasks that were in flight at three sudden ends of their worker, and are dead "
                    "for that. Look at the handler before you replay one.",
                    "TaskmillCrashLoop"), steps=warning(1)),
        number("Success", f"min({_IN.success(window='5m')})", "percentunit",
               Text("Of what ended within 5 minutes, the share that ended well, of the queue where "
                    "it is least.", "TaskmillSuccessBurn"), steps=_SUCCESS, idle="none ended"),
        number("Failed attempts", f"max({_failed('queue', '5m')})", "percentunit",
               Text("Of the attempts of 5 minutes, the share that raised, of the queue where it is "
                    "most. It rises before tasks are dead: retries hide what they heal.",
                    "TaskmillSuccessBurn"), idle="none ended"),
        number("Waiting", _IN.waiting(), "short",
               Text("Retries and delayed tasks before their time. It only grows: no scheduler "
                    "passes them on.", "TaskmillNoScheduler")),
    ]  # fmt: skip


def _dead() -> list[Panel]:
    return [
        lines("Dead letters by queue", "short",
              Text("Letters that were not replayed. A step: one cause; a slope: one that lasts.",
                   "TaskmillDeadLettersGrow"),
              Query(_IN.greatest("taskmill_dlq_depth", "queue"), "{{queue}}"), width=12),
        lines("New, by reason", "ops",
              Text("Letters a second. failed, timed_out: the last attempt was; undecodable, "
                   "invalid_payload, unknown_task: see who enqueues them; rejected: a handler's "
                   "word; crash_loop: it kills workers.", "TaskmillSuccessBurn"),
              Query(_IN.rate(_LETTERS, by="reason"), "{{reason}}"), stacked=True, width=12),
        lines("Dead, by task", "ops",
              Text("Tasks a second that are dead, by task.", "TaskmillSuccessBurn"),
              Query(_IN.rate(_ENDED, 'outcome="dead"', by="task"), "{{task}}"), stacked=True),
        lines("Success by queue", "percentunit",
              Text("Of what ended, the share that ended well. The lines are where the alerts of a "
                   "burnt error budget begin.", "TaskmillSuccessBurn"),
              Query(_IN.success(), "{{queue}}"), steps=_SUCCESS, top=1),
        lines("Cancelled and expired", "ops",
              Text("Tasks a second that somebody cancelled, or that waited for longer than they "
                   "may: those have no letter.", "TaskmillLagGrowing"),
              Query(_IN.rate(_ENDED, 'outcome=~"cancelled|expired"', by="outcome"),
                    "{{outcome}}"), stacked=True),
    ]  # fmt: skip


def _retries() -> list[Panel]:
    passed = "taskmill_passed_on_total"
    return [
        lines("Failed attempts, by task", "percentunit",
              Text("Of all attempts, the share that raised. One task: its handler, or what it "
                   "calls; all of them: something that they share.", "TaskmillSuccessBurn"),
              Query(_failed("task", WINDOW), "{{task}}"), width=12, top=1),
        lines("Put off, by tier", "ops",
              Text("Failed attempts a second that are tried again, by how long they wait: a retry "
                   "tier, or `delayed` for an exact or a longer wait."),
              Query(_IN.rate("taskmill_retries_total", by="tier"), "{{tier}}"),
              stacked=True, width=12),
        lines("Waiting, by tier", "short",
              Text("What waits for its time now.", "TaskmillNoScheduler"),
              Query(_IN.waiting("tier"), "{{tier}}"), stacked=True, width=12),
        lines("Back on the queue, by tier", "ops",
              Text("Tasks a second whose wait was over, put back by a scheduler. None, while some "
                   "wait whose time has come: no scheduler, or it is held up.",
                   "TaskmillNoScheduler"),
              Query(_IN.rate(passed, by="tier"), "{{tier}}"), stacked=True, width=12),
    ]  # fmt: skip


def dashboard() -> str:
    return board(
        "taskmill-letters",
        "taskmill / Retries and DLQ",
        "What failed, what is tried again, and what is dead.",
        _IN,
        {"Now": _now(), "Dead": _dead(), "Tried again": _retries()},
    )
