"""Queue: how tasks come, wait, run and end, by queue and task."""

from __future__ import annotations

from dashboards import limits
from dashboards.board import board
from dashboards.panels import (
    Panel,
    Query,
    Text,
    falling,
    heat,
    lines,
    number,
    rising,
    warning,
)
from dashboards.promql import Scope

_IN = Scope(queue=True, task=True)
_SUCCESS = falling(1 - limits.BURNS_FAST, 1 - limits.BURNS_SLOWLY)
_WAIT, _RUN = "taskmill_task_wait_seconds", "taskmill_task_duration_seconds"


def _now() -> list[Panel]:
    members = _IN.greatest("taskmill_group_members", "queue")
    return [
        number("Behind", _IN.behind(), "short",
               Text("Tasks of these queues that are not done: waiting, or in a worker.",
                    "TaskmillLagGrowing"), steps=warning(limits.BEHIND)),
        number("Oldest task", _IN.greatest("taskmill_oldest_task_age_seconds"), "s",
               Text("How long the oldest task that has not ended has lain there. 0: there is none.",
                    "TaskmillOldestTaskTooOld"),
               steps=rising(limits.OLD_S, limits.NEAR_RETENTION_S)),
        number("In workers", _IN.total("taskmill_tasks_in_flight"), "short",
               Text("Tasks that workers took and have not committed. At `--concurrency` times the "
                    "workers it is full: then more workers, or more concurrency, help.")),
        number("Workers", f"min({members})", "none",
               Text("Members of the consumer group, of the queue that has fewest. Beyond the "
                    "number of partitions, more of them stand by.", "TaskmillNoConsumers"),
               steps=falling(1, 1)),
        number("Dead letters", "sum(" + _IN.greatest("taskmill_dlq_depth", "queue") + ")", "short",
               Text("Letters that were not replayed. Which: `taskmill dlq stats`.",
                    "TaskmillDeadLettersGrow")),
        number("Success", f"min({_IN.success(window='5m')})", "percentunit",
               Text("Of what ended within 5 minutes, the share that ended well, of the queue where "
                    "it is least.", "TaskmillSuccessBurn"), steps=_SUCCESS, idle="none ended"),
    ]  # fmt: skip


def _flow() -> list[Panel]:
    ended = "taskmill_tasks_finished_total"
    return [
        lines("Enqueued", "ops",
              Text("Tasks a second that the broker acknowledged, by task, as taskmill's producers "
                   "count them. Other Kafka clients' are not in it."),
              Query(_IN.rate("taskmill_tasks_enqueued_total", by="task"), "{{task}}"),
              stacked=True),
        lines("Outcomes", "ops",
              Text("What came of attempts, a second: succeeded, retrying (tried again later), dead "
                   "(letter), cancelled, expired (waited too long).", "TaskmillSuccessBurn"),
              Query(_IN.rate(ended, by="outcome"), "{{outcome}}"), stacked=True),
        lines("Ended well", "ops",
              Text("Tasks a second that succeeded, by task."),
              Query(_IN.rate(ended, 'outcome="succeeded"', by="task"), "{{task}}"), stacked=True),
    ]  # fmt: skip


def _time() -> list[Panel]:
    return [
        lines("Wait", "s",
              Text("From enqueueing to start, of first attempts: half of them, 95, 99 of 100. "
                   "Where it rises, there are too few places to run in.", "TaskmillLagGrowing"),
              *(Query(_IN.quantile(q, _WAIT), f"{q:.0%}") for q in (0.5, 0.95, 0.99))),
        lines("Duration, 99 of 100", "s",
              Text("Within which 99 of 100 attempts end, by task. Where it rises, what handlers "
                   "wait for is slow: scale that. Give long ones a `timeout`."),
              Query(_IN.quantile(0.99, _RUN, "task"), "{{task}}")),
        heat("Durations", _IN.buckets(_RUN),
             Text("How many attempts took how long. Two bands are two kinds of work.")),
    ]  # fmt: skip


def _behind() -> list[Panel]:
    return [
        lines("Behind, by partition", "short",
              Text("One far above the others: its owner is stuck, or one key is much of the load. "
                   "All of them: too few workers.", "TaskmillLagGrowing"),
              Query(_IN.greatest("taskmill_consumer_lag", "topic, partition"),
                    "{{topic}} [{{partition}}]")),
        lines("Oldest task", "s",
              Text("By queue. It rises by a second a second while a task waits or runs.",
                   "TaskmillOldestTaskTooOld"),
              Query(_IN.greatest("taskmill_oldest_task_age_seconds", "queue"), "{{queue}}"),
              steps=rising(limits.OLD_S, limits.NEAR_RETENTION_S)),
        lines("Waiting for their time", "short",
              Text("Retries by tier, and delayed tasks: none of them is late. See Scheduler for "
                   "whether they come back.", "TaskmillNoScheduler"),
              Query(_IN.waiting("queue, tier"), "{{queue}} {{tier}}"), stacked=True),
        lines("Duplicates", "ops",
              Text("Records a second that were not run, because their ID had run, or was running: "
                   "deduplication at work. Many: somebody enqueues twice, or replays a topic."),
              Query(_IN.rate("taskmill_duplicates_total", by="queue"), "{{queue}}"), width=12),
        lines("On another partition", "ops",
              Text("Records a second that a producer put where its key does not belong; workers "
                   "send them on, at the cost of a second record. Give that producer murmur2 "
                   "(docs/wire.md)."),
              Query(_IN.rate("taskmill_rerouted_total", by="queue"), "{{queue}}"), width=12),
    ]  # fmt: skip


def dashboard() -> str:
    return board(
        "taskmill-queue",
        "taskmill / Queue",
        "How tasks come, wait, run and end.",
        _IN,
        {
            "Now": _now(),
            "Flow": _flow(),
            "Time": _time(),
            "What waits, and what comes twice": _behind(),
        },
    )
