"""Waking a thread from a signal handler, whatever that thread is about."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

import pytest

from taskmill.runtime.wake import Wake

pytestmark = pytest.mark.timeout(20)


def interrupted(run: Any, handler: Any) -> int:
    """Call `handler` at every line that `run` executes, as a signal may; how many those were."""
    calls = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal calls
        if event == "line":
            calls += 1
            sys.settrace(None)
            handler()
            sys.settrace(trace)
        return trace

    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(None)
    return calls


def test_a_handler_may_tell_it_at_any_step_of_a_wait() -> None:
    wake = Wake()
    assert interrupted(lambda: wake.wait(0.01), wake.tell) > 0
    assert wake.wait(0)


def test_an_event_would_not_do() -> None:
    event = threading.Event()
    is_held = False

    def handler() -> None:
        nonlocal is_held
        # Where this fails, `event.set()` would wait for the very thread that it interrupts.
        if event._cond.acquire(blocking=False):  # type: ignore[attr-defined]
            event._cond.release()  # type: ignore[attr-defined]
        else:
            is_held = True

    interrupted(lambda: event.wait(0.01), handler)
    assert is_held


def test_a_wait_ends_when_nobody_tells() -> None:
    assert not Wake().wait(0)
