"""What an exception becomes: a short error, a stack that is cut, and a fingerprint that groups.

The fingerprint hashes the type and the stack's functions and files without line numbers, memory
addresses or messages, so that the same failure of two tasks, or of two releases, reads the same.
"""

from __future__ import annotations

import hashlib
import traceback
from pathlib import PurePath
from types import CodeType, TracebackType

from taskmill.schemas.models import TaskError

#: A state record is 512 bytes at the most; the dead letter carries the longer texts.
MAX_MESSAGE = 1024
#: Places that errors were raised at, of which the text is kept.
MAX_PLACES = 1_000
_PLACES: dict[tuple[str, tuple[tuple[CodeType, int], ...]], tuple[str, str]] = {}
#: Longer stacks bloat every dead letter (and the innermost frames say the most).
MAX_STACK = 4096


def describe(error: BaseException) -> tuple[TaskError, str]:
    """`error` as a TaskError and its stack as text, the innermost 4 KiB of it."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else _qualified(kind)
    message = cut(_text(error), MAX_MESSAGE)
    fingerprint, frames = _raised_at(name, error.__traceback__)
    # Encodable like the message: an exception's text may hold lone surrogates (undecoded bytes).
    stack = _clean(_whole(error, frames)) if frames else ""
    if len(stack) > MAX_STACK:
        stack = "…" + stack[-(MAX_STACK - 1) :]
    return TaskError(name, message, fingerprint), stack


def _raised_at(name: str, trace: TracebackType | None) -> tuple[str, str]:
    """Fingerprint of an error of that name, and its frames as text; both kept for the next one from
    the same place: thousands a second may come from there, and the text of one takes 0.1 ms."""
    steps: list[tuple[CodeType, int]] = []
    at = trace
    while at is not None:
        steps.append((at.tb_frame.f_code, at.tb_lasti))
        at = at.tb_next
    place = name, tuple(steps)
    found = _PLACES.get(place)
    if found is None:
        digest = hashlib.sha256(name.encode())
        for code, _ in steps:
            digest.update(f"\n{PurePath(code.co_filename).name}:{code.co_name}".encode())
        if len(_PLACES) >= MAX_PLACES:
            _PLACES.clear()
        found = digest.hexdigest()[:16], "".join(traceback.format_tb(trace))
        _PLACES[place] = found
    return found


#: Python prints a place, or what else may have been meant.
_PRINTED_WITH_MORE = (SyntaxError, NameError, AttributeError, ImportError)


def _whole(error: BaseException, frames: str) -> str:
    """What Python prints of `error`, whose own frames are these."""
    is_chained = error.__cause__ is not None or error.__context__ is not None
    if is_chained or isinstance(error, BaseExceptionGroup):
        return "".join(traceback.format_exception(error))
    kind = type(error)
    if kind.__module__ == "builtins" and not (
        isinstance(error, _PRINTED_WITH_MORE) or hasattr(error, "__notes__")
    ):
        # What nearly all are, in the words of format_exception_only, which takes 5 µs for them.
        text = _text(error)
        last = f"{kind.__qualname__}: {text}\n" if text else f"{kind.__qualname__}\n"
    else:
        last = "".join(traceback.format_exception_only(error))
    return f"Traceback (most recent call last):\n{frames}{last}"


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
