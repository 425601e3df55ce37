"""A task's result: serialised by the declared return type, read back as that type."""

from __future__ import annotations

from typing import Any, Never, NoReturn

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import PydanticSerializationError, from_json, to_json

from taskmill.producer.arguments import (
    NO_SECRETS,
    first_line,
    has_constant,
    holds_secret,
    serializer,
)
from taskmill.runtime.errors import ConfigError, InvalidResult

_UNTYPED = (Any, None, type(None), Never, NoReturn)


class Results:
    """The result of one task, whose function is annotated to return `returns`."""

    def __init__(self, task: str, returns: Any) -> None:
        """Raises ConfigError for a return type that has no JSON form."""
        self._task = task
        self._typed: TypeAdapter[Any] | None = None
        if returns not in _UNTYPED:
            try:
                self._typed = TypeAdapter(returns)
            except (PydanticUserError, PydanticUndefinedAnnotation) as error:
                message = f"task {task!r}, its return type: {first_line(error)}"
                raise ConfigError(message) from None
            if holds_secret(self._typed):
                raise ConfigError(f"task {task!r}, its return type: {NO_SECRETS}")
            self._to_json = serializer(self._typed)

    def dump(self, value: Any) -> bytes:
        """`value` as JSON, UTF-8. Raises InvalidResult.

        A value of another type than the declared one is written by what it is: the work is done,
        a slip in an annotation must not undo it.
        """
        if value is None:
            return b"null"
        try:
            if self._typed is None:
                document = to_json(value, inf_nan_mode="constants")
            else:
                document = self._to_json(value)
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise self._invalid(f"cannot be serialised as JSON: {error}") from None
        if (b"NaN" in document or b"Infinity" in document) and has_constant(document):
            raise self._invalid("cannot be serialised as JSON: NaN and Infinity are no numbers")
        return document

    def load(self, document: bytes) -> Any:
        """The value, as the declared type. Raises InvalidResult where it does not fit."""
        try:
            if self._typed is None:
                return from_json(document)
            return self._typed.validator.validate_json(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            at = f" at {where!r}" if where else ""
            raise self._invalid(f"is not of the declared type{at}: {first['msg']}") from None
        except ValueError as error:
            raise self._invalid(f"is no JSON: {error}") from None

    def _invalid(self, what: str) -> InvalidResult:
        return InvalidResult(f"the result of task {self._task!r} {what}".replace("\n", " "))
