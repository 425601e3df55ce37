"""The payload of a task that another program declares: a JSON object, not validated here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from taskmill.producer.arguments import has_constant
from taskmill.producer.definition import check_name
from taskmill.runtime.errors import InvalidArguments


def dump_undeclared(task: str, args: Mapping[str, Any]) -> bytes:
    """`args` as compact JSON, UTF-8. Raises InvalidArguments, which names the argument."""
    check_name(task)
    for name in args:
        if not isinstance(name, str):
            raise InvalidArguments(f"task {task!r}: argument names are text, not {name!r:.100}")
    try:
        payload = to_json(dict(args), inf_nan_mode="constants")
    except (PydanticSerializationError, ValueError) as error:
        raise _no_json_form(task, args, str(error)) from None
    if (b"NaN" in payload or b"Infinity" in payload) and has_constant(payload):
        raise _no_json_form(task, args, "NaN and Infinity are no JSON numbers")
    return payload


def _no_json_form(task: str, args: Mapping[str, Any], why: str) -> InvalidArguments:
    for name, value in args.items():
        try:
            if not has_constant(to_json(value, inf_nan_mode="constants")):
                continue
        except (PydanticSerializationError, ValueError) as error:
            why = str(error)
        return InvalidArguments(
            f"task {task!r}: argument {name!r} cannot be serialised as JSON: {why}"
        )
    return InvalidArguments(f"task {task!r}: arguments cannot be serialised as JSON: {why}")
