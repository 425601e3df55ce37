"""The API's tasks: enqueued after Kafka's word, looked up, waited for, cancelled, run again."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
import pytest

from support.consoles import Stand, ended, eventually, quoted
from support.scraped import Scraped

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

#: What a path has to encode, and an ID may be all the same.
AWKWARD = ("a/b", "what?", "50%", "a/b/result", "ü ñ", "%2F", "a+b&c=d#e", "/", "x/../y")


@pytest.fixture
def admin(stand: Stand) -> httpx.Client:
    return stand.console.client("admin")


def enqueue(client: httpx.Client, name: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/tasks", json={"name": name, "args": args, **more})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def test_a_task_is_enqueued_run_and_shown(admin: httpx.Client) -> None:
    answer = admin.post("/api/v1/tasks", json={"name": "add", "args": {"a": 2, "b": 3}})
    assert answer.status_code == 202
    told = answer.json()
    assert told["duplicate"] is False
    assert ended(admin, told["id"])["result"] == 5
    shown = admin.get(answer.headers["location"]).json()
    assert (shown["status"], shown["args"], shown["result"]) == ("succeeded", {"a": 2, "b": 3}, 5)
    listed = admin.get("/api/v1/tasks", params={"prefix": told["id"]}).json()["tasks"]
    assert [one["id"] for one in listed] == [told["id"]]


@pytest.mark.parametrize("id", AWKWARD)
def test_any_id_works_in_paths(admin: httpx.Client, id: str) -> None:
    enqueue(admin, "echo", {"value": id}, id=id)
    assert ended(admin, id)["result"] == id
    assert admin.get(f"/api/v1/tasks/{quoted(id)}").json()["id"] == id
    assert admin.post(f"/api/v1/tasks/{quoted(id)}/cancel").status_code == 409


def test_an_id_that_the_store_holds_is_a_duplicate_and_nothing_is_produced(
    admin: httpx.Client,
) -> None:
    enqueue(admin, "add", {"a": 1}, id="once")
    ended(admin, "once")
    again = admin.post("/api/v1/tasks", json={"name": "add", "args": {"a": 7}, "id": "once"})
    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    assert ended(admin, "once")["result"] == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a\nb"),
        ("args", [1]),
        ("args", {"x": float("inf")}),
        ("id", ""),
        ("id", "ü" * 300),
        ("queue", "no such queue"),
        ("queue", "never-made"),
        ("delay", "soon"),
        ("at", "2027-01-31T08:00"),
        ("timeout", "0s"),
        ("expires", "1"),
        ("deadline", "-1s"),
        ("max_attempts", 0),
        ("headers", {"a": 1}),
        ("priority", "high"),
        ("lock", "customer:7"),
        ("unknown", 1),
    ],
)
def test_what_is_wrong_is_named(admin: httpx.Client, field: str, value: Any) -> None:
    body = {"name": "add", "args": {"a": 1}, field: value}
    text = json_text(body)
    answer = admin.post("/api/v1/tasks", content=text, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if answer.status_code == 422:
        assert answer.json()["errors"][0]["field"].split(".")[0] == field


def json_text(body: Any) -> str:
    import json

    return json.dumps(body)


def test_delay_and_at_do_not_go_together(admin: httpx.Client) -> None:
    body = {"name": "add", "args": {}, "delay": "1s", "at": "2027-01-31T08:00Z"}
    answer = admin.post("/api/v1/tasks", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "at")


def test_a_batch_of_all_sends_nothing_where_one_is_wrong(admin: httpx.Client) -> None:
    tasks = [{"name": "add", "args": {"a": 1}, "id": f"all-{n}"} for n in range(3)]
    wrong = [*tasks, {"name": "add", "args": {}, "delay": "x"}]
    answer = admin.post("/api/v1/tasks:batch", json={"tasks": wrong})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "tasks.3.delay"
    answer = admin.post("/api/v1/tasks:batch", json={"tasks": tasks})
    assert answer.json()["accepted"] == 3
    assert [ended(admin, f"all-{n}")["result"] for n in range(3)] == [2, 2, 2]
    again = admin.post("/api/v1/tasks:batch", json={"tasks": tasks})
    assert (again.json()["accepted"], again.json()["duplicates"]) == (0, 3)


def test_a_batch_of_each_answers_each(admin: httpx.Client) -> None:
    tasks: list[Any] = [{"name": "add", "args": {"a": 1}}, {"name": ""}, 7, {"name": "add", "x": 1}]
    answer = admin.post("/api/v1/tasks:batch", json={"tasks": tasks, "mode": "each"})
    told = answer.json()
    assert answer.status_code == 202
    assert [one["status"] for one in told["tasks"]] == [202, 422, 422, 422]
    assert told["tasks"][3]["problem"]["errors"][0]["field"] == "x"
    assert ended(admin, told["tasks"][0]["id"])["result"] == 2


def test_a_result_is_waited_for_and_comes_at_once(admin: httpx.Client) -> None:
    enqueue(admin, "nap", {"ms": 700}, id="sleeper")
    began = time.monotonic()
    answer = admin.get("/api/v1/tasks/sleeper/result", params={"wait": "30s"})
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    assert time.monotonic() - began < 20


def test_many_wait_without_a_thread_each(stand: Stand, admin: httpx.Client) -> None:
    headers = dict(admin.headers)
    answers: list[int] = []

    def wait(n: int) -> None:
        with httpx.Client(base_url=stand.console.url, headers=headers, timeout=60) as one:
            path = f"/api/v1/tasks/many-{n}/result"
            answers.append(one.get(path, params={"wait": "40s"}).status_code)

    threads = [threading.Thread(target=wait, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    # They wait for what is not there yet; others are served meanwhile.
    assert admin.get("/api/v1/me").status_code == 200
    tasks = [{"name": "add", "args": {"a": 1}, "id": f"many-{n}"} for n in range(40)]
    admin.post("/api/v1/tasks:batch", json={"tasks": tasks})
    for thread in threads:
        thread.join(60)
    assert answers == [200] * 40


def test_what_has_not_ended_is_202_and_can_be_cancelled(admin: httpx.Client) -> None:
    enqueue(admin, "add", {"a": 1}, id="later", delay="1h")
    eventually(lambda: admin.get("/api/v1/tasks/later").json().get("status") == "scheduled")
    answer = admin.get("/api/v1/tasks/later/result", params={"wait": "10ms"})
    assert (answer.status_code, answer.json()["status"]) == (202, "scheduled")
    assert admin.post("/api/v1/tasks/later/run").status_code == 409
    assert admin.post("/api/v1/tasks/later/cancel").status_code == 202
    assert ended(admin, "later")["status"] == "cancelled"


def test_a_large_result_comes_from_the_store(admin: httpx.Client) -> None:
    enqueue(admin, "large", {"size": 200_000}, id="large")
    assert len(ended(admin, "large")["result"]) == 200_000


def test_an_unknown_task_may_be_too_old_and_the_answer_says_so(admin: httpx.Client) -> None:
    answer = admin.get("/api/v1/tasks/who-knows")
    assert answer.status_code == 404
    assert "too old" in answer.json()["detail"]
    old = admin.get("/api/v1/tasks/01800000-0000-7000-8000-000000000000")
    assert "may be too old" in old.json()["detail"]


def test_a_failed_task_is_run_again(stand: Stand, admin: httpx.Client) -> None:
    enqueue(admin, "brittle", {}, id="broken")
    assert ended(admin, "broken")["status"] == "dead"
    (stand.folder / "mended").touch()
    answer = admin.post("/api/v1/tasks/broken/run")
    assert (answer.status_code, answer.json().get("generation")) == (202, 1), answer.text
    eventually(lambda: ended(admin, "broken")["status"] == "succeeded")
    shown = admin.get("/api/v1/tasks/broken").json()
    assert (shown["generation"], shown["result"]) == (1, 1)
    assert [one["status"] for one in shown["attempts"]] == ["dead"]


def test_what_is_enqueued_over_http_is_counted(stand: Stand, admin: httpx.Client) -> None:
    page = Scraped(stand.console.url.rpartition(":")[2])
    name = "taskmill_tasks_enqueued_total"
    enqueue(admin, "counted", {})
    tasks = [{"name": "counted"}, {"name": "counted"}, {"name": ""}]
    admin.post("/api/v1/tasks:batch", json={"mode": "each", "tasks": tasks})
    enqueue(admin, "add", {"a": 1}, id="counted")
    ended(admin, "counted")
    assert admin.post("/api/v1/tasks", json={"name": "counted", "id": "counted"}).json()[
        "duplicate"
    ]
    schedule = {"task": "counted", "every": "1h"}
    admin.put("/api/v1/schedules/counted", json=schedule)
    assert admin.post("/api/v1/schedules/counted/trigger").status_code == 202
    assert page.fetch().total(name, queue="default", task="counted") == 4
    assert page.total("taskmill_console_requests_total", route="/tasks") > 0


def test_an_id_that_is_not_known_is_cancelled_where_that_is_meant(admin: httpx.Client) -> None:
    assert admin.post("/api/v1/tasks/unseen/cancel").status_code == 404
    assert admin.post("/api/v1/tasks/unseen/cancel?unseen=maybe").status_code == 400
    answer = admin.post("/api/v1/tasks/unseen/cancel?unseen=true")
    assert (answer.status_code, answer.json()["status"]) == (202, None)
    assert ended(admin, "unseen")["status"] == "cancelled"
    later = admin.post("/api/v1/tasks", json={"name": "add", "args": {"a": 1}, "id": "unseen"})
    assert (later.status_code, later.json()["duplicate"]) == (200, True)
    nowhere = admin.post("/api/v1/tasks/unseen/cancel?unseen=true&queue=nowhere")
    assert nowhere.status_code == 404
    assert "no queue 'nowhere'" in nowhere.json()["detail"]
