"""What does a task cost the brokers: bytes on disk, CPU, transactions?

No-op tasks with a small argument on 8 partitions, through one worker process: from a backlog, and
one after the other, so that each is alone in its batch and in its transaction. One broker of its
own, so one replica. Bytes are those of the topics' segments, compressed as by taskmill's clients
(lz4), before any clean-up; CPU is the broker's process, while the worker takes the backlog.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs import make
from load import PARTITIONS, Sender, crew, fill, fresh, ordered, settings_of, tasks
from measure import Figure, apart, median, report, sized, title

from taskmill import Middleware
from taskmill.runtime.local_broker import LocalBroker
from taskmill.runtime.topics import Topics, ensure

#: Kafka's own, of groups' offsets and of transactions.
OF_KAFKA = ("__consumer_offsets", "__transaction_state")


class Commits(Middleware):
    """Counts transactions."""

    def __init__(self) -> None:
        self.count = 0

    def after_commit(self, outcomes: Sequence[Any]) -> None:
        self.count += 1


def prepare(bootstrap: str, prefix: str, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        fill(settings_of(bootstrap, prefix, folder), ordered(count))
    return {}


def side(bootstrap: str, prefix: str, count: int, pid: int) -> dict[str, Any]:
    """Seconds, transactions and the broker's CPU seconds for `count` tasks."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        app, commits = make(settings_of(bootstrap, prefix, folder)), Commits()
        app.use(commits)
        before = cpu_s(pid)
        with crew(app) as running:
            taken = running.take(count)
        return {**taken, "commits": commits.count, "broker": cpu_s(pid) - before}


def alone(bootstrap: str, prefix: str, count: int) -> dict[str, Any]:
    """`count` tasks, each enqueued once the one before has its outcome."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        settings = settings_of(bootstrap, prefix, folder)
        ensure(settings, "default")
        sender = Sender(settings, Topics(prefix, "default").tasks)
        with crew(make(settings)) as running:
            running.until_ready(PARTITIONS)
            for number, task in enumerate(tasks(ordered(count), PARTITIONS, "noop", b'{"n":1}'), 1):
                sender.send([task])
                sender.flush()
                running.until(lambda many=number: running.counting.done >= many, "an outcome")
    return {}


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has taken, user's and system's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def on_disk(data: Path, *starts: str) -> int:
    """Bytes of the segments of the partitions whose names start so."""
    logs = (log for start in starts for log in data.glob(f"{start}*/*.log"))
    return sum(log.stat().st_size for log in logs)


def main() -> int:
    options = sized(__doc__, "2 minutes", count=(200_000, 5_000), runs=(3, 1), alone=(2_000, 100))
    count, answers = options.count, []
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder:
        local = LocalBroker(Path(folder), env={**os.environ, "DOCKER_HOST": "unix:///nowhere"})
        status = local.start()
        try:
            address, (pid,) = status.bootstrap, status.pids
            assert address is not None, "a started broker has an address"
            data = next(Path(folder).glob("broker/node-*/data"))
            for run in range(options.runs + 1):
                prefix = fresh("b")
                apart(prepare, bootstrap=address, prefix=prefix, count=count)
                kafkas = on_disk(data, *OF_KAFKA)
                answer = apart(side, bootstrap=address, prefix=prefix, count=count, pid=pid)
                answer["tasks"] = on_disk(data, f"{prefix}.tasks")
                answer["state"] = on_disk(data, f"{prefix}.state")
                answer["kafka"] = on_disk(data, *OF_KAFKA) - kafkas
                if run:  # the first one warms the broker up
                    answers.append(answer)
                    rate = count / answer["seconds"]
                    print(f"run {run} {rate:9,.0f} tasks/s", file=sys.stderr)
            prefix, kafkas = fresh("a"), on_disk(data, *OF_KAFKA)
            apart(alone, bootstrap=address, prefix=prefix, count=options.alone)
            singly = {
                "a task on tasks, alone": on_disk(data, f"{prefix}.tasks"),
                "a task on state, alone": on_disk(data, f"{prefix}.state"),
                "a task on Kafka's own topics, alone": on_disk(data, *OF_KAFKA) - kafkas,
            }
        finally:
            local.stop()

    def each(key: str) -> float:
        return median([answer[key] / count for answer in answers])

    figures = [
        *(Figure(name, size / options.alone, "B", "lower") for name, size in singly.items()),
        Figure("a task on tasks", each("tasks"), "B", "lower"),
        Figure("a task on state", each("state"), "B", "lower"),
        Figure("a task on Kafka's own topics", each("kafka"), "B", "lower"),
        Figure("CPU of the broker", each("broker") * 1e6, "µs/task", "lower"),
        Figure("CPU of the worker process", each("cpu") * 1e6, "µs/task", "lower"),
        Figure("tasks in a transaction", 1 / each("commits"), "tasks", "higher"),
        Figure("committed", 1 / each("seconds"), "tasks/s", "higher"),
    ]
    settings = {
        "tasks": count, "tasks alone": options.alone, "partitions": PARTITIONS,
        "runs": options.runs, "replicas": 1, "handler": "async, no-op", "IDs": "in order",
    }  # fmt: skip
    kept = not options.quick
    return 0 if report("brokers", title(__doc__), figures, settings, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
