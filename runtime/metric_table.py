"""Every metric of every role, as data: what is served and what docs/metrics.md says come from here.

A label's values are bounded: queues and tasks that somebody declared, topics, a fixed set of words.
No ID is ever one. Names of tasks that nobody here declares count as UNKNOWN.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

#: Bounds of all histograms in seconds, from 1 ms to 1 h: tasks are that short and that long.
BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

#: The task of a record whose name is not declared, or cannot be read.
UNKNOWN = "(unknown)"
#: The task of all those beyond what one metric tells apart.
OTHER = "(other)"

APP, WORKER, SUPERVISOR, SCHEDULER = "App", "worker", "supervisor", "scheduler"
CONSOLE = "console"


class Metric(NamedTuple):
    """`name` is the one that is scraped. `merge`: how a gauge of several processes, or queries over
    several instances, become one value; counters and histograms are always added up."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    labels: tuple[str, ...]
    roles: tuple[str, ...]
    text: str
    merge: Literal["sum", "max"] = "sum"


_TASK = ("queue", "task")
_ROWS = (
    Metric("taskmill_tasks_enqueued_total", "counter", _TASK, (APP, WORKER, SCHEDULER, CONSOLE),
           "Tasks that the broker acknowledged: an App's, a console's, those that handlers enqueue "
           "with their outcome, and runs of schedules."),
    Metric("taskmill_tasks_finished_total", "counter", (*_TASK, "outcome"), (WORKER,),
           "Outcomes committed: succeeded, retrying, dead, cancelled, expired."),
    Metric("taskmill_task_duration_seconds", "histogram", _TASK, (WORKER,),
           "How long handlers ran, of every attempt that was committed."),
    Metric("taskmill_task_wait_seconds", "histogram", _TASK, (WORKER,),
           "From enqueue to start, of first attempts: others waited because they should."),
    Metric("taskmill_tasks_in_flight", "gauge", ("queue",), (WORKER,),
           "Records taken and not committed."),
    Metric("taskmill_duplicates_total", "counter", ("queue",), (WORKER,),
           "Records whose offset passed without a run: their ID had run, or was running."),
    Metric("taskmill_retries_total", "counter", ("queue", "tier"), (WORKER,),
           "Failed attempts put into a retry tier, or `delayed` for an exact or a longer wait."),
    Metric("taskmill_dead_letters_total", "counter", ("queue", "reason"), (WORKER,),
           "Letters written to the DLQ, by what header taskmill-reason says."),
    Metric("taskmill_stuck_handlers_total", "counter", _TASK, (WORKER,),
           "Handlers that did not end, though their time was over and the grace too."),
    Metric("taskmill_rerouted_total", "counter", ("queue",), (WORKER,),
           "Records met on another partition than murmur2 of their key says, and sent there: some "
           "producer uses another partitioner."),
    Metric("taskmill_consumer_lag", "gauge", ("topic", "partition"), (WORKER, SCHEDULER),
           "Records not yet committed. 0 when idle: transaction markers do not count. A worker "
           "tells it of those that it owns, a scheduler of all: not to be added up.", "max"),
    Metric("taskmill_oldest_task_age_seconds", "gauge", ("queue",), (WORKER, SCHEDULER),
           "How long the oldest task that has not ended has lain on its topic, by the broker's "
           "stamp; 0: there is none. A worker's among its own partitions, a scheduler's of all.",
           "max"),
    Metric("taskmill_commit_seconds", "histogram", ("queue",), (WORKER,),
           "How long a transaction took, from begin to the broker's answer, of those committed."),
    Metric("taskmill_commit_failures_total", "counter", ("queue", "answer"), (WORKER,),
           "Transactions that were not committed: aborted, or unknown where the answer was lost."),
    Metric("taskmill_idempotency_entries", "gauge", ("queue",), (WORKER,),
           "IDs that the local tables of the owned partitions hold."),
    Metric("taskmill_partitions_owned", "gauge", ("queue",), (WORKER,),
           "Partitions of the queue that this worker owns, restored or not."),
    Metric("taskmill_restore_seconds", "histogram", ("queue",), (WORKER,),
           "How long the table of a partition took to restore after it came."),
    Metric("taskmill_restore_under_way_seconds", "gauge", ("queue",), (WORKER,),
           "How long the longest restore that has not ended has taken; 0: there is none.", "max"),
    Metric("taskmill_rebalances_total", "counter", ("queue",), (WORKER,),
           "Assignments received."),
    Metric("taskmill_worker_info", "info", ("version",), (WORKER,),
           "1, with the version of the worker."),
    Metric("taskmill_worker_processes", "gauge", (), (SUPERVISOR,),
           "Worker processes that live."),
    Metric("taskmill_worker_processes_wanted", "gauge", (), (SUPERVISOR,),
           "Worker processes that --processes asks for."),
    Metric("taskmill_worker_restarts_total", "counter", (), (SUPERVISOR,),
           "Worker processes that ended by themselves and are replaced."),
    Metric("taskmill_schedule_lateness_seconds", "histogram", _TASK, (SCHEDULER,),
           "From the time at which a run was due to its commit, of runs in time: what was made up "
           "for after a misfire is not counted."),
    Metric("taskmill_schedule_runs_total", "counter", _TASK, (SCHEDULER,),
           "Runs of schedules that were enqueued."),
    Metric("taskmill_misfires_total", "counter", _TASK, (SCHEDULER,),
           "Times that were reached too late and dropped by the schedule's misfire policy."),
    Metric("taskmill_schedules", "gauge", (), (SCHEDULER,),
           "Schedules that this scheduler fires."),
    Metric("taskmill_passed_on_total", "counter", ("queue", "tier"), (SCHEDULER,),
           "Tasks whose wait was over, put back on their queue: by tier, or `delayed`."),
    Metric("taskmill_waiting_tasks", "gauge", ("queue", "tier"), (SCHEDULER,),
           "Tasks that wait for their time: in each retry tier, or `delayed`. Each scheduler tells "
           "the whole.", "max"),
    Metric("taskmill_dlq_depth", "gauge", ("queue",), (SCHEDULER,),
           "Letters in the DLQ that were not replayed yet. Each scheduler tells the whole.", "max"),
    Metric("taskmill_lso_stuck_seconds", "gauge", ("topic",), (SCHEDULER,),
           "How long a partition's last stable offset has stood still behind its end: readers of "
           "committed records get no further. 0: none does.", "max"),
    Metric("taskmill_group_members", "gauge", ("queue",), (SCHEDULER,),
           "Members of the queue's consumer group. Each scheduler tells the whole.", "max"),
)  # fmt: skip

#: By name, in the order of the page.
METRICS = {row.name: row for row in _ROWS}
