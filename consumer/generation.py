"""The generation inside librdkafka's opaque group metadata, which its API does not give.

Only an optimisation rests on it (handlers of a partition that comes back go on); the fence itself
passes the metadata on as it is. Unknown forms are answered with None.
"""

from __future__ import annotations

import struct

#: What rd_kafka_consumer_group_metadata_write() begins with; then the generation as a native
#: int32, then group ID, member ID and instance ID, each ended by NUL.
_MAGIC = b"CGMDv2:"


def generation_of(metadata: object) -> tuple[int, str] | None:
    """(generation, member ID) of `metadata`, or None where its form is not the known one."""
    if not isinstance(metadata, bytes) or not metadata.startswith(_MAGIC):
        return None
    start = len(_MAGIC) + 4
    if len(metadata) < start:
        return None
    (generation,) = struct.unpack_from("=i", metadata, len(_MAGIC))
    parts = metadata[start:].split(b"\0")
    if len(parts) < 2 or generation < 0:
        return None
    return generation, parts[1].decode("utf-8", "replace")
