"""What is done about a handler whose time is over, or that is cancelled.

    async def   cancelled; its CancelledError lets it clean up
    def         `Interrupted` is raised in its thread, as soon as that runs Python again
    a process   the same inside it; after the grace the process is killed

One that still runs after the grace is stuck: it is counted and told, with where it stands. Where
its executor can do without it, it is left behind: its attempt has timed out, whatever it does now.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from math import inf
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from taskmill.consumer.record import Record
from taskmill.consumer.task_fields import fields_of
from taskmill.producer.time_limits import MAX_S, TimeLimits
from taskmill.runtime.clock import Clock
from taskmill.runtime.errors import DeadlineExceeded, Interrupted, TimedOut
from taskmill.schemas.json_form import iso
from taskmill.schemas.models import Task

if TYPE_CHECKING:  # an attempt is prepared with a Due
    from taskmill.consumer.attempt import Prepared

logger = logging.getLogger("taskmill.worker")


#: How long a handler may clean up once it was told to end (TASKMILL_TIMEOUT_GRACE_MS).
GRACE_S = 5.0


def is_cancelled(record: Record) -> bool:
    """Whether `record`, which was handed to an executor, is to be cancelled."""
    offsets = record.lease.cancelled
    return bool(offsets) and record.offset in offsets


class Due(NamedTuple):
    """Until when an attempt may run: `at` by the monotonic clock, `ends_at` in UTC milliseconds,
    `seconds` from its start; `is_deadline`: the task's, not this attempt's alone."""

    at: float
    ends_at: int
    seconds: float
    is_deadline: bool

    def error(self) -> TimedOut:
        """What an attempt that ran for longer failed of."""
        if self.is_deadline:
            return DeadlineExceeded(f"still running at its deadline, {iso(self.ends_at)}")
        return TimedOut(f"still running after its timeout of {self.seconds:g} s")


def expiry_of(task: Task, limits: TimeLimits) -> int | None:
    """When `task` expires if it has not started, in UTC ms; `limits` are its declaration's."""
    if task.expires_at is not None or limits.expires_ms is None:
        return task.expires_at
    return _from(task) + limits.expires_ms


def deadline_of(task: Task, limits: TimeLimits) -> int | None:
    """From when on nothing of `task` may run, in UTC ms."""
    if task.deadline is not None or limits.deadline_ms is None:
        return task.deadline
    return _from(task) + limits.deadline_ms


def _from(task: Task) -> int:
    """When `task` could have started at the earliest."""
    return max(task.enqueued_at, task.not_before or 0)


def due_of(task: Task, limits: TimeLimits, now_ms: int, now: float) -> Due | None:
    """The end of an attempt that starts now; None: it has as long as it likes."""
    timeout_ms = limits.timeout_ms if task.timeout_ms is None else task.timeout_ms
    deadline = deadline_of(task, limits)
    left_ms = inf if timeout_ms is None else timeout_ms
    is_deadline = deadline is not None and deadline - now_ms < left_ms
    if is_deadline:
        assert deadline is not None, "just looked"
        left_ms = deadline - now_ms
    if left_ms == inf:
        return None
    seconds = min(left_ms / 1000, MAX_S)  # a foreign client's may be beyond what can be waited for
    return Due(now + seconds, now_ms + int(seconds * 1000), seconds, is_deadline)


