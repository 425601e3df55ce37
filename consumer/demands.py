"""What the tasks of an App demand of a worker beyond a run: refused at its start, or made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from taskmill.consumer.app import AppLike
from taskmill.consumer.attempt import Attempts
from taskmill.consumer.executors.processes import ChildSpec
from taskmill.producer.definition import TaskDefinition
from taskmill.runtime.clock import Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError

if TYPE_CHECKING:
    from taskmill.consumer.outcomes import PostgresOutcomes


def check_result_ttls(definitions: Mapping[str, TaskDefinition], settings: Settings) -> None:
    """A result is found by its state, and cannot outlive it."""
    window = settings.dedup_window_ms
    for task in definitions.values():
        if task.result_ttl_ms is not None and task.result_ttl_ms > window:
            raise ConfigError(
                f"task {task.name!r}: result_ttl is {task.result_ttl_ms} ms, but its state is kept "
                f"for {window} ms only (TASKMILL_DEDUP_WINDOW_MS): shorten the one or raise the "
                "other"
            )


def effects_of(
    definitions: Mapping[str, TaskDefinition], attempts: Attempts, settings: Settings, clock: Clock
) -> PostgresOutcomes | None:
    """What keeps outcomes in PostgreSQL, where a task asks for it. Raises ConfigError."""
    needing = [d.name for d in definitions.values() if d.effects is not None]
    if not needing:
        return None
    if settings.outcomes_url is None:
        raise ConfigError(
            f'task {needing[0]!r} is declared effects="postgresql": set TASKMILL_OUTCOMES_URL to '
            "its database, postgresql://user:password@host:port/database"
        )
    try:
        # Only here: psycopg is an extra.
        from taskmill.consumer.outcomes import PostgresOutcomes
    except ImportError as error:
        raise ConfigError(
            f'task {needing[0]!r} is declared effects="postgresql", which needs psycopg 3 '
            f"(pip install 'taskmill[postgres]'): {error}"
        ) from None
    return PostgresOutcomes(definitions, attempts, settings, clock)


def child_of(
    app: AppLike,
    definitions: Mapping[str, TaskDefinition],
    target: str | None,
    settings: Settings,
) -> ChildSpec | None:
    """What handlers' processes start with, where a task asks for one. Raises ConfigError."""
    isolated = [d.name for d in definitions.values() if d.isolate == "process"]
    if not isolated:
        return None
    if target is None:
        raise ConfigError(
            f'task {isolated[0]!r} is declared isolate="process": '
            f'the worker of App {app.name!r} needs target="module:attribute" to import it there'
        )
    return ChildSpec(target, settings.max_task_bytes, settings.timeout_grace_ms / 1000)
