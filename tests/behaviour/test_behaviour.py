"""What users may count on: each sentence is shown on Kafka and in the harness."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from behaviour.shop import PLACED, Order
from behaviour.worlds import LONG_S, World
from taskmill import Handle, InvalidArguments, Status, Task, TaskFailed
from taskmill.schemas.models import JSON

pytestmark = pytest.mark.timeout(120)


def new() -> str:
    return f"it-{uuid.uuid4().hex[:10]}"


def put(world: World, name: str, /, args: Any = None, **options: Any) -> Handle[Any]:
    return world.app.enqueue(name, args or {}, **{"id": new(), **options})


def task(world: World, name: str, payload: bytes = b"{}", **fields: Any) -> Task:
    return Task(new(), name, payload, JSON, world.notes.clock.now_ms())._replace(**fields)


@pytest.mark.parametrize("name", ["echo", "echo_plainly"])
def test_a_task_runs_once_and_its_result_comes_back(world: World, name: str) -> None:
    value = {"text": "é", "numbers": [1, 2.5, None], "deep": {"is": True}}
    handle = put(world, name, {"value": value})
    assert handle.result(LONG_S) == value
    assert handle.status() is Status.SUCCEEDED
    assert world.notes.attempts[handle.id] == [1]


def test_an_id_runs_once_however_often_it_is_enqueued(world: World) -> None:
    id = new()
    first = put(world, "echo", {"value": 1}, id=id)
    second = put(world, "echo", {"value": 2}, id=id)
    assert first.result(LONG_S) == second.result(LONG_S) == 1
    third = put(world, "echo", {"value": 3}, id=id)
    other = put(world, "echo", {"value": 4})
    assert (other.result(LONG_S), third.result(LONG_S)) == (4, 1)
    assert world.notes.attempts[id] == [1]


def test_what_fails_is_tried_again_until_it_succeeds(world: World) -> None:
    handle = put(world, "flaky", {"fails": 2})
    assert handle.result(LONG_S) == 3
    assert world.notes.attempts[handle.id] == [1, 2, 3]
    state = handle.state()
    assert state is not None
    assert (state.attempt, state.seq, state.generation) == (3, 2, 0)
    waits = [later - one for one, later in pairwise(world.notes.times[handle.id])]
    assert min(waits) >= 100


def test_what_always_fails_is_dead_after_its_last_attempt(world: World) -> None:
    handle = put(world, "flaky", {"fails": 9})
    with pytest.raises(TaskFailed, match="attempt 3"):
        handle.result(LONG_S)
    assert handle.status() is Status.DEAD
    letter = world.letter(handle.id)
    assert (letter.reason, letter.task) == ("failed", "flaky")
    assert letter.error == "ConnectionError: attempt 3"
    told = letter.told
    assert told["attempts"] == "3"
    assert told["original-topic"] == f"{world.app.settings.prefix}.tasks.default"
    assert int(told["first-failure"]) < int(told["last-failure"])
    assert "raise ConnectionError" in told["error-stack"]
    assert letter.value is not None


def test_a_call_may_say_how_often_it_is_tried(world: World) -> None:
    handle = put(world, "flaky", {"fails": 9}, max_attempts=2)
    assert handle.outcome(LONG_S).status is Status.DEAD
    assert world.notes.attempts[handle.id] == [1, 2]


def test_what_is_rejected_is_not_tried_again(world: World) -> None:
    handle = put(world, "rejects")
    assert handle.outcome(LONG_S).status is Status.DEAD
    assert world.notes.attempts[handle.id] == [1]
    assert world.letter(handle.id).reason == "rejected"


def test_a_handler_may_say_when_it_is_tried_again(world: World) -> None:
    handle = put(world, "later")
    assert handle.result(LONG_S) == 2
    first, second = world.notes.times[handle.id]
    assert second - first >= 700


def test_what_an_attempt_saved_is_there_for_the_next(world: World) -> None:
    assert put(world, "counts").result(LONG_S) == [1, 2]


def test_a_delayed_task_waits_and_is_never_early(world: World) -> None:
    before = world.notes.clock.now_ms()
    handle = put(world, "echo", delay="1s")
    world.until(lambda: handle.status() is Status.SCHEDULED)
    assert handle.outcome(LONG_S).status is Status.SUCCEEDED
    assert world.notes.times[handle.id][0] - before >= 1_000


def test_a_task_starts_at_the_time_that_it_was_given(world: World) -> None:
    at = datetime.fromtimestamp(world.notes.clock.now_ms() / 1000 + 1, UTC)
    handle = put(world, "echo", at=at)
    assert handle.outcome(LONG_S).status is Status.SUCCEEDED
    assert world.notes.times[handle.id][0] >= int(at.timestamp() * 1000)


def test_a_task_that_waits_may_be_given_another_time(world: World) -> None:
    handle = put(world, "echo", {"value": 1}, delay="1h")
    world.until(lambda: handle.status() is Status.SCHEDULED)
    handle.reschedule(delay="100ms")
    assert handle.result(LONG_S) == 1


def test_a_task_that_was_cancelled_before_it_began_never_runs(world: World) -> None:
    handle = put(world, "echo", delay="1h")
    world.until(lambda: handle.status() is Status.SCHEDULED)
    handle.cancel()
    assert handle.outcome(LONG_S).status is Status.CANCELLED
    assert world.notes.attempts[handle.id] == []


def test_a_handler_that_runs_is_told_of_its_cancellation(world: World) -> None:
    handle = put(world, "lasts")
    world.until(lambda: handle.status() is Status.RUNNING)
    handle.cancel()
    assert handle.outcome(LONG_S).status is Status.CANCELLED
    assert world.notes.said[handle.id] == ["cleaned up"]


def test_a_handler_whose_time_is_over_has_failed(world: World) -> None:
    handle = put(world, "slow")
    assert handle.outcome(LONG_S).status is Status.DEAD
    assert world.letter(handle.id).reason == "timed_out"


def test_what_has_not_started_in_time_expires(world: World) -> None:
    one = task(world, "echo", expires_at=world.notes.clock.now_ms() - 1)
    world.put_task(one)
    handle = world.app.handle(one.id)
    assert handle.outcome(LONG_S).status is Status.EXPIRED
    assert world.notes.attempts[one.id] == []


def test_a_result_is_of_the_declared_type(world: World) -> None:
    expected = Order(number=7, lines=["tea"], placed=PLACED)
    assert put(world, "place", {"number": 7}).result(LONG_S) == expected


def test_a_large_result_comes_back_too(world: World) -> None:
    assert put(world, "echo", {"value": "x" * 5_000}).result(LONG_S) == "x" * 5_000


def test_a_result_that_is_no_json_makes_its_task_dead(world: World) -> None:
    handle = put(world, "unjson")
    assert handle.outcome(LONG_S).status is Status.DEAD
    assert world.letter(handle.id).reason == "invalid_result"
    assert put(world, "silent").result(LONG_S) is None


def test_arguments_are_validated_before_they_are_sent_and_again(world: World) -> None:
    with pytest.raises(InvalidArguments):
        put(world, "typed", {"number": "seven"})
    one = task(world, "typed", b'{"number":"seven"}')
    world.put_task(one)
    assert world.letter(one.id).reason == "invalid_payload"


def test_what_cannot_be_run_is_dead_and_holds_up_nothing(world: World) -> None:
    id, one = new(), task(world, "nobody")
    world.put(id.encode(), b"garbage")
    world.put_task(one)
    assert world.letter(one.id).reason == "unknown_task"
    assert world.letter(id).reason == "undecodable"
    assert put(world, "echo", {"value": 1}, id=id).result(LONG_S) == 1


def test_tasks_that_a_handler_enqueues_come_with_its_success_alone(world: World) -> None:
    handle = put(world, "parent", {"fails": 1})
    assert handle.outcome(LONG_S).status is Status.SUCCEEDED
    assert world.app.handle(f"{handle.id}/2").result(LONG_S) == 2
    assert world.notes.attempts[f"{handle.id}/1"] == []
    assert world.app.handle(f"{handle.id}/1").state() is None


def test_an_alias_reaches_its_task(world: World) -> None:
    one = task(world, "reverberate", b'{"value":5}')
    world.put_task(one)
    assert world.app.handle(one.id).result(LONG_S) == 5


def test_headers_travel_and_hooks_see_all_that_happens(world: World) -> None:
    handle = put(world, "echo", headers={"tenant": "a"})
    handle.result(LONG_S)
    (headers,) = world.notes.said[handle.id]
    assert headers == {"tenant": "a", "seen": "yes"}
    hooks = world.notes.hooks[handle.id]
    world.until(lambda: "after_commit succeeded" in hooks)
    # In which order a sender and a worker come is nobody's promise.
    assert sorted(hooks) == [
        "after_commit succeeded",
        "after_enqueue",
        "after_run succeeded",
        "before_enqueue",
        "before_run",
    ]
    assert hooks.index("before_run") < hooks.index("after_run succeeded")


def test_handlers_find_what_the_lifespan_made(world: World) -> None:
    assert put(world, "till").result(LONG_S) == "open"
    life = world.notes.life
    assert life[life.index("begins") + 1] == "worker_started"


def test_a_dead_task_runs_again_once_it_is_replayed(world: World) -> None:
    handle = put(world, "brittle")
    assert handle.outcome(LONG_S).status is Status.DEAD
    letter = world.letter(handle.id)
    world.notes.mended.add(handle.id)
    world.replay(letter)
    world.until(lambda: handle.status() is Status.SUCCEEDED)
    assert handle.result(LONG_S) == 1, "its generation"
    assert world.notes.attempts[handle.id] == [1, 1]
    assert all(one.id != handle.id for one in world.letters())


@pytest.mark.parametrize(("id", "period_s"), [("tick", 1), ("tock", 2)])
def test_a_schedule_fires_at_each_of_its_times(world: World, id: str, period_s: int) -> None:
    said, times = world.notes.said[id], world.notes.times[id]
    before = len(said)
    world.until(lambda: len(said) >= before + 3)
    nominal = [datetime.fromisoformat(text).timestamp() for text in said[before : before + 3]]
    assert all(later - one == period_s for one, later in pairwise(nominal))
    assert all(at >= one * 1000 for one, at in zip(nominal, times[before:], strict=False))


def test_what_runs_at_most_once_runs(world: World) -> None:
    handle = put(world, "once")
    assert handle.result(LONG_S) == 1
    assert world.notes.attempts[handle.id] == [1]
