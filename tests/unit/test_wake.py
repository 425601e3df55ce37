"""Waking a thread from a signal handler, whatever that thread is about."""

from __future__ import annotations

import signal

import pytest

from taskmill.runtime.wake import Wake

pytestmark = pytest.mark.timeout(60)


def test_a_handler_tells_it_in_the_midst_of_waits() -> None:
    wake, told = Wake(), 0

    def handler(number: int, frame: object) -> None:
        nonlocal told
        told += 1
        wake.tell()

    # By CPU time, so that it comes while Python runs, which is where a lock could be held.
    before = signal.signal(signal.SIGPROF, handler)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    heard = 0
    try:
        while told < 300:
            heard += wake.wait(0)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    while wake.wait(0):
        heard += 1
    assert heard == told


def test_a_wait_ends_when_nobody_tells() -> None:
    assert not Wake().wait(0)


def test_each_telling_ends_one_wait() -> None:
    wake = Wake()
    wake.tell()
    wake.tell()
    assert [wake.wait(0) for _ in range(3)] == [True, True, False]
