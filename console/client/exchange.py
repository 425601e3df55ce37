"""When a request is sent again, and when that is given up: steps, without any I/O."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from taskmill.console.client.failures import failure
from taskmill.console.client.wire import (
    ATTEMPT_S,
    Answer,
    Lost,
    Operation,
    Pause,
    Steps,
    Try,
    Way,
)
from taskmill.runtime.errors import TaskmillError, Unreachable

R = TypeVar("R")

#: Pauses double from the first to the longest, unless the console says how long.
FIRST_S, LONGEST_S = 0.1, 3.0
#: What says that it is worth coming again. 502 and 504 come from what stands before a console.
_AGAIN = frozenset({502, 503, 504})


def exchange(operation: Operation[R], way: Way) -> Steps[R]:
    """Send, and send again within the deadline what may be repeated, or was surely not received.

    Raises what the answer says (failures.py); Unreachable, with the last reason.
    """
    pause = FIRST_S
    while True:
        request = operation.request
        limit = min(ATTEMPT_S, max(0.1, way.deadline.left())) + request.wait_s
        outcome = yield Try(request, limit)
        assert outcome is not None, "a request comes to something"
        if isinstance(outcome, Answer):
            if 200 <= outcome.status < 300:
                return operation.read(outcome)
            error = failure(outcome, way.address)
            may_repeat = outcome.status in _AGAIN and operation.is_repeatable
            wait_s = retry_after(outcome, way.clock.now_ms()) or pause
        else:
            error = away(outcome, way.address, operation.is_repeatable)
            may_repeat = operation.is_repeatable or outcome.is_unsent
            wait_s = pause
        # Not all at once, once it is back.
        wait_s *= 1.0 + 0.25 * way.jitter()
        if not may_repeat or wait_s >= way.deadline.left():
            raise error
        yield Pause(wait_s)
        pause = min(2 * pause, LONGEST_S)


def away(lost: Lost, address: str, is_repeatable: bool = True) -> TaskmillError:
    """What no answer is."""
    unsure = "" if is_repeatable or lost.is_unsent else "; it may have been carried out"
    return Unreachable(f"the console at {address} does not answer ({lost.why}){unsure}")


def retry_after(answer: Answer, now_ms: int) -> float | None:
    """The seconds after which the console wants to be asked again (RFC 9110, 10.2.3)."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text), 86_400))
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    left = at.astimezone(UTC) - datetime.fromtimestamp(now_ms / 1000, UTC)
    return max(left.total_seconds(), FIRST_S)
