"""Cursors: where a page ended, as opaque text that is checked when it comes back."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from taskmill.console.api.problems import Refused, field

_VERSION = 1
_LONGEST = 4096


def mark_of(kind: str, chosen: object) -> str:
    """What ties a cursor to the list, and to the filters, that it came from."""
    return hashlib.sha256(f"{kind} {chosen!r}".encode("utf-8", "replace")).hexdigest()[:12]


def encode(mark: str, key: tuple[int | str, ...]) -> str:
    """The cursor of the page behind `key`."""
    text = json.dumps([_VERSION, mark, *key], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(text: str | None, mark: str, kinds: tuple[type, ...]) -> Any:
    """The key of that cursor, a tuple of `kinds`; None for None. Raises Refused, 400, which names
    `cursor`."""
    if text is None:
        return None
    try:
        if len(text) > _LONGEST:
            raise ValueError("too long")
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        found = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        version, of, *key = found
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise _malformed() from None
    if version != _VERSION or not isinstance(of, str) or len(key) != len(kinds):
        raise _malformed()
    if any(type(value) is not kind for value, kind in zip(key, kinds, strict=True)):
        raise _malformed()
    if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in key):
        raise _malformed()
    if any(isinstance(value, str) and not _is_utf8(value) for value in key):
        raise _malformed()
    if of != mark:
        raise field("malformed", "cursor", "is of another list or of other filters: keep them")
    return tuple(key)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _malformed() -> Refused:
    return field("malformed", "cursor", "is none that this API gave", "what `next` of a page says")
