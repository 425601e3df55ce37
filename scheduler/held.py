"""A record's headers and value as one value of a local copy."""

from __future__ import annotations

from struct import Struct

Headers = list[tuple[str, bytes | None]]

#: How many headers; of each the lengths of its name and its content (-1: none).
_COUNT, _LENGTHS = Struct("<H"), Struct("<Hi")


def pack(headers: Headers, value: bytes) -> bytes:
    """`headers` and `value`, for `unpack`."""
    parts = [_COUNT.pack(len(headers))]
    for name, content in headers:
        encoded = name.encode()
        parts.append(_LENGTHS.pack(len(encoded), -1 if content is None else len(content)))
        parts.append(encoded)
        parts.append(content or b"")
    parts.append(value)
    return b"".join(parts)


def unpack(packed: bytes) -> tuple[Headers, bytes]:
    """What `pack` was given."""
    (count,) = _COUNT.unpack_from(packed)
    headers: Headers = []
    at = _COUNT.size
    for _ in range(count):
        name_size, size = _LENGTHS.unpack_from(packed, at)
        at += _LENGTHS.size
        name = packed[at : at + name_size].decode()
        at += name_size
        headers.append((name, None if size < 0 else packed[at : at + size]))
        at += max(size, 0)
    return headers, packed[at:]
