"""Which partition a key belongs to: murmur2, the Java client's rule."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from struct import unpack_from

from confluent_kafka import cimpl

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """32-bit MurmurHash2 of `data`, unsigned, as org.apache.kafka.common.utils.Utils.murmur2."""
    length = len(data)
    h = _SEED ^ length
    for word in unpack_from(f"<{length >> 2}I", data):
        k = word * _M & _MASK
        k = (k ^ k >> 24) & _MASK
        h = (h * _M ^ k * _M) & _MASK
    tail = length & 3
    if tail:
        h = (h ^ int.from_bytes(data[length - tail :], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def _portable(key: bytes, partitions: int) -> int:
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def _native() -> Callable[[bytes, int], int] | None:
    """librdkafka's own murmur2 partitioner (public API), a quarter of the pure Python's cost.

    The symbol is looked up through the extension module that links it, so it is the very library
    that produces. The topic argument is unused by this partitioner. None where it is not found.
    """
    try:
        partitioner = ctypes.PyDLL(cimpl.__file__).rd_kafka_msg_partitioner_murmur2
    except (OSError, AttributeError):
        return None
    partitioner.restype = ctypes.c_int32
    partitioner.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_int32,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]

    def partition(key: bytes, partitions: int) -> int:
        return partitioner(None, key, len(key), partitions, None, None)  # type: ignore[no-any-return]

    return partition


#: `partition_for(key, n)`: the partition of `key` (bytes) in a topic of `n` partitions.
partition_for: Callable[[bytes, int], int] = _native() or _portable
