"""What a test looks at: what was enqueued, what became of it, what is dead."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from taskmill.app import App
from taskmill.consumer.letters import Letter
from taskmill.producer.definition import TaskDefinition
from taskmill.producer.handle import Handle
from taskmill.producer.time_limits import AT_ONCE, start_of
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import CODEC, check_id
from taskmill.schemas.models import TaskState
from taskmill.testing.broker import MemoryBroker
from taskmill.testing.clock import VirtualClock
from taskmill.testing.enqueued import Enqueued, Wanted, enqueued
from taskmill.testing.mill import Mill

#: So many enqueued tasks are shown where none was as expected.
_SHOWN = 20


class View:
    """The half of a Harness that looks. Nothing here runs anything."""

    clock: VirtualClock
    _app: App
    _settings: Settings
    _broker: MemoryBroker
    _mill: Mill | None = None

    @property
    def _working(self) -> Mill:
        if self._mill is None:
            raise ConfigError("enter it first: `with Harness(app) as mill`")
        return self._mill

    @property
    def now(self) -> datetime:
        """What time it is (UTC)."""
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)

    @property
    def enqueued(self) -> list[Enqueued]:
        """All tasks that were enqueued so far, by the test, by handlers and by schedules, in order
        in each queue. One that was enqueued twice under one ID is here twice, and runs once."""
        self._working  # noqa: B018  (entered)
        return list(enqueued(self._broker, CODEC, self._settings.prefix))

    def assert_enqueued(
        self,
        task: TaskDefinition | str,
        args: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        queue: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: str | None = None,
        at: datetime | str | None = None,
        count: int | None = None,
    ) -> list[Enqueued]:
        """Tasks of that kind were enqueued: `count` of them, None: one or more. Returns them.

        `args` by name: those that matter, compared as JSON, or as the handler gets them. `headers`:
        likewise. `delay` and `at` as in `.options(…)`. Raises AssertionError, which shows what was
        enqueued instead.
        """
        definition = self._app.tasks[task] if isinstance(task, str) else task
        start = start_of(delay, at)
        wanted = Wanted(
            definition.name, args, id, queue, headers, None if start is AT_ONCE else start
        )
        every = self.enqueued
        found = [one for one in every if wanted.takes(one, definition)]
        if (found and count is None) or len(found) == count:
            return found
        times = "" if count is None else f" {count} times but {len(found)}"
        raise AssertionError(f"not enqueued{times}: {wanted}\n{_shown(every, definition.name)}")

    def history(self, task: Handle[Any] | str, queue: str = "default") -> list[TaskState]:
        """All states of a task, in order: of a handle, or of an ID in `queue`. Empty: it was not
        taken up yet."""
        id, queue = (task, queue) if isinstance(task, str) else (task.id, task.queue)
        topic = Topics(self._settings.prefix, queue).state
        messages = self._broker.of_key(topic, check_id(id))
        values = (message.value() for message in messages)
        return [CODEC.decode_state(value) for value in values if value is not None]

    @property
    def letters(self) -> list[Letter]:
        """The dead letters that were not replayed: `letter.id`, `.task`, `.reason`, `.error`, and
        its headers by name in `.told`."""
        return self._working.letters()


def _shown(every: list[Enqueued], name: str) -> str:
    """What there is, of this name first."""
    if not every:
        return "nothing was enqueued"
    ordered = sorted(every, key=lambda one: one.name != name)
    lines = [f"  {one!r}" for one in ordered[:_SHOWN]]
    if len(every) > _SHOWN:
        lines.append(f"  and {len(every) - _SHOWN} more")
    return "\n".join(["enqueued were:", *lines])
