"""When a request is sent again: the steps of the console's client, without any I/O."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from support.clocks import HandClock
from taskmill.console.api.models import Me
from taskmill.console.client import calls, more_calls
from taskmill.console.client.ended import Ended
from taskmill.console.client.wire import Action, Answer, Lost, Pause, Try, Way, path, query
from taskmill.runtime.clock import Deadline
from taskmill.runtime.errors import (
    Conflict,
    Gone,
    InvalidInput,
    NotAllowed,
    NotFound,
    PayloadTooLarge,
    ResultTimeout,
    TaskmillError,
    Unreachable,
)

ME = {"token": "t1", "scopes": ["read"], "queues": None, "expires_at": None}
AWAY = Lost("refused", True)
CUT = Lost("cut", False)


def problem(status: int, detail: str = "so it is", **headers: str) -> Answer:
    body = {"type": "/problems/x", "title": "t", "status": status, "detail": detail}
    return Answer(status, headers, json.dumps({**body, "request_id": "r1"}).encode())


def answer(document: Any, status: int = 200) -> Answer:
    return Answer(status, {}, json.dumps(document).encode())


class Run:
    """Carries out an action against a list of outcomes; what was tried and waited is kept."""

    def __init__(self, action: Action[Any], *outcomes: Answer | Lost, timeout_s: float = 30.0):
        self.tries: list[Try] = []
        self.pauses: list[float] = []
        self.clock = clock = HandClock()
        left = list(outcomes)
        way = Way("http://c", clock, lambda: 0.0, Deadline(timeout_s, clock))
        steps, outcome = action.steps(way), None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                self.value = end.value
                assert not left, "it asked less often"
                return
            if isinstance(step, Pause):
                self.pauses.append(step.seconds)
                clock.sleep(step.seconds)
                outcome = None
            else:
                self.tries.append(step)
                clock.sleep(min(step.request.wait_s, 1.0))
                outcome = left.pop(0) if len(left) > 1 or not isinstance(left[0], Lost) else left[0]


def test_an_answer_is_read_as_its_document_whatever_a_newer_console_says_beyond() -> None:
    run = Run(calls.me(), answer({**ME, "new": {"field": 1}}))
    assert run.value == Me(token="t1", scopes=["read"], queues=None, expires_at=None)
    assert run.tries[0].request.path == "/me"


def test_what_is_away_is_asked_again_until_it_is_back() -> None:
    run = Run(calls.me(), AWAY, CUT, problem(503, **{"retry-after": "2"}), answer(ME))
    assert isinstance(run.value, Me)
    assert run.pauses == [0.1, 0.2, 2.0]


def test_it_is_not_waited_beyond_the_deadline() -> None:
    with pytest.raises(Unreachable, match=r"http://c does not answer \(refused\)$"):
        Run(calls.me(), AWAY, timeout_s=5.0)
    with pytest.raises(Unreachable, match="the console at http://c: behind") as error:
        Run(calls.me(), problem(503, "behind", **{"retry-after": "60"}), timeout_s=30.0)
    assert error.value.exit_code == 3


def test_retry_after_may_be_a_date() -> None:
    at = "Thu, 09 Oct 2025 08:53:25 GMT"  # five seconds on, by the clock
    run = Run(calls.me(), problem(503, **{"retry-after": at}), answer(ME))
    assert run.pauses == [5.0]


@pytest.mark.parametrize(
    "action",
    [
        calls.run_again("a"),
        more_calls.replay(queue="default"),
        more_calls.trigger("nightly"),
        more_calls.remove_schedule("nightly"),
    ],
)
def test_what_may_have_been_done_is_done_once(action: Action[Any]) -> None:
    with pytest.raises(Unreachable, match=r"it may have been carried out$"):
        Run(action, CUT)
    with pytest.raises(Unreachable, match="may yet be"):
        Run(action, problem(503, "it may yet be done"))
    # Nobody got it: it is sent again.
    with pytest.raises(Conflict):
        Run(action, AWAY, problem(409))


def test_an_enqueue_that_is_repeated_has_one_id_and_is_no_duplicate_of_itself() -> None:
    told = {"id": "?", "queue": "default", "duplicate": True}
    run = Run(calls.enqueue("add", {"a": 1}), CUT, answer(told))
    first, second = (json.loads(one.request.body or b"") for one in run.tries)
    assert first == second
    assert len(first["id"]) == 36
    assert run.value.duplicate is False
    named = Run(calls.enqueue("add", {"a": 1}, id="x"), answer(told))
    assert named.value.duplicate is True


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, InvalidInput, 2),
        (401, NotAllowed, 2),
        (403, NotAllowed, 2),
        (404, NotFound, 1),
        (409, Conflict, 1),
        (410, Gone, 1),
        (413, PayloadTooLarge, 2),
        (422, InvalidInput, 2),
        (500, TaskmillError, 1),
    ],
)
def test_a_problem_is_the_error_that_it_means_in_its_own_words(
    status: int, kind: type[TaskmillError], code: int
) -> None:
    with pytest.raises(TaskmillError) as error:
        Run(calls.task("a"), problem(status, "what\nis wrong"))
    assert type(error.value) is kind
    assert (str(error.value), error.value.exit_code) == ("what is wrong", code)
    assert error.value.request_id == "r1"


@pytest.mark.parametrize(
    ("challenge", "says"),
    [
        ('Bearer realm="taskmill"', "the console at http://c wants a token, and got none; "),
        ('Bearer realm="taskmill", error="invalid_token"', "it is revoked; "),
    ],
)
def test_what_to_do_about_a_token_is_said(challenge: str, says: str) -> None:
    refused = problem(401, "it is revoked")._replace(headers={"www-authenticate": challenge})
    hint = "`taskmill tokens create` makes one, TASKMILL_API_TOKEN takes it"
    with pytest.raises(NotAllowed, match=f"^{re.escape(says + hint)}$"):
        Run(calls.me(), refused)


@pytest.mark.parametrize(
    ("allowed", "says"),
    [("1h", "since: 'x' is no time: expected 1h"), (None, "since: 'x' is no time")],
)
def test_what_is_allowed_is_said(allowed: str | None, says: str) -> None:
    wrong = {"field": "since", "message": "'x' is no time", "allowed": allowed}
    told = json.loads(problem(422, "since: 'x' is no time").body) | {"errors": [wrong]}
    with pytest.raises(InvalidInput, match=f"^{re.escape(says)}$"):
        Run(calls.me(), Answer(422, {}, json.dumps(told).encode()))


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Answer(404, {}, b"<html>nginx"), "http://c answered 404: is that a console's address"),
        (Answer(302, {}, b""), "answered 302"),
        (Answer(200, {}, b"<html>"), "is no Me .*another release, or it is no console"),
        (answer({**ME, "scopes": 7}), r"is no Me \(scopes"),
    ],
)
def test_what_is_no_console_is_said_to_be_none(reply: Answer, says: str) -> None:
    with pytest.raises(TaskmillError, match=says):
        Run(calls.me(), reply)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: calls.enqueue("x" * 300), "name: String should have at most 255"),
        (lambda: calls.enqueue("a", {"f": object()}), "cannot be serialised as JSON"),
        (lambda: calls.enqueue_many([]), "tasks: List should have at least 1"),
        (lambda: calls.enqueue_many([{"name": "a", "colour": 1}]), "colour: Extra inputs"),
        (lambda: calls.task(""), "ID"),
        (lambda: calls.result("a", wait="soon"), "duration 'soon'"),
        (lambda: more_calls.replay(canary=0), "canary: .* greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_it_is_sent(call: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as error:
        call()
    assert "\n" not in str(error.value)


def test_paths_and_queries_hold_any_character() -> None:
    assert path("tasks", "a/b?c%d ü", "run") == "/tasks/a%2Fb%3Fc%25d%20%C3%BC/run"
    assert path("tasks", "..") == "/tasks/%2E%2E"
    assert query(a=None, b=["x", "y"], c=True, d=3) == (
        ("b", "x"), ("b", "y"), ("c", "true"), ("d", "3"),
    )  # fmt: skip


# ---- the end of a task --------------------------------------------------------------------------

RESULT = {
    "id": "a", "queue": "default", "name": "add", "status": "running", "generation": 0,
    "finished_at": None, "result": None, "result_base64": None, "content_type": None,
    "error": None, "as_of": "2026-11-26T14:00:00.000Z",
}  # fmt: skip
DONE = {**RESULT, "status": "succeeded"}
WHOLE = {
    **DONE, "seq": 0, "attempt": 1, "worker": "w", "enqueued_at": None, "started_at": None,
    "next_attempt_at": None, "parent_id": None, "lock_key": None, "source_partition": 0,
    "source_offset": 1, "large": None, "result_expires_at": None,
    "updated_at": "2026-11-26T14:00:00.000Z", "args": {}, "args_base64": None, "stack": None,
    "attempts": [],
}  # fmt: skip


def test_an_end_is_waited_for_request_by_request() -> None:
    run = Run(
        Ended("a", "default", None),
        problem(404),
        answer(RESULT, 202),
        AWAY,
        answer(DONE),
        answer(WHOLE),
    )
    assert run.value.status == "succeeded"
    assert dict(run.tries[0].request.query)["wait"] == "25000ms"


def test_a_result_whose_time_is_over_is_an_end_too() -> None:
    expired = {**WHOLE, "result_expires_at": "2026-11-26T14:00:00.000Z"}
    assert Run(Ended("a", "default", 5.0), problem(410), answer(expired)).value.result is None


def test_a_time_limit_says_whether_the_task_or_the_console_is_late() -> None:
    with pytest.raises(ResultTimeout, match=r"task 'a' has not ended within 2 s; it goes on"):
        Run(Ended("a", "default", 2.0), *[answer(RESULT, 202)] * 9)
    with pytest.raises(Unreachable):
        Run(Ended("a", "default", 2.0), AWAY)
