"""What an exception becomes: a short error, a stack that is cut, and a fingerprint that groups.

The fingerprint hashes the type and the stack's functions and files without line numbers, memory
addresses or messages, so that the same failure of two tasks, or of two releases, reads the same.
"""

from __future__ import annotations

import hashlib
import traceback
from pathlib import PurePath

from taskmill.schemas.models import TaskError

#: A state record is 512 bytes at the most; the dead letter carries the longer texts.
MAX_MESSAGE = 1024
#: Longer stacks bloat every dead letter (and the innermost frames say the most).
MAX_STACK = 4096


def describe(error: BaseException) -> tuple[TaskError, str]:
    """`error` as a TaskError and its stack as text, the innermost 4 KiB of it."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else _qualified(kind)
    message = cut(_text(error), MAX_MESSAGE)
    frames = traceback.extract_tb(error.__traceback__)
    digest = hashlib.sha256(name.encode())
    for frame in frames:
        digest.update(f"\n{PurePath(frame.filename).name}:{frame.name}".encode())
    # Encodable like the message: an exception's text may hold lone surrogates (undecoded bytes).
    stack = _clean("".join(traceback.format_exception(error))) if frames else ""
    if len(stack) > MAX_STACK:
        stack = "…" + stack[-(MAX_STACK - 1) :]
    return TaskError(name, message, digest.hexdigest()[:16]), stack


def _text(error: BaseException) -> str:
    """What `error` says; its own `__str__` may fail."""
    try:
        return str(error)
    except Exception as second:
        return f"<its text cannot be had: {type(second).__name__}>"


def _qualified(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def cut(text: str, limit: int) -> str:
    """`text`, at most `limit` characters, its end replaced by an ellipsis; valid Unicode."""
    clean = _clean(text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
