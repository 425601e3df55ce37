"""A schedule in people's words, what it may be, and the record that it becomes. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from taskmill.producer.definition import DEFAULT_QUEUE, check_name
from taskmill.producer.options import check_headers
from taskmill.producer.retry import check_max_attempts
from taskmill.producer.time_limits import time_limits
from taskmill.runtime.config import check_queue
from taskmill.runtime.duration import parse_duration
from taskmill.runtime.errors import ConfigError, TaskmillError
from taskmill.scheduler.calendar import LAST_MS, Every, Rule, cron_rule, zone_of
from taskmill.scheduler.policy import MISFIRES, OVERLAPS
from taskmill.schemas.models import MAX_SCHEDULE_ID_BYTES, Schedule

LEAST_EVERY_MS = 1_000
MOST_MISFIRES = 100
DAY_MS = 86_400_000
#: Longer ones are a mistake: a month for what is caught up, ten years for a period.
_MOST_CATCH_UP_MS, _MOST_EVERY_MS = 31 * DAY_MS, 3650 * DAY_MS
#: Times between which a jitter has to fit are looked for among so many.
_TIMES = 400
_RUN = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_CODE = "code:"
HAND = "hand"
#: Headers that a run's task carries beside those of the schedule.
SCHEDULE_HEADER, TIME_HEADER = "schedule", "schedule-time"


class ScheduleForm(BaseModel):
    """What people say of a schedule, beside its ID and its task's arguments.

    Durations are written "30s", "5m", "1d"; times as ISO 8601, by the clock of `tz` where they do
    not say otherwise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    task: str
    queue: str = DEFAULT_QUEUE
    cron: str | None = None
    every: str | None = None
    tz: str = "UTC"
    misfire: str = "fire_once"
    misfire_max: int = 10
    catch_up: str = "1d"
    overlap: str = "skip"
    jitter: str = "0s"
    start: str | datetime | None = None
    end: str | datetime | None = None
    max_runs: int | None = None
    timeout: str | None = None
    expires: str | None = None
    deadline: str | None = None
    max_attempts: int | None = None
    headers: dict[str, str] = {}

    @classmethod
    def of(cls, id: str, said: Mapping[str, Any]) -> ScheduleForm:
        """The form that `said` fills in. Raises ConfigError, which names what is wrong."""
        try:
            return cls(**said)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ConfigError(
                f"schedule {id!r:.80}: {name}={first['input']!r:.80}: {first['msg']}"
            ) from None

    def record(self, id: str, payload: bytes, source: str, now_ms: int) -> Schedule:
        """The schedule, made now. Raises ConfigError, one line, for whatever cannot be."""
        try:
            limits = time_limits("", self.timeout, self.expires, self.deadline)
            schedule = Schedule(
                id=id,
                task=self.task,
                payload=payload,
                updated_at=now_ms,
                queue=self.queue,
                cron=self.cron,
                every_ms=None if self.every is None else _milliseconds("every", self.every),
                tz=self.tz,
                misfire=self.misfire,
                misfire_max=self.misfire_max,
                catch_up_ms=_milliseconds("catch_up", self.catch_up),
                overlap=self.overlap,
                jitter_ms=_milliseconds("jitter", self.jitter),
                start_at=time_of("start", self.start, self.tz),
                end_at=time_of("end", self.end, self.tz),
                max_runs=self.max_runs,
                source=source,
                timeout_ms=limits.timeout_ms,
                expires_ms=limits.expires_ms,
                deadline_ms=limits.deadline_ms,
                max_attempts=self.max_attempts,
                headers=check_headers(self.headers),
                since=now_ms,
                created_at=now_ms,
            )
        except TaskmillError as error:
            raise ConfigError(f"schedule {id!r:.80}: {error}") from None
        check(schedule)
        return schedule


def check(schedule: Schedule) -> Rule:
    """What says when `schedule` is due. Raises ConfigError, one line that names the schedule and
    what is wrong, for one that cannot be."""
    try:
        return _check(schedule)
    except TaskmillError as error:
        raise ConfigError(f"schedule {schedule.id!r:.80}: {error}") from None


def check_schedule_id(id: str) -> bytes:
    """The key of a schedule's records. Raises ConfigError."""
    if isinstance(id, str) and id.isprintable() and id.strip() == id:
        key = id.encode("utf-8", "surrogatepass")
        if 1 <= len(key) <= MAX_SCHEDULE_ID_BYTES:
            return key
    raise ConfigError(
        f"schedule ID {id!r:.80}: allowed are 1 to {MAX_SCHEDULE_ID_BYTES} bytes of printable text"
    )


def task_id(schedule_id: str, nominal: int, run: str | None = None) -> str:
    """The ID of the task that a schedule's run is; `run` names one that was triggered or filled in.
    Whoever fires it makes the same one, so it runs once."""
    return f"schedule:{schedule_id}@{time_text(nominal)}" + (f"#{run}" if run else "")


