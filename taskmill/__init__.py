"""taskmill: a task platform on Apache Kafka."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from taskmill._version import __version__

if TYPE_CHECKING:
    from taskmill.app import App
    from taskmill.producer.context import Context
    from taskmill.producer.definition import TaskCall
    from taskmill.producer.handle import Handle
    from taskmill.producer.middleware import Middleware
    from taskmill.producer.retry import Retry
    from taskmill.runtime.config import Settings
    from taskmill.runtime.errors import (
        ClosedError,
        ConfigError,
        DeadlineExceeded,
        EnqueueError,
        Interrupted,
        InvalidArguments,
        InvalidInput,
        InvalidResult,
        InvalidTaskId,
        PayloadTooLarge,
        Reject,
        ResultExpired,
        ResultLost,
        ResultTimeout,
        TaskFailed,
        TaskmillError,
        TimedOut,
        UnknownTask,
        Unreachable,
    )
    from taskmill.schemas.models import Task, TaskState
    from taskmill.schemas.states import Status

__all__ = [
    "App",
    "ClosedError",
    "ConfigError",
    "Context",
    "DeadlineExceeded",
    "EnqueueError",
    "Handle",
    "Interrupted",
    "InvalidArguments",
    "InvalidInput",
    "InvalidResult",
    "InvalidTaskId",
    "Middleware",
    "PayloadTooLarge",
    "Reject",
    "ResultExpired",
    "ResultLost",
    "ResultTimeout",
    "Retry",
    "Settings",
    "Status",
    "Task",
    "TaskCall",
    "TaskFailed",
    "TaskState",
    "TaskmillError",
    "TimedOut",
    "UnknownTask",
    "Unreachable",
    "__version__",
]

_HOMES = {
    "App": "taskmill.app",
    "Context": "taskmill.producer.context",
    "Handle": "taskmill.producer.handle",
    "Middleware": "taskmill.producer.middleware",
    "Retry": "taskmill.producer.retry",
    "Settings": "taskmill.runtime.config",
    "Status": "taskmill.schemas.states",
    "Task": "taskmill.schemas.models",
    "TaskCall": "taskmill.producer.definition",
    "TaskState": "taskmill.schemas.models",
}


def __getattr__(name: str) -> Any:
    """Import a name at its first use: `import taskmill` alone stays quick."""
    if name not in __all__:
        raise AttributeError(f"module 'taskmill' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "taskmill.runtime.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
