"""Both clients, and the commands, against a real console on a real Kafka."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.asking import WAYS, Asking
from support.brokers import quiet_port
from support.commands import Command
from support.consoles import ConsoleProcess, Stand, eventually
from support.pty_run import Terminal, taskmill
from taskmill.console.client.wire import Request
from taskmill.console.tokens import TokenTable
from taskmill.producer.ids import new_id
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import (
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    PayloadTooLarge,
    ResultTimeout,
)
from taskmill.schemas.states import Status

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


def secret(settings: Settings, *scopes: str, queues: list[str] | None = None) -> str:
    return TokenTable(settings).create(scopes, queues=queues, by="test")[1]


@pytest.fixture(scope="module")
def admin(stand: Stand) -> str:
    return secret(stand.settings, "admin")


@pytest.fixture(params=WAYS)
def one(request: pytest.FixtureRequest, stand: Stand, admin: str) -> Iterator[Asking]:
    with Asking(request.param, stand.console.url, admin) as asking:
        eventually(lambda: _knows(asking))
        yield asking


def _knows(asking: Asking) -> bool:
    """Whether the console has heard of the token."""
    try:
        return asking.ask("me") is not None
    except NotAllowed:
        return False


def test_a_task_is_enqueued_awaited_and_shown(one: Asking) -> None:
    told = one.ask("enqueue", "add", {"a": 2, "b": 3})
    done = one.ask("ended", told.id, timeout_s=20)
    assert (done.status, done.result, done.args) == (Status.SUCCEEDED, 5, {"a": 2, "b": 3})
    assert done.finished_at >= done.enqueued_at
    assert one.ask("result", told.id).result == 5
    (found,) = one.take("tasks", prefix=told.id)
    assert (found.id, found.status) == (told.id, "succeeded")
    with pytest.raises(Conflict, match="succeeded already"):
        one.ask("cancel", told.id)
    again = one.ask("run_again", told.id)
    assert again.generation == 1


def test_an_id_is_enqueued_once(one: Asking) -> None:
    id = f"a/b?{new_id()}"
    assert one.ask("enqueue", "add", {"a": 1}, id=id).duplicate is False
    one.ask("ended", id, timeout_s=20)
    assert one.ask("enqueue", "add", {"a": 9}, id=id).duplicate is True
    assert one.ask("ended", id, timeout_s=20).result == 2


def test_a_batch_and_its_pages(one: Asking) -> None:
    mark = new_id()
    told = one.ask("enqueue_many", [{"name": "noop", "id": f"{mark}/{n}"} for n in range(25)])
    assert (told.accepted, told.refused) == (25, 0)
    one.ask("ended", f"{mark}/24", timeout_s=20)
    eventually(lambda: len(one.take("tasks", prefix=f"{mark}/", page=10)) == 25)
    with pytest.raises(InvalidInput, match=r"tasks\.1\.queue"):
        one.ask("enqueue_many", [{"name": "noop"}, {"name": "noop", "queue": "nowhere"}])
    each = one.ask("enqueue_many", [{"name": "noop"}, {"name": "a", "delay": "x"}], mode="each")
    assert [item.status for item in each.tasks] == [202, 422]


def test_what_is_wrong_is_told_in_the_consoles_words(one: Asking) -> None:
    with pytest.raises(NotFound, match="no task 'nobody'"):
        one.ask("task", "nobody")
    with pytest.raises(InvalidInput, match="delay: duration 'soon'"):
        one.ask("enqueue", "add", delay="soon")
    with pytest.raises(InvalidInput, match="since"):
        one.take("tasks", since="yesterday")
    with pytest.raises(PayloadTooLarge):
        one.ask("enqueue", "echo", {"value": "x" * 1_100_000})
    with pytest.raises(NotFound) as error:
        one.ask("schedule", "none/such")
    assert error.value.request_id


def test_an_end_that_does_not_come_in_time_is_no_end(one: Asking) -> None:
    told = one.ask("enqueue", "nap", {"ms": 60_000})
    with pytest.raises(ResultTimeout, match="has not ended within 1 s"):
        one.ask("ended", told.id, timeout_s=1)
    one.ask("cancel", told.id)
    assert one.ask("ended", told.id, timeout_s=20).status == "cancelled"


def test_changes_are_streamed_and_gone_on_with(one: Asking) -> None:
    id = new_id()
    (hello,) = one.take("stream", 1)
    assert hello.kind == "hello"
    one.ask("enqueue", "add", {"a": 1}, id=id)
    one.ask("ended", id, timeout_s=20)
    # Behind the event from before the task: it is told of what was missed.
    events = one.take("stream", until="succeeded", last_id=hello.id, queue="default")
    assert id in [event.task.id for event in events if event.task is not None]


def test_all_else_can_be_asked_too(one: Asking) -> None:
    assert one.ask("me").scopes == ["admin"]
    assert one.ask("overview", minutes=5).totals["succeeded"] >= 0
    eventually(lambda: [q.queue for q in one.ask("queues").queues] == ["default"])
    assert one.ask("workers") is not None
    assert one.ask("letter_groups", since="1h") is not None
    assert one.take("letters", 5) is not None
    assert one.ask("preview_replay", queue="default").queue == "default"
    made = one.ask("put_schedule", "night ly/ü", "noop", cron="0 3 * * *")
    assert made.cron == "0 3 * * *"
    assert one.ask("pause_schedule", "night ly/ü").status == "paused"
    assert one.ask("resume_schedule", "night ly/ü").status == "on"
    assert one.ask("trigger", "night ly/ü").name == "noop"
    assert one.ask("schedule", "night ly/ü").task == "noop"
    one.ask("remove_schedule", "night ly/ü")
    with pytest.raises(NotFound):
        one.ask("schedule", "night ly/ü")


def test_every_route_of_the_api_has_a_call(stand: Stand) -> None:
    document = stand.console.client().get("/openapi.json").json()
    found = set()

    def note(request: Request) -> None:
        found.add((request.method, request.path))

    from taskmill.console.client import calls, more_calls

    note(calls.changes())
    for made in (
        calls.me(), calls.enqueue("x"), calls.enqueue_many([{"name": "x"}]), calls.task("ID"),
        calls.tasks(), calls.result("ID"), calls.cancel("ID"), calls.run_again("ID"),
        more_calls.queues(), more_calls.pause("Q"), more_calls.resume("Q"), more_calls.workers(),
        more_calls.overview(), more_calls.letters(), more_calls.letter("Q", 1, 2),
        more_calls.letter_groups(), more_calls.replay(), more_calls.replays(),
        more_calls.replay_status("ID"), more_calls.schedules(), more_calls.schedule("ID"),
        more_calls.put_schedule("ID", "x"), more_calls.remove_schedule("ID"),
        more_calls.trigger("ID"), more_calls.pause_schedule("ID"),
        more_calls.resume_schedule("ID"),
    ):  # fmt: skip
        note(made.request)
    offered = {
        (method.upper(), path.removeprefix("/api/v1"))
        for path, methods in document["paths"].items()
        for method in methods
        if path.startswith("/api/v1")
    }
    fill = {"{id}": "ID", "{queue}": "Q", "{partition}": "1", "{offset}": "2"}

    def filled(path: str) -> str:
        for name, value in fill.items():
            path = path.replace(name, value)
        return path

    assert {(method, filled(path)) for method, path in offered} == found


@pytest.mark.parametrize("way", WAYS)
def test_a_console_that_is_killed_and_comes_back_is_waited_for(
    stand: Stand, tmp_path: Path, way: str
) -> None:
    port = quiet_port()
    settings = stand.settings.model_copy(update={"state_dir": tmp_path / "state"})
    token = secret(settings, "enqueue", "read")
    url = f"http://127.0.0.1:{port}"

    def console() -> ConsoleProcess:
        return ConsoleProcess(settings, tmp_path, "--port", str(port))

    with Asking(way, url, token, timeout_s=60) as asking:
        with console() as first:
            first.wait_until_ready()
            eventually(lambda: _knows(asking))
            asking.ask("enqueue", "add", {"a": 1})
        # Gone. What is asked now is answered by the next one.
        started: list[ConsoleProcess] = []
        later = threading.Timer(1.0, lambda: started.append(console()))
        later.start()
        try:
            told = eventually(lambda: _enqueued(asking), 60)
            assert asking.ask("ended", told, timeout_s=60).result == 3
        finally:
            later.join()
            for process in started:
                process.__exit__(None, None, None)


def _enqueued(asking: Asking) -> str | None:
    try:
        return str(asking.ask("enqueue", "add", {"a": 1, "b": 2}).id)
    except NotAllowed:  # it has not read the tokens yet
        return None


# ---- commands -----------------------------------------------------------------------------------


@pytest.fixture
def by_console(
    stand: Stand, admin: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> dict[str, str]:
    """Commands reach the console, and no Kafka."""
    env = {
        "TASKMILL_API_URL": stand.console.url,
        "TASKMILL_API_TOKEN": admin,
        "TASKMILL_BOOTSTRAP_SERVERS": f"127.0.0.1:{quiet_port()}",
        "TASKMILL_STATE_DIR": str(tmp_path / "elsewhere"),
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env


def test_commands_ask_the_console_alone(
    one: Asking, by_console: dict[str, str], command: Command
) -> None:
    id = one.ask("enqueue", "add", {"a": 20, "b": 3}).id
    waited = command("result", id, "--wait", "20s")
    assert (waited.code, json.loads(waited.out)) == (0, 23)
    status = command("status", id, "--json").json
    assert (status["status"], status["result"], status["attempt"]) == ("succeeded", 23, 1)
    assert status["finished_at"].endswith("Z")
    listed = command("tasks", "--status", "succeeded", "--since", "1h", "--json").json
    assert id in [task["id"] for task in listed["tasks"]]
    assert set(listed["tasks"][0]) - {"parent_id", "lock_key", "updated_at"} <= set(status)
    assert command("status", "nobody").code == 1
    assert command("cancel", id).code == 0

    nap = one.ask("enqueue", "nap", {"ms": 60_000}).id
    cancelled = command("cancel", nap, "--wait", "--json")
    assert (cancelled.code, cancelled.json["cancelled"]) == (0, True)


def test_nobody_there_is_exit_code_3_and_no_token_2(
    by_console: dict[str, str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKMILL_API_TOKEN", "tm_no_such")
    for arguments in (("status", "a"), ("tasks",), ("top", "--json")):
        ran = command(*arguments)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1), ran.err
    monkeypatch.setenv("TASKMILL_API_URL", f"http://127.0.0.1:{quiet_port()}")
    monkeypatch.setattr("taskmill.cli.top._ANSWER_S", 0.5)
    monkeypatch.setattr("taskmill.console.client.handles.ANSWER_S", 0.5)
    for arguments in (("status", "a"), ("top", "--json")):
        ran = command(*arguments)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (3, "", 1), ran.err


def test_top_shows_the_real_thing(by_console: dict[str, str], tmp_path: Path) -> None:
    with Terminal(taskmill("top"), tmp_path, by_console, (120, 30)) as terminal:
        terminal.wait_for("default")
        terminal.type("q")
        assert terminal.wait() == 0
    assert terminal.modes == terminal.before
