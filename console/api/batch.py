"""A batch as it was sent: which of it are tasks, and what is wrong with the others."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from taskmill.console.api.models import MAX_BATCH, Batch, FieldProblem, NewTask
from taskmill.console.api.problems import Refused, of_validation


class Read(NamedTuple):
    """Tasks, and refusals, by their place."""

    tasks: dict[int, NewTask]
    refused: dict[int, Refused]
    is_all: bool
    total: int


def read_batch(body: bytes) -> Read:
    """Raises Refused for what is no batch at all, and where all of it must be right and is not."""
    try:
        batch = Batch.model_validate_json(body)
    except ValidationError as error:
        if (each := _each(body)) is None:
            raise of_validation(error) from None
        return each
    return Read(dict(enumerate(batch.tasks)), {}, batch.mode == "all", len(batch.tasks))


def _each(body: bytes) -> Read | None:
    """Of a batch in which each has its own answer, each by itself; None: it is none."""
    try:
        found: Any = from_json(body)
    except ValueError:
        return None
    if not isinstance(found, dict) or not found.keys() <= Batch.model_fields.keys():
        return None
    listed = found.get("tasks")
    if found.get("mode") != "each" or not isinstance(listed, list):
        return None
    if not 1 <= len(listed) <= MAX_BATCH:
        return None
    tasks: dict[int, NewTask] = {}
    refused: dict[int, Refused] = {}
    for place, one in enumerate(listed):
        try:
            # As JSON, not as Python values: both read the same way.
            tasks[place] = NewTask.model_validate_json(to_json(one, inf_nan_mode="constants"))
        except ValidationError as error:
            refused[place] = of_validation(error)
    return Read(tasks, refused, False, len(listed))


def of_all(refused: dict[int, Refused], total: int) -> Refused:
    """One refusal for all: each field by its place."""
    for one in refused.values():
        if one.kind == "forbidden":
            return one
    errors = []
    for place, one in sorted(refused.items())[:20]:
        for error in one.errors or [FieldProblem(field="queue", message=one.detail)]:
            errors.append(error.model_copy(update={"field": f"tasks.{place}.{error.field}"}))
    kind = "too-large" if all(one.kind == "too-large" for one in refused.values()) else "invalid"
    first = errors[0]
    return Refused(
        kind,
        f"{len(refused)} of {total} tasks cannot be accepted, nothing was sent; "
        f"{first.field}: {first.message}",
        errors=errors,
    )
