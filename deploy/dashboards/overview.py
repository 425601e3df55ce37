"""Overview: whether all is well, at a glance, and if not, where."""

from __future__ import annotations

from dashboards import limits
from dashboards.board import board
from dashboards.panels import (
    Column,
    Panel,
    Query,
    Text,
    columns,
    falling,
    labels,
    lines,
    number,
    rising,
    warning,
)
from dashboards.promql import WINDOW, Scope

_ALL = Scope()
_HERE = 'namespace=~"$namespace",job=~"$job"'
_ALERTS = 'ALERTS{alertname=~"Taskmill.+"'
_SUCCESS = falling(1 - limits.BURNS_FAST, 1 - limits.BURNS_SLOWLY)
_TO_QUEUE = (
    "/d/taskmill-queue?var-queue=${__value.text}&${datasource:queryparam}"
    "&${namespace:queryparam}&${job:queryparam}&${__url_time_range}"
)


def _is_well() -> list[Panel]:
    members = _ALL.greatest("taskmill_group_members", "queue")
    return [
        number("Alerts that fire", f'count({_ALERTS},alertstate="firing"}}) or vector(0)', "none",
               Text("Alerts of taskmill's that fire now. Which: the table below. Prometheus must "
                    "have the rules of deploy/alerts."), steps=rising(1), width=3),
        number("Success", f"min({_ALL.success(window='5m')})", "percentunit",
               Text("Of the tasks that ended within 5 minutes, the share that ended well, of the "
                    "queue where it is least. Retries are no failures. Look at the dead letters "
                    "of that queue.", "TaskmillSuccessBurn"),
               steps=_SUCCESS, idle="none ended", width=3),
        number("Oldest task", _ALL.greatest("taskmill_oldest_task_age_seconds"), "s",
               Text("How long the oldest task that has not ended has lain on its queue. Many that "
                    "wait: too few workers. One: a handler that runs long.",
                    "TaskmillOldestTaskTooOld"),
               steps=rising(limits.OLD_S, limits.NEAR_RETENTION_S), width=3),
        number("Behind", _ALL.behind(), "short",
               Text("Tasks of all queues that are not done. As long as it falls again, it is a "
                    "peak; where it grows, more workers are needed.", "TaskmillLagGrowing"),
               steps=warning(limits.BEHIND), width=3),
        number("Dead in 1 h", _ALL.new("taskmill_dead_letters_total"), "short",
               Text("Dead letters written within an hour. `taskmill dlq stats` groups them by "
                    "cause.", "TaskmillDeadLettersGrow"),
               steps=warning(limits.NEW_LETTERS), width=3),
        number("Unserved queues", f"count({members} == 0) or vector(0)", "none",
               Text("Queues whose consumer group has no member: no worker serves them.",
                    "TaskmillNoConsumers"), steps=rising(1), width=3),
        number("Schedulers", "count(" + _ALL.of("taskmill_schedules") + ") or vector(0)", "none",
               Text("Schedulers that are seen. With none, no schedule fires, no retry and no "
                    "delayed task goes on. Run two.", "TaskmillNoScheduler"),
               steps=falling(1, 1), width=3),
        number("Down", f"count(up{{{_HERE}}} == 0) or vector(0)", "none",
               Text("Processes that Prometheus should scrape and cannot: they are gone, stuck, or "
                    "not reached. Ask their /healthz.", "TaskmillCrashLoop"),
               steps=rising(1), width=3),
    ]  # fmt: skip


