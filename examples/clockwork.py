"""The demo's clock: a task that waits for three seconds, a schedule of every second, how late."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from crew import Crew
from plain_reader import Config, Schema, read_all

from taskmill import App
from taskmill.runtime.clock import SYSTEM_CLOCK, Deadline
from taskmill.runtime.errors import TaskmillError

DELAYED, SCHEDULE = "demo-delayed", "demo-tick"
#: A run that is slow to start has the next one not wait for it.
OVERLAP = ("--overlap", "allow")
#: So many runs of the schedule are waited for.
RUNS = 5
#: A scheduler imports, joins and reads what there is within some seconds.
WAIT_S = 60.0


def keep_time(
    config: Config, state_topic: str, schemas: Path, env: Mapping[str, str], scheduler: Crew
) -> str:
    """Run both, with a `scheduler` that is at work; a line that says how late they began. Raises
    TaskmillError for what is wrong."""
    start_schedule(env)
    with App("demo") as app:
        app.enqueue("tick", {}, id=DELAYED, delay="3s", declared=False)
    late = _measure(config, state_topic, Schema(schemas / "TaskState.avsc"), scheduler)
    end_schedule(env)
    ticks = late[SCHEDULE].items()
    (delayed,) = late[DELAYED].values()
    worst = max(ms for _, ms in ticks)
    if min(delayed, *(ms for _, ms in ticks)) < 0:
        raise TaskmillError(f"something began before its time: {late}")
    return (
        f"a task delayed by 3 s began {delayed} ms late; of {len(ticks)} runs of a schedule "
        f"of every second the latest began {worst} ms late"
    )


def start_schedule(env: Mapping[str, str]) -> None:
    """A task every second, from now on."""
    _taskmill(env, "schedules", "set", SCHEDULE, "--every", "1s", "--task", "tick", *OVERLAP)


def end_schedule(env: Mapping[str, str]) -> None:
    """No more of them."""
    _taskmill(env, "schedules", "rm", SCHEDULE)


def nominal_ms(id: str) -> int | None:
    """When the run of that ID was due (UTC ms); None for other tasks."""
    if not id.startswith(f"schedule:{SCHEDULE}@"):
        return None
    return _ms(datetime.fromisoformat(id.partition("@")[2]))


def _measure(
    config: Config, topic: str, schema: Schema, scheduler: Crew
) -> dict[str, dict[int, int]]:
    """By when each was due (UTC ms): how many milliseconds later its handler began."""
    deadline = Deadline(WAIT_S)
    while True:
        scheduler.check()
        due: dict[str, int] = {}
        late: dict[str, dict[int, int]] = {DELAYED: {}, SCHEDULE: {}}
        for record in read_all(config, topic):
            state = schema.decode(record.value)
            id = state["id"]
            if id == DELAYED and state["next_attempt_at"] is not None:
                due[id] = _ms(state["next_attempt_at"])
            elif (nominal := nominal_ms(id)) is not None:
                due[id] = nominal
            if id in due and state["status"] == "succeeded":
                name = DELAYED if id == DELAYED else SCHEDULE
                late[name][due[id]] = _ms(state["started_at"]) - due[id]
        ticks = sorted(late[SCHEDULE])
        # Partitions are read one after the other: what lies between two runs may come next time.
        is_whole = all(after - before == 1_000 for before, after in pairwise(ticks))
        if late[DELAYED] and len(ticks) >= RUNS and is_whole:
            return late
        if deadline.over():
            raise TaskmillError(f"what the clock starts has not run in {WAIT_S:g} s: {late}")
        SYSTEM_CLOCK.sleep(0.2)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _taskmill(env: Mapping[str, str], *words: str) -> None:
    command = [sys.executable, "-P", "-m", "taskmill", *words]
    subprocess.run(command, env={**os.environ, **env}, check=True, capture_output=True)
