"""What is due of a schedule at one moment: what fires, what is missed, when to look again. No I/O.

A nominal time goes one way: it is reached (with its jitter) → in time, or a misfire, which the
misfire policy keeps or drops → with what was held before it, it fires, is skipped or is held, by
the overlap policy and by whether the last run has ended.
"""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from typing import NamedTuple

from taskmill.scheduler.calendar import Rule
from taskmill.schemas.models import Schedule, ScheduleState

#: A time reached later than this is a misfire: far above what a take-over costs.
GRACE_MS = 60_000
#: Times that wait for the end of a run, of one schedule.
MOST_HELD = 1_000
#: So many times at once are very many. No two are less than a second apart: there are fewer in this
#: long.
_MANY, _MANY_MS = 1_000, 500_000
#: As many of the latest as any policy can want: 100 misfires, and a minute's worth in time.
_WANTED = 200

MISFIRES = ("skip", "fire_once", "fire_all")
OVERLAPS = ("skip", "queue", "allow")


class Look(NamedTuple):
    """What came of a look at a schedule.

    `fire`: nominal times to be run now, in order. `state`: what is to be written, runs counted and
    the last run itself left to who fires; the state that was given where nothing has changed.
    `next_at`: UTC milliseconds at which the next time is reached; None: there is none. `asks`: all
    this waits for whether the last run has ended.
    """

    fire: list[int]
    state: ScheduleState
    next_at: int | None
    asks: bool = False


def begin(schedule: Schedule, state: ScheduleState | None) -> ScheduleState:
    """The state to go on from; that of an earlier schedule of the same ID is none."""
    if state is not None and schedule.created_at in (None, state.created_at):
        return state
    since = schedule.updated_at if schedule.since is None else schedule.since
    return ScheduleState(schedule.id, since, 0, created_at=schedule.created_at)


def look(
    schedule: Schedule, rule: Rule, state: ScheduleState, now_ms: int, is_over: bool | None
) -> Look:
    """What is due at `now_ms`. `state` is `begin`'s; `is_over`: whether the last run has ended,
    None where that is not known."""
    if schedule.paused or is_finished(schedule, state):
        return Look([], state, None)
    reached, until, next_at = _reached(schedule, rule, state, now_ms)
    kept, missed = _in_time(schedule, reached, now_ms)
    pool = [*state.held, *kept]
    if not reached and not pool:
        return Look([], state, next_at)
    if schedule.overlap != "allow" and pool and state.last_task_id is not None and is_over is None:
        return Look([], state, next_at, asks=True)
    fire, held, skipped = pool, [], 0
    if schedule.overlap == "skip":
        fire = pool[:1] if state.last_task_id is None or is_over else []
        skipped = len(pool) - len(fire)
    elif schedule.overlap == "queue":
        waiting = _not_too_old(schedule, pool, now_ms)
        missed += len(pool) - len(waiting)
        fire = waiting[:1] if state.last_task_id is None or is_over else []
        held = waiting[len(fire) :]
    if schedule.max_runs is not None:
        fire = fire[: schedule.max_runs - state.runs]
        held = held if state.runs + len(fire) < schedule.max_runs else []
    if not reached and not fire and held == state.held:
        return Look([], state, next_at)
    after = state._replace(
        decided_until=until,
        runs=state.runs + len(fire),
        missed=state.missed + missed,
        skipped=state.skipped + skipped,
        held=held,
    )
    return Look(fire, after, None if is_finished(schedule, after) else next_at)


def is_finished(schedule: Schedule, state: ScheduleState) -> bool:
    """Whether it has had all the runs that it may have."""
    return schedule.max_runs is not None and state.runs >= schedule.max_runs


def delay_ms(schedule: Schedule, nominal: int) -> int:
    """By how much the jitter puts a time off: the same for whoever asks."""
    if not schedule.jitter_ms:
        return 0
    hashed = blake2b(f"{schedule.id}@{nominal}".encode(), digest_size=8).digest()
    return int.from_bytes(hashed, "big") % (schedule.jitter_ms + 1)


def next_times(schedule: Schedule, rule: Rule, after_ms: int, count: int) -> list[int]:
    """The next `count` nominal times of a schedule after `after_ms`, its limits heeded."""
    found: list[int] = []
    at = max(after_ms, _since(schedule))
    while len(found) < count:
        time = rule.after(at)
        if time is None or (schedule.end_at is not None and time > schedule.end_at):
            break
        found.append(time)
        at = time
    return found


def _since(schedule: Schedule) -> int:
    since = schedule.updated_at if schedule.since is None else schedule.since
    return since if schedule.start_at is None else max(since, schedule.start_at - 1)


def _reached(
    schedule: Schedule, rule: Rule, state: ScheduleState, now_ms: int
) -> tuple[list[int], int, int | None]:
    """The times after those that are settled whose turn has come, up to when these are all, and
    when the next one is reached. Of very many, the latest."""
    base = max(state.decided_until, _since(schedule))
    found, next_at = _row(schedule, rule, base, now_ms, stop=True)
    if len(found) < _MANY:
        return found, found[-1] if found else state.decided_until, next_at
    oldest = max(base, now_ms - schedule.catch_up_ms - schedule.jitter_ms - GRACE_MS)
    width = _MANY_MS
    while True:
        start = max(oldest, now_ms - width)
        latest, latest_next_at = _row(schedule, rule, start, now_ms, stop=False)
        if len(latest) >= _WANTED or (latest and start == oldest):
            return latest, latest[-1], latest_next_at
        if start == oldest:
            return found, oldest, latest_next_at  # all of them too old
        width *= 2


def _row(
    schedule: Schedule, rule: Rule, after_ms: int, now_ms: int, *, stop: bool
) -> tuple[list[int], int | None]:
    """Times that have been reached, and when the one behind them is: the first _MANY where it is to
    `stop` there, else the last."""
    found: deque[int] = deque(maxlen=_MANY)
    at = after_ms
    while True:
        time = rule.after(at)
        if time is None or (schedule.end_at is not None and time > schedule.end_at):
            return list(found), None
        due = time + delay_ms(schedule, time)
        if due > now_ms or (stop and len(found) == _MANY):
            return list(found), due
        found.append(time)
        at = time


def _in_time(schedule: Schedule, reached: list[int], now_ms: int) -> tuple[list[int], int]:
    """Those that count, and how many are dropped for being too late."""
    late = [time for time in reached if now_ms - time - delay_ms(schedule, time) > GRACE_MS]
    if not late:
        return reached, 0
    kept: list[int] = []
    if schedule.misfire != "skip":
        most = 1 if schedule.misfire == "fire_once" else schedule.misfire_max
        kept = [time for time in late if time >= now_ms - schedule.catch_up_ms][-most:]
    # A jitter is shorter than what lies between two times: the late ones come first.
    return kept + reached[len(late) :], len(late) - len(kept)


def _not_too_old(schedule: Schedule, pool: list[int], now_ms: int) -> list[int]:
    """Of times that wait for a run's end, those that still may."""
    oldest = now_ms - max(schedule.catch_up_ms, GRACE_MS) - schedule.jitter_ms
    return [time for time in pool if time >= oldest][-MOST_HELD:]
