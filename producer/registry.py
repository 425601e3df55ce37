"""The tasks of one App, by name and alias."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from taskmill.producer.definition import TaskDefinition
from taskmill.runtime.errors import ConfigError, UnknownTask


class Registry:
    """Declared tasks in order of declaration; `in` and `[…]` take names and aliases."""

    def __init__(self) -> None:
        self._by_name: dict[str, TaskDefinition] = {}
        self._definitions: list[TaskDefinition] = []

    def add(self, definition: TaskDefinition) -> None:
        """Raises ConfigError where one of its names is taken."""
        names = (definition.name, *definition.aliases)
        for place, name in enumerate(names):
            other = self._by_name.get(name)
            if other is not None:
                raise ConfigError(
                    f"task {definition.name!r}: the name {name!r} is taken by {_origin(other)}; "
                    "give it another, @app.task(name=…)"
                )
            if name in names[:place]:
                raise ConfigError(f"task {definition.name!r}: {name!r} is named twice")
        self._by_name.update(dict.fromkeys(names, definition))
        self._definitions.append(definition)

    def __getitem__(self, name: str) -> TaskDefinition:
        """Raises UnknownTask, which lists names that are close."""
        definition = self._by_name.get(name)
        if definition is None:
            raise UnknownTask(f"no task {name!r:.200} is declared; {self._hint(name)}")
        return definition

    def _hint(self, name: str) -> str:
        close = get_close_matches(name, self._by_name, n=3)
        if close:
            return f"did you mean {' or '.join(map(repr, close))}?"
        names = [d.name for d in self._definitions]
        listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        return f"declared: {listed}" if names else "none are, in this App"

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[TaskDefinition]:
        return iter(self._definitions)

    def __len__(self) -> int:
        return len(self._definitions)

    @property
    def queues(self) -> list[str]:
        """The queues that the tasks are enqueued to, each once."""
        return list(dict.fromkeys(d.queue for d in self._definitions))


def _origin(definition: TaskDefinition) -> str:
    module = getattr(definition.fn, "__module__", "?")
    return f"{module}.{getattr(definition.fn, '__qualname__', definition.name)}"
