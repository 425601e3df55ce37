"""Every record to bytes and back: the one door to the wire (docs/wire.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from taskmill.runtime.errors import DecodeError, InvalidInput, InvalidTaskId
from taskmill.schemas import fastpath
from taskmill.schemas.avsc import released
from taskmill.schemas.framing import Framing
from taskmill.schemas.models import (
    MAX_ID_BYTES,
    MAX_NAME_BYTES,
    MAX_SCHEDULE_ID_BYTES,
    Control,
    Schedule,
    ScheduleState,
    Task,
    TaskError,
    TaskResult,
    TaskState,
)
from taskmill.schemas.registry import Registry
from taskmill.schemas.states import Status

Record = Task | TaskState | TaskResult | Control | Schedule | ScheduleState

_MAX_INT = 2**31 - 1
#: Least value of the numbers that are counted in; fastavro does not hold an int to 32 bits either.
_TASK_LEAST = {"attempt": 1, "generation": 0, "seq": 0, "max_attempts": 1}
_STATE_LEAST = {"attempt": 0, "generation": 0, "seq": 0, "deliveries": 0}
_RESULT_LEAST = {"generation": 0, "seq": 0}
_CONTROL_LEAST = {"generation": 0, "seq": 0}
_SCHEDULE_LEAST = {"max_attempts": 1, "misfire_max": 1}
#: Most bytes of the strings that become keys, or are repeated in a state.
_TASK_MOST = {
    "id": MAX_ID_BYTES,
    "name": MAX_NAME_BYTES,
    "lock_key": MAX_ID_BYTES,
    "parent_id": MAX_ID_BYTES,
}
_CONTROL_MOST = {
    "id": MAX_ID_BYTES,
    "action": MAX_NAME_BYTES,
    "name": MAX_NAME_BYTES,
    "actor": MAX_NAME_BYTES,
}
_SCHEDULE_MOST = {
    "id": MAX_SCHEDULE_ID_BYTES,
    "task": MAX_NAME_BYTES,
    "lock_key": MAX_ID_BYTES,
}

_task_fields = itemgetter(*Task._fields)
_state_fields = itemgetter(*TaskState._fields)
_result_fields = itemgetter(*TaskResult._fields)
_schedule_fields = itemgetter(*Schedule._fields)
_schedule_state_fields = itemgetter(*ScheduleState._fields)
_error_fields = itemgetter(*TaskError._fields)
_control_fields = itemgetter(*Control._fields)


class Codec:
    """Encodes records in the newest schema, decodes those of every known one.

    Without a registry: Avro single-object encoding, both ways. With one, Confluent's format is
    written, and both are read; the first value of a kind or of a schema ID then asks the registry,
    for a few seconds at the most. Safe to share between threads.

    Every `encode_…` raises InvalidInput for a field that does not fit, and with a registry
    ConfigError or Unreachable. Every `decode_…` raises DecodeError for bytes that are not such a
    record, None and b"" included, and with a registry Unreachable where it did not answer: such a
    value is not bad, it is to be read again later.
    """

    def __init__(
        self, registry_url: str | None = None, *, registry: Registry | None = None
    ) -> None:
        """With `registry_url`, or a `registry` made before, Confluent's format is written.

        Raises ConfigError for a bad URL or where the extra `registry` is not installed.
        """
        if registry is None and registry_url:
            registry = Registry.connect(registry_url)
        self._registry = registry
        self._tasks = Framing(released("Task"), registry)
        self._states = Framing(released("TaskState"), registry)
        self._results = Framing(released("TaskResult"), registry)
        self._controls = Framing(released("Control"), registry)
        self._schedules = Framing(released("Schedule"), registry)
        self._schedule_states = Framing(released("ScheduleState"), registry)

    def encode_task(self, task: Task) -> bytes:
        """The value of a record on `tasks`."""
        prefix = self._tasks.prefix or self._tasks.register()
        return fastpath.encode_task(prefix, task) or self._encode_any_task(task)

    def decode_task(self, value: bytes | None) -> Task:
        """The Task in `value`; its ID and name are within their limits."""
        return fastpath.decode_task(self._tasks.expected, value) or self._decode_any_task(value)

    def encode_state(self, state: TaskState) -> bytes:
        """The value of a record on `state`."""
        prefix = self._states.prefix or self._states.register()
        return fastpath.encode_state(prefix, state) or self._encode_any_state(state)

    def decode_state(self, value: bytes | None) -> TaskState:
        """The TaskState in `value`."""
        return fastpath.decode_state(self._states.expected, value) or self._decode_any_state(value)

    def encode_result(self, result: TaskResult) -> bytes:
        """The value of a record on `results`."""
        fields = result._asdict()
        _check(fields, _RESULT_LEAST, {}, "TaskResult", InvalidInput)
        if result.error is not None:
            fields["error"] = result.error._asdict()
        return self._results.encode(fields)

    def decode_result(self, value: bytes | None) -> TaskResult:
        """The TaskResult in `value`."""
        fields = self._results.decode(value)
        _check(fields, _RESULT_LEAST, {}, "TaskResult", DecodeError)
        if fields["error"] is not None:
            fields["error"] = TaskError._make(_error_fields(fields["error"]))
        return TaskResult._make(_result_fields(fields))

    def encode_control(self, control: Control) -> bytes:
        """The value of a record on `control`."""
        fields = control._asdict()
        _check(fields, _CONTROL_LEAST, _CONTROL_MOST, "Control", InvalidInput)
        return self._controls.encode(fields)

    def decode_control(self, value: bytes | None) -> Control:
        """The Control in `value`; its action may be one that is not known here."""
        fields = self._controls.decode(value)
        _check(fields, _CONTROL_LEAST, _CONTROL_MOST, "Control", DecodeError)
        return Control._make(_control_fields(fields))

    def encode_schedule(self, schedule: Schedule) -> bytes:
        """The value of a record on `schedules`."""
        fields = schedule._asdict()
        _check(fields, _SCHEDULE_LEAST, _SCHEDULE_MOST, "Schedule", InvalidInput)
        return self._schedules.encode(fields)

    def decode_schedule(self, value: bytes | None) -> Schedule:
        """The Schedule in `value`; whether it makes sense, scheduler/schedule.py says."""
        fields = self._schedules.decode(value)
        _check(fields, _SCHEDULE_LEAST, _SCHEDULE_MOST, "Schedule", DecodeError)
        return Schedule._make(_schedule_fields(fields))

    def encode_schedule_state(self, state: ScheduleState) -> bytes:
        """The value of a record on `schedule-state`."""
        return self._schedule_states.encode(state._asdict())

    def decode_schedule_state(self, value: bytes | None) -> ScheduleState:
        """The ScheduleState in `value`."""
        return ScheduleState._make(_schedule_state_fields(self._schedule_states.decode(value)))

    def decode(self, value: bytes | None) -> Record:
        """The record in `value`, of whichever kind its schema says."""
        if self._schedules.reads(value):
            return self.decode_schedule(value)
        if self._schedule_states.reads(value):
            return self.decode_schedule_state(value)
        if self._states.reads(value):
            return self.decode_state(value)
        if self._results.reads(value):
            return self.decode_result(value)
        if self._controls.reads(value):
            return self.decode_control(value)
        return self.decode_task(value)

    def prepare(self) -> None:
        """Ask the registry, where there is one, how states and results are framed; else it is asked
        when the first is written. Raises Unreachable, ConfigError."""
        for framing in (self._states, self._results):
            if not framing.prefix:
                framing.register()

    def close(self) -> None:
        """Close the connections to the registry, if there is one."""
        if self._registry is not None:
            self._registry.close()

    def _encode_any_task(self, task: Task) -> bytes:
        fields = task._asdict()
        _check(fields, _TASK_LEAST, _TASK_MOST, "Task", InvalidInput)
        return self._tasks.encode(fields)

    def _decode_any_task(self, value: bytes | None) -> Task:
        fields = self._tasks.decode(value)
        _check(fields, _TASK_LEAST, _TASK_MOST, "Task", DecodeError)
        return Task._make(_task_fields(fields))

    def _decode_any_state(self, value: bytes | None) -> TaskState:
        fields = self._states.decode(value)
        _check(fields, _STATE_LEAST, {}, "TaskState", DecodeError)
        fields["status"] = _status(fields["status"], DecodeError)
        if fields["error"] is not None:
            fields["error"] = TaskError._make(_error_fields(fields["error"]))
        return TaskState._make(_state_fields(fields))

    def _encode_any_state(self, state: TaskState) -> bytes:
        fields = state._asdict()
        _check(fields, _STATE_LEAST, {}, "TaskState", InvalidInput)
        _status(state.status, InvalidInput)
        if state.error is not None:
            fields["error"] = state.error._asdict()
        return self._states.encode(fields)


def _check(
    fields: Mapping[str, Any],
    least: Mapping[str, int],
    most: Mapping[str, int],
    record: str,
    error: Callable[[str], Exception],
) -> None:
    """Raise `error` for a number outside its range, or a string outside its length."""
    for name, bound in least.items():
        number = fields[name]
        if number is not None and isinstance(number, int) and not bound <= number <= _MAX_INT:
            raise error(f"{name} of the {record} is {number}: {bound} to {_MAX_INT} is allowed")
    timeout_ms = fields.get("timeout_ms")
    if isinstance(timeout_ms, int) and timeout_ms < 1:
        raise error(f"timeout_ms of the {record} is {timeout_ms}: 1 or more is allowed")
    for name, bound in most.items():
        text = fields[name]
        if isinstance(text, str) and not 1 <= len(text.encode("utf-8", "replace")) <= bound:
            raise error(
                f"{name} of the {record} is {len(text)} characters long: "
                f"1 to {bound} bytes of UTF-8 are allowed"
            )


def _status(text: str, error: Callable[[str], Exception]) -> Status:
    try:
        return Status(text)
    except ValueError:
        raise error(f"status {text!r:.40} is none of {', '.join(Status)}") from None


def check_id(task_id: str) -> bytes:
    """A task ID as the key of its records: 1 to 512 bytes of UTF-8, else InvalidTaskId."""
    if not isinstance(task_id, str):
        raise InvalidTaskId(f"task ID is a {type(task_id).__name__}: a string is allowed")
    try:
        key = task_id.encode()
    except UnicodeEncodeError:
        raise InvalidTaskId(f"task ID {ascii(task_id)[:80]} is not valid Unicode") from None
    if not 1 <= len(key) <= MAX_ID_BYTES:
        raise InvalidTaskId(
            f"task ID is {len(key)} bytes long: 1 to {MAX_ID_BYTES} bytes of UTF-8 are allowed"
        )
    return key


#: The codec of those who use no registry.
CODEC = Codec()
