"""What `app.schedule(…)` declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from taskmill.producer.definition import TaskDefinition
from taskmill.runtime.errors import ConfigError
from taskmill.scheduler.schedule import ScheduleForm, check_schedule_id

#: What of it is passed on as it was said.
OPTIONS = frozenset(ScheduleForm.model_fields) - {"task", "headers"}


class Declared(NamedTuple):
    """`app.schedule(…)`: checked but for what the present has to say."""

    id: str
    form: ScheduleForm
    payload: bytes

    @classmethod
    def of(
        cls, id: str, task: TaskDefinition, args: Mapping[str, Any], said: Mapping[str, Any]
    ) -> Declared:
        """Raises ConfigError, InvalidArguments, one line, for whatever cannot be."""
        check_schedule_id(id)
        if not isinstance(task, TaskDefinition):
            raise ConfigError(
                f"schedule {id!r:.80}: {task!r:.80} is no task: declare it, @app.task"
            )
        payload = task.dump_arguments((), dict(args))
        given = {name: value for name, value in said.items() if value is not None}
        form = ScheduleForm.of(id, {"queue": task.queue, **given, "task": task.name})
        form.record(id, payload, "", 0)
        return cls(id, form, payload)


def add_declared(declared: dict[str, Declared], one: Declared) -> None:
    """Raises ConfigError where the ID is taken."""
    if one.id in declared:
        raise ConfigError(f"schedule {one.id!r:.80} is declared twice; give it another ID")
    declared[one.id] = one
