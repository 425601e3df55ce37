"""How late are a thousand schedules, each due every second?

Two schedulers and a worker, in processes of their own, serve a thousand schedules that are all due
in the same instant of every second; first with runs that may overlap, then with those that may not,
for which the state of each one's last run is read. Lateness is from the nominal time until a reader
of committed records has the run's task.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from load import PARTITIONS, PATIENCE_S, fresh, settings_of
from measure import Figure, broker, quantile, report, sized, title

from taskmill.runtime.clock import SYSTEM_CLOCK, Deadline
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Topics, ensure
from taskmill.scheduler.board import Board
from taskmill.schemas.codec import CODEC
from taskmill.schemas.models import Schedule

#: Before schedules are put there: whoever serves has joined by then. And seconds of theirs that do
#: not count: a broker that was just started is slow.
SETTLE_S, WARM_S = 15, 10
HERE = Path(__file__).resolve().parent


@contextmanager
def role(settings: Settings, folder: str, *arguments: str) -> Any:
    """`taskmill ARGUMENTS`, in a process of its own."""
    environment = {
        "TASKMILL_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "TASKMILL_PREFIX": settings.prefix,
        "TASKMILL_STATE_DIR": folder,
        "PYTHONPATH": str(HERE),
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "taskmill", *arguments],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def witness(settings: Settings, until_ms: int) -> list[tuple[str, int, float]]:
    """Schedule, nominal time (UTC ms) and when a reader had it (Unix seconds), of each run that is
    due before `until_ms`, until some seconds after that."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": "perf-witness",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 5,
        }
    )
    topic = Topics(settings.prefix, "default").tasks
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    seen: list[tuple[str, int, float]] = []
    limit = Deadline(PATIENCE_S)
    while time.time() * 1000 < until_ms + 5_000:
        assert not limit.over(), f"{len(seen)} runs"
        messages = consumer.consume(1, 0.05)
        messages += consumer.consume(4_999, 0) if messages else []
        now = time.time()
        for message in messages:
            task = CODEC.decode_task(message.value())
            nominal = task.headers["schedule-time"]
            seen.append((task.headers["schedule"], _ms(nominal), now))
    consumer.close()
    return seen


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def fired(bootstrap: str, count: int, seconds: int, overlap: str) -> dict[str, Any]:
    """How late each run was (seconds), and how many were missing or came twice."""
    with tempfile.TemporaryDirectory(prefix="taskmill-perf-") as folder, ExitStack() as stack:
        settings = settings_of(bootstrap, fresh(overlap[0]), folder)
        ensure(settings, "default")
        for _ in range(2):
            stack.enter_context(role(settings, folder, "scheduler"))
        stack.enter_context(role(settings, folder, "worker", "-A", "jobs:app"))
        time.sleep(SETTLE_S)
        now = SYSTEM_CLOCK.now_ms()
        first = (now // 1000 + WARM_S) * 1000
        end = first + seconds * 1000
        made = [
            Schedule(f"s{n}", "noop", b'{"n":1}', now, every_ms=1_000, overlap=overlap)
            for n in range(count)
        ]
        with Board(settings, CODEC, SYSTEM_CLOCK) as board:
            board.write(made)
        seen = [one for one in witness(settings, end) if first <= one[1] < end]
    times = Counter((id, nominal) for id, nominal, _ in seen)
    return {
        "late": [at - nominal / 1000 for _, nominal, at in seen],
        "missed": count * seconds - len(times),
        "doubled": sum(times.values()) - len(times),
    }


def main() -> int:
    options = sized(__doc__, "3 minutes", count=(1_000, 50), seconds=(60, 4))
    figures: list[Figure] = []
    with broker() as bootstrap:
        for overlap in ("allow", "skip"):
            answer = fired(bootstrap, options.count, options.seconds, overlap)
            late = [one * 1000 for one in answer["late"]]
            words = f"overlap {overlap}"
            figures += [
                Figure(f"lateness, {words}, p50", quantile(late, 0.5), "ms", "lower"),
                Figure(f"lateness, {words}, p99", quantile(late, 0.99), "ms", "lower", 250),
                Figure(f"missed, {words}", answer["missed"], "runs", "lower", 0),
                Figure(f"doubled, {words}", answer["doubled"], "runs", "lower", 0),
                Figure(f"early, {words}", sum(one < 0 for one in late), "runs", "lower", 0),
            ]
            print(
                f"{words}: p50 {quantile(late, 0.5):.0f} ms, p99 {quantile(late, 0.99):.0f} ms, "
                f"max {max(late):.0f} ms, missed {answer['missed']}, doubled {answer['doubled']}",
                file=sys.stderr,
            )
    settings = {"schedules": options.count, "seconds": options.seconds, "partitions": PARTITIONS}
    kept = not options.quick
    return 0 if report("schedules", title(__doc__), figures, settings, keep=kept) else 1


if __name__ == "__main__":
    sys.exit(main())