class _Later:
    """A call that is yet to come, or one that it makes then."""

    __slots__ = ("_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    def after(self, seconds: float, function: Callable[..., object], *arguments: Any) -> None:
        """Call it then, and nothing else."""
        self._handle = self._loop.call_later(seconds, function, *arguments)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class Abandoned(BaseException):
    """A handler that was left behind has ended after all: its outcome was told long ago."""


class _Call:
    """A function that runs in a thread. `busy`: the watch decides about it just now."""

    # Of the class, as hardly one of them is ever set: each function that runs makes one of these.
    interrupted = left = busy = over = cancelled = False

    def __init__(self, attempt: Prepared, ident: int, at: float, leave: Leave | None) -> None:
        self.attempt = attempt
        self.ident = ident
        self.leave = leave
        #: When something is to be done about it.
        self.next = at

    def is_due(self, now: float) -> bool:
        """Whether something is to be done about it."""
        return self.next <= now or (self.cancelled and not self.interrupted)


#: Goes on without a handler; it is given where that one stands, outermost frame first.
Leave = Callable[["Prepared", list[FrameType]], None]


class Timekeeper:
    """Runs handlers within their time. Its thread starts with the first function that has one."""

    def __init__(
        self,
        clock: Clock,
        grace_s: float = GRACE_S,
        interrupt: Callable[[int], None] | None = None,
    ) -> None:
        """`interrupt` makes the thread of that identifier raise Interrupted, if `strikes`."""
        self._monotonic = clock.monotonic
        self.grace_s = grace_s
        self._interrupt = interrupt or _raise_in
        #: Whether it is for the thread itself to ask `strikes`, and then to raise.
        self._is_asked = interrupt is not None
        self._struck: _Call | None = None
        #: By thread: what runs there, or ran there last.
        self._calls: dict[int, _Call] = {}
        #: Coroutines under way in `acall`.
        self._coroutines: dict[asyncio.Task[Any], Prepared] = {}
        self._wake_at = inf
        self._bell: SimpleQueue[bool] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        #: Handlers found stuck, by queue and task.
        self.stuck: Counter[tuple[str, str]] = Counter()

    # ---- coroutines ---------------------------------------------------------------------------

    async def acall(self, attempt: Prepared, leave: Callable[[], None] | None = None) -> Any:
        """What the coroutine of `attempt` returns. Raises TimedOut where it was cancelled for its
        time, whatever it raised then, and what it raises otherwise.

        `leave` is called where it is stuck. To be awaited in the loop's own task for it.
        """
        me = asyncio.current_task()
        assert me is not None, "to be awaited in a task"
        self._coroutines[me] = attempt
        try:
            if is_cancelled(attempt.record):
                raise asyncio.CancelledError
            return await self._in_time(attempt, leave)
        finally:
            del self._coroutines[me]

    async def _in_time(self, attempt: Prepared, leave: Callable[[], None] | None) -> Any:
        due, definition = attempt.due, attempt.definition
        if due is None:
            return await definition.fn(**attempt.arguments)
        loop = asyncio.get_running_loop()
        left = max(0.0, due.at - self._monotonic())
        scope, stuck = asyncio.timeout(left), _Later(loop)
        # The grace begins when it was told, which a loop that somebody holds up does late.
        stuck.after(left, stuck.after, self.grace_s, self._stuck_there, attempt, leave)
        try:
            async with scope:
                return await definition.fn(**attempt.arguments)
        except asyncio.CancelledError:
            raise  # by somebody else, or its own
        except BaseException as error:
            if not scope.expired():
                raise
            if isinstance(error.__cause__, asyncio.CancelledError):
                error = error.__cause__  # the scope's own, in place of the one the handler let pass
            _raise_timed_out(due, error)
        finally:
            stuck.cancel()

    def _stuck_there(self, attempt: Prepared, leave: Callable[[], None] | None) -> None:
        self.tell(attempt, is_left=leave is not None)
        if leave is not None:
            leave()

    # ---- functions ----------------------------------------------------------------------------

    def call(self, attempt: Prepared, leave: Leave | None = None) -> Any:
        """What the function of `attempt` returns, called in this thread. Raises TimedOut as
        `acall`; Abandoned where `leave` was told, in the watch's thread, that it is stuck.

        Interrupted may come at any step in here, once. No lock is taken for that reason: an
        interruption between a lock and its `with` would keep it for good.
        """
        due, fn, arguments = attempt.due, attempt.definition.fn, attempt.arguments
        if due is not None:
            self._start()
        call = _Call(attempt, threading.get_ident(), inf if due is None else due.at, leave)
        try:
            try:
                self._calls[call.ident] = call
                if call.next < self._wake_at:
                    self._bell.put(True)
                if is_cancelled(attempt.record):
                    raise Interrupted
                value = fn(**arguments)
            finally:
                self._end(call)
        except BaseException as error:
            self._end(call)
            if call.left:
                raise Abandoned from None
            if due is None or call.cancelled or not call.interrupted:
                raise
            _raise_timed_out(due, error)
        if call.left:
            raise Abandoned
        return value

    def _end(self, call: _Call) -> None:
        """Nothing is done about `call` from here on."""
        call.over = True
        while call.busy:
            pass  # microseconds, and Event.wait would take a lock
        if call.interrupted and not self._is_asked:
            _clear(call.ident)

    def strikes(self) -> bool:
        """Whether this thread, which was told to ask, is to raise Interrupted now."""
        call, self._struck = self._struck, None
        return call is not None and not call.over

    def cancel(self, record: Record) -> None:
        """Have the handler of `record` end, if it is under way in `call` or `acall`: `record` is
        marked as cancelled by now, so that one that is only about to begin does not. Any thread."""
        for call in self._running():
            if call.attempt.record is record:
                call.cancelled = True
                self._start()
                self._bell.put(True)
        for task, attempt in list(self._coroutines.items()):
            if attempt.record is record:
                task.get_loop().call_soon_threadsafe(self._cancel_task, task, attempt)

    def _cancel_task(self, task: asyncio.Task[Any], attempt: Prepared) -> None:
        if self._coroutines.get(task) is attempt:
            task.cancel()

    def stop(self) -> None:
        """End the watch; what runs is no longer looked after."""
        with self._starting:
            if self._thread is not None:
                self._bell.put(False)
                self._thread.join()
                self._thread = None

    def _start(self) -> None:
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._watch, name="taskmill-timekeeper", daemon=True
                    )
                    self._thread.start()

    def _watch(self) -> None:
        goes_on = True
        while goes_on:
            self._wake_at = inf  # whoever comes now rings
            now = self._monotonic()
            for call in self._running():
                if call.is_due(now):
                    self._act(call, now)
            self._wake_at = wake_at = min((c.next for c in self._running()), default=inf)
            if any(call.next < wake_at or call.is_due(now) for call in self._running()):
                continue  # it came in between, and perhaps did not ring
            try:
                goes_on = self._bell.get(timeout=None if wake_at == inf else max(0, wake_at - now))
            except Empty:
                pass

    def _running(self) -> list[_Call]:
        return [call for call in list(self._calls.values()) if not call.over]

    def _act(self, call: _Call, now: float) -> None:
        """Interrupt `call`, or find it stuck."""
        is_stuck, leave = False, call.leave
        call.busy = True
        if not call.over:
            if not call.interrupted:
                call.interrupted, call.next = True, now + self.grace_s
                self._struck = call
                self._interrupt(call.ident)
            else:
                is_stuck, call.next, call.left = True, inf, leave is not None
        call.busy = False
        if is_stuck:
            self.tell(call.attempt, is_left=call.left)
            if leave is not None:
                leave(call.attempt, frames_of_thread(call.ident))

    def tell(self, attempt: Prepared, *, is_left: bool) -> None:
        """Count and log a handler that does not end."""
        record, name = attempt.record, attempt.definition.name
        self.stuck[record.lease.queue, name] += 1
        logger.error(
            "task %s of %s does not end, %g s after it was told to (%s): %s",
            record.task.id if record.task is not None else "?",
            name,
            self.grace_s,
            "it was cancelled" if is_cancelled(record) else "its time is over",
            "it is left behind" if is_left else "its place stays taken",
            extra=fields_of(record),
        )


