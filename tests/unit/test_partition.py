"""The partition of a key is the Java client's, computed natively or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmill.runtime import partition
from taskmill.runtime.partition import murmur2, partition_for

#: From Apache Kafka's UtilsTest.testMurmur2 (signed 32-bit there).
JAVA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("data", "expected"), JAVA_VECTORS.items())
def test_murmur2_equals_the_java_clients(data: bytes, expected: int) -> None:
    signed = int.from_bytes(murmur2(data).to_bytes(4, "big"), "big", signed=True)
    assert signed == expected


def test_librdkafkas_own_partitioner_is_found_and_used() -> None:
    assert partition._native() is not None
    assert partition_for is not partition._portable


@given(key=st.binary(max_size=600), partitions=st.integers(1, 10_000))
def test_the_native_partitioner_equals_the_portable_one(key: bytes, partitions: int) -> None:
    chosen = partition_for(key, partitions)
    assert chosen == partition._portable(key, partitions)
    assert 0 <= chosen < partitions