def _where() -> Panel:
    rate = _ALL.rate
    return columns(
        "Queues", "queue",
        Text("A row for each queue; its name leads to it. Behind: tasks that are not done. Oldest: "
             "of those. In, out: tasks a second. Success: of what ended within 5 minutes. Letters: "
             "not replayed. Waiting: retries and delayed tasks before their time. Workers: members "
             "of the consumer group."),
        Column("Behind", _ALL.behind("queue"), "short", warning(limits.BEHIND)),
        Column("Oldest", _ALL.greatest("taskmill_oldest_task_age_seconds", "queue"), "s",
               rising(limits.OLD_S, limits.NEAR_RETENTION_S)),
        Column("In", rate("taskmill_tasks_enqueued_total", by="queue", window="5m"), "ops"),
        Column("Out", rate("taskmill_tasks_finished_total", by="queue", window="5m"), "ops"),
        Column("Success", _ALL.success(window="5m"), "percentunit", _SUCCESS),
        Column("Letters", _ALL.greatest("taskmill_dlq_depth", "queue")),
        Column("Waiting", _ALL.waiting("queue")),
        Column("Workers", _ALL.greatest("taskmill_group_members", "queue"), "none",
               falling(1, 1)),
        link=_TO_QUEUE,
    )  # fmt: skip


def _over_time() -> list[Panel]:
    ended = _ALL.rate("taskmill_tasks_finished_total", by="outcome")
    return [
        lines("In and out", "ops",
              Text("Tasks enqueued, and what came of attempts, a second. Enqueued are those that "
                   "taskmill's own producers count: other Kafka clients' are not. Where less ends "
                   "than comes, the queue grows."),
              Query(_ALL.rate("taskmill_tasks_enqueued_total"), "enqueued"),
              Query(ended, "{{outcome}}"), width=12),
        lines("Success by queue", "percentunit",
              Text("Of what ended, the share that ended well. The lines are where the alerts of a "
                   "burnt error budget begin.", "TaskmillSuccessBurn"),
              Query(_ALL.success(), "{{queue}}"), steps=_SUCCESS, width=12, top=1),
        lines("Oldest task", "s",
              Text("By queue. It rises by a second a second while a task waits or runs.",
                   "TaskmillOldestTaskTooOld"),
              Query(_ALL.greatest("taskmill_oldest_task_age_seconds", "queue"), "{{queue}}"),
              steps=rising(limits.OLD_S, limits.NEAR_RETENTION_S)),
        lines("Behind", "short",
              Text("Tasks that are not done, by queue.", "TaskmillLagGrowing"),
              Query(_ALL.behind("queue"), "{{queue}}"), steps=warning(limits.BEHIND)),
        lines("Wait, 99 of 100", "s",
              Text("Within which 99 of 100 first attempts start after their enqueueing, by queue. "
                   "It rises before anything else does where workers are too few.",
                   "TaskmillLagGrowing"),
              Query(_ALL.quantile(0.99, "taskmill_task_wait_seconds", "queue"), "{{queue}}")),
    ]  # fmt: skip


def _console() -> list[Panel]:
    requests = f"taskmill_console_requests_total{{{_HERE}}}"
    seconds = f"taskmill_console_request_seconds_bucket{{{_HERE}}}"
    return [
        lines("Requests", "reqps",
              Text("What the console answered a second, by status. 5xx: its log says why; 503 "
                   "while Kafka or its store is away."),
              Query(f"sum by (status) (rate({requests}[{WINDOW}]))", "{{status}}"),
              stacked=True, width=12),
        lines("Answers, 99 of 100", "s",
              Text("Within which 99 of 100 requests are answered, by route. A result that is "
                   "waited for, and a stream, take until they end."),
              Query(f"histogram_quantile(0.99, sum by (le, route) (rate({seconds}[{WINDOW}])))",
                    "{{route}}"), width=12),
    ]  # fmt: skip


def dashboard() -> str:
    alerts = labels(
        "Alerts", f'{_ALERTS},alertstate=~"pending|firing"}}',
        Text("What fires, and what will if it goes on (pending). Each alert has a section of its "
             "name in docs/runbooks.md: what it means, what to look at, what to do."),
        "alertstate", "severity", "alertname", "queue", "topic", "instance", "task",
    )  # fmt: skip
    return board(
        "taskmill-overview",
        "taskmill / Overview",
        "Whether all is well, and if not, where.",
        _ALL,
        {
            "Is all well?": _is_well(),
            "Where": [_where(), alerts],
            "Over time": _over_time(),
            "Console": _console(),
        },
    )