@lru_cache(maxsize=1024)
def time_text(nominal: int) -> str:
    """A nominal time as ISO 8601 in UTC, to the second where it has no milliseconds."""
    moment = datetime.fromtimestamp(nominal // 1000, UTC).replace(tzinfo=None)
    fraction = f".{nominal % 1000:03d}" if nominal % 1000 else ""
    return f"{moment.isoformat(timespec='seconds')}{fraction}Z"


def time_of(name: str, said: str | datetime | None, tz: str) -> int | None:
    """A time in words, by the clock of `tz` where it does not say otherwise, in UTC milliseconds.
    Raises ConfigError, which begins with `name`."""
    if said is None:
        return None
    try:
        moment = datetime.fromisoformat(said) if isinstance(said, str) else said
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone_of(tz))
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{name}={said!s:.40}: expected ISO 8601, such as 2026-11-26T14:00 (in {tz}) or "
            "2026-11-26T15:00+01:00"
        ) from None


def check_run(run: str) -> str:
    """`run` if it may name a run. Raises ConfigError."""
    if not _RUN.fullmatch(run):
        raise ConfigError(f"run {run!r:.80}: allowed are 1 to 64 letters, digits, '-' and '_'")
    return run


def source_of(app: str) -> str:
    """The source of what the App of this name declares."""
    return f"{_CODE}{app}"


def declared_by(schedule: Schedule) -> str | None:
    """The name of the App that declares it; None: it was made by hand."""
    if schedule.source.startswith(_CODE):
        return schedule.source.removeprefix(_CODE)
    return None


def _check(schedule: Schedule) -> Rule:
    check_schedule_id(schedule.id)
    check_name(schedule.task)
    check_queue(schedule.queue)
    zone_of(schedule.tz)
    _one_of("misfire", schedule.misfire, MISFIRES)
    _one_of("overlap", schedule.overlap, OVERLAPS)
    _in_range("misfire_max", schedule.misfire_max, 1, MOST_MISFIRES)
    _in_range("catch_up", schedule.catch_up_ms, 0, _MOST_CATCH_UP_MS, "0s to 31d")
    _in_range("jitter", schedule.jitter_ms, 0, DAY_MS, "0s to 1d")
    if schedule.max_runs is not None:
        _in_range("max_runs", schedule.max_runs, 1, 2**53)
    if schedule.max_attempts is not None:
        check_max_attempts("", schedule.max_attempts)
    for name in ("updated_at", "since", "start_at", "end_at"):
        time = getattr(schedule, name)
        if time is not None and not 0 <= time <= LAST_MS:
            raise ConfigError(f"{name} is {time}: milliseconds since 1970 are allowed")
    for name in ("timeout_ms", "expires_ms", "deadline_ms"):
        length = getattr(schedule, name)
        if length is not None:
            _in_range(name, length, 1, 2**53)
    if (schedule.cron is None) == (schedule.every_ms is None):
        raise ConfigError("cron and every: one of them is needed, and only one")
    rule = _rule(schedule)
    _check_end(schedule, rule)
    _check_jitter(schedule, rule)
    return rule


def _rule(schedule: Schedule) -> Rule:
    if schedule.cron is not None:
        return cron_rule(schedule.cron, schedule.tz)
    assert schedule.every_ms is not None, "one of the two is set"
    _in_range("every", schedule.every_ms, LEAST_EVERY_MS, _MOST_EVERY_MS, "1s to 3650d")
    return Every(schedule.every_ms, schedule.start_at or 0)


def _check_end(schedule: Schedule, rule: Rule) -> None:
    if schedule.end_at is None:
        return
    end = time_text(schedule.end_at)
    if schedule.start_at is not None and schedule.end_at < schedule.start_at:
        raise ConfigError(f"end {end} is before start {time_text(schedule.start_at)}")
    if schedule.start_at is not None:
        first = rule.after(schedule.start_at - 1)
        if first is None or first > schedule.end_at:
            raise ConfigError(
                f"no time between start {time_text(schedule.start_at)} and end {end} is due"
            )


def _check_jitter(schedule: Schedule, rule: Rule) -> None:
    """It is shorter than what lies between two times, or they would change places."""
    at = rule.after(schedule.start_at or schedule.updated_at) if schedule.jitter_ms else None
    for _ in range(_TIMES if schedule.every_ms is None else 1):
        later = None if at is None else rule.after(at)
        if at is None or later is None:
            return
        if schedule.jitter_ms >= later - at:
            raise ConfigError(
                f"a jitter of {schedule.jitter_ms / 1000:g} s is as long as what lies between two "
                f"of its times ({(later - at) / 1000:g} s); a shorter one is allowed"
            )
        at = later


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name}={value!r:.40}; allowed: {', '.join(allowed)}")


def _in_range(name: str, value: int, least: int, most: int, words: str = "") -> None:
    if not least <= value <= most:
        shown = f"{value / 1000:g} s" if words else str(value)
        raise ConfigError(f"{name} is {shown}; allowed: {words or f'{least} to {most}'}")


def _milliseconds(name: str, text: str) -> int:
    try:
        return round(parse_duration(text) * 1000)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
