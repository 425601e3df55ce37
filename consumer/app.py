"""What the work needs of an App, which stands in a room above."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from taskmill.producer.context import Encode
from taskmill.producer.definition import TaskDefinition
from taskmill.producer.middleware import Hooks
from taskmill.runtime.config import Settings
from taskmill.runtime.meter import Meter
from taskmill.schemas.codec import Codec


class AppLike(Protocol):
    """What a worker needs of an App."""

    name: str

    @property
    def settings(self) -> Settings: ...
    @property
    def codec(self) -> Codec: ...
    @property
    def tasks(self) -> Iterable[TaskDefinition]: ...
    @property
    def hooks(self) -> Hooks: ...
    @property
    def encode(self) -> Encode: ...
    @property
    def resources(self) -> Callable[[], AbstractAsyncContextManager[Any]]: ...
    def count_into(self, meter: Meter) -> None: ...