def _raise_timed_out(due: Due, error: BaseException) -> NoReturn:
    """The attempt was stopped for its time, and raised `error` then."""
    is_ours = isinstance(error, Interrupted | asyncio.CancelledError)
    raise due.error().with_traceback(error.__traceback__) from None if is_ours else error


def _raise_in(ident: int) -> None:
    """Have the thread `ident` raise Interrupted, as soon as it runs Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(Interrupted))


def _clear(ident: int) -> None:
    """What was to be raised in the thread `ident` and was not yet is not raised."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), None)


# ---- where a handler stands ----------------------------------------------------------------------


def frames_of_thread(ident: int) -> list[FrameType]:
    """The frames of a running thread, outermost first."""
    frames: list[FrameType] = []
    frame = sys._current_frames().get(ident)
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def frames_of_task(task: asyncio.Task[Any]) -> list[FrameType]:
    """The frames of a suspended coroutine and of what it awaits, outermost first."""
    frames: list[FrameType] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            frames.append(frame)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return frames


def traceback_of(frames: Iterable[FrameType]) -> TracebackType | None:
    """As if an error had been raised in the last of `frames`."""
    trace: TracebackType | None = None
    for frame in reversed(list(frames)):
        trace = TracebackType(trace, frame, frame.f_lasti, frame.f_lineno or 0)
    return trace
