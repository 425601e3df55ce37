"""Text as both databases hold it: PostgreSQL takes no NUL, which an ID or a message may have."""

from __future__ import annotations


def stored(text: str) -> str:
    """`text` without NUL, in the same order, and reversible by `told`."""
    if "\0" in text or "\1" in text:
        return text.replace("\1", "\1" + "1").replace("\0", "\1" + "0")
    return text


def told(text: str) -> str:
    """What `stored` was given."""
    if "\1" in text:
        return text.replace("\1" + "0", "\0").replace("\1" + "1", "\1")
    return text
