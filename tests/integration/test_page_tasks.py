"""The dashboard's tasks: found, followed as they change, looked at, cancelled and run again."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from support.consoles import ended
from support.pages import Stage, Tab

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

#: Of those that ended and those that are open.
AWKWARD = "a/b?c=50%#ü <b>&amp;"


@pytest.fixture(scope="module")
def secret(stage: Stage) -> str:
    return stage.token("operate")


def test_tasks_are_filtered_and_searched_and_the_address_says_how(
    stage: Stage, tab: Tab, secret: str
) -> None:
    for n in range(3):
        stage.enqueue("echo", f"find:{n}", value=n)
    stage.enqueue("fails", "find:bad", message="no such luck")
    ended(stage.admin, "find:2")
    ended(stage.admin, "find:bad")
    page = tab.log_in(secret, "#/tasks")
    page.keyboard.press("/")
    expect(page.get_by_label("ID begins with")).to_be_focused()
    page.keyboard.type("find:")
    expect(page).to_have_url(re.compile(r"#/tasks\?prefix=find%3A$"))
    expect(page.locator("tbody tr")).to_have_count(4)
    expect(tab.row("find:bad")).to_contain_text("ValueError: no such luck")
    page.get_by_role("checkbox", name="dead").check()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page).to_have_url(re.compile(r"#/tasks\?prefix=find%3A&status=dead$"))
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("checkbox", name="dead").uncheck()
    page.get_by_label("Task", exact=True).fill("echo")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_label("ID begins with").fill("nothing like it")
    expect(page.get_by_role("heading", name="No task is so")).to_be_visible()
    page.get_by_role("link", name="Show all tasks").click()
    expect(tab.row("find:bad")).to_be_visible()


def test_pages_follow_each_other_by_a_cursor(stage: Stage, tab: Tab, secret: str) -> None:
    tasks = [{"name": "echo", "id": f"many:{n:03}", "args": {"value": n}} for n in range(70)]
    assert stage.admin.post("/api/v1/tasks:batch", json={"tasks": tasks}).is_success
    for n in range(70):
        ended(stage.admin, f"many:{n:03}")
    page = tab.log_in(secret, "#/tasks?prefix=many%3A")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(50)
    first = set(rows.locator("a").all_inner_texts())
    page.get_by_role("link", name="Older").click()
    expect(rows).to_have_count(20)
    assert not first & set(rows.locator("a").all_inner_texts())
    page.get_by_role("link", name="Newest").click()
    expect(rows).to_have_count(50)
    page.go_back()
    expect(rows).to_have_count(20)


def test_rows_change_where_they_stand_and_new_ones_wait_to_be_shown(
    stage: Stage, tab: Tab, secret: str
) -> None:
    stage.enqueue("gated", "live:0")
    stage.gate.wait_begun("live:0")
    page = tab.log_in(secret, "#/tasks?prefix=live%3A")
    expect(tab.row("live:0")).to_contain_text("gated")
    tab.row("live:0").get_by_role("link").focus()
    stage.enqueue("echo", "live:1", value=1)
    new = page.get_by_role("button", name="Show 1 new")
    expect(new).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(1)
    stage.gate.let("live:0")
    expect(tab.row("live:0")).to_contain_text("succeeded")
    expect(tab.row("live:0").get_by_role("link")).to_be_focused()
    page.keyboard.press("n")
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.get_by_role("button", name="Nothing new")).to_be_disabled()


def test_a_task_is_shown_whole_whatever_its_id(stage: Stage, tab: Tab, secret: str) -> None:
    stage.enqueue("echo", AWKWARD, value={"html": "<img src=x onerror=alert(1)>"})
    ended(stage.admin, AWKWARD)
    page = tab.log_in(secret, "#/tasks?prefix=a%2Fb")
    tab.row(AWKWARD).get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Task {AWKWARD}")
    expect(page.get_by_role("region", name="Arguments")).to_contain_text("<img src=x onerror")
    expect(page.get_by_role("region", name="Result")).to_contain_text("<img src=x onerror")
    expect(page.locator(".summary")).to_contain_text("succeeded")
    expect(page.locator("img")).to_have_count(0)


def test_attempts_stand_in_a_timeline_with_what_failed(stage: Stage, tab: Tab, secret: str) -> None:
    stage.enqueue("flaky", "line:1", fails=4)
    assert ended(stage.admin, "line:1")["status"] == "dead"
    page = tab.log_in(secret, "#/tasks/default/line%3A1")
    steps = page.locator(".timeline li")
    expect(steps).to_have_count(5)
    for n in range(1, 4):
        expect(steps.nth(n)).to_contain_text(f"attempt {n}")
        expect(steps.nth(n)).to_contain_text(f"ValueError: attempt {n}")
    expect(steps.nth(4)).to_contain_text("dead")
    expect(page.locator(".failure")).to_contain_text("ValueError")
    expect(page.get_by_role("button", name="Cancel…")).to_be_disabled()
    page.get_by_role("link", name="letters that failed equally").click()
    expect(page.get_by_role("heading", name="Dead letters")).to_be_visible()
    expect(tab.row("line:1")).to_be_visible()


def test_a_running_task_is_cancelled_once_that_is_confirmed(
    stage: Stage, tab: Tab, secret: str
) -> None:
    stage.hold("stop:1")
    page = tab.log_in(secret, "#/tasks?prefix=stop%3A")
    expect(tab.row("stop:1")).to_contain_text("running")
    tab.row("stop:1").get_by_role("link").click()
    page.get_by_role("button", name="Cancel…").click()
    dialog = page.get_by_role("dialog", name="Cancel this task?")
    expect(dialog).to_contain_text("stop:1 (gated) is running")
    expect(dialog.get_by_role("button", name="Leave it")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name="Cancel…")).to_be_focused()
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Cancel the task").click()
    expect(page.locator(".summary")).to_contain_text("cancelled")
    assert ended(stage.admin, "stop:1")["status"] == "cancelled"


def test_a_finished_task_is_run_again_and_what_is_refused_is_said_where_it_was_asked(
    stage: Stage, tab: Tab, secret: str
) -> None:
    stage.enqueue("brittle", "again:1")
    assert ended(stage.admin, "again:1")["status"] == "dead"
    (stage.folder / "mended").touch()
    page = tab.log_in(secret, "#/tasks/default/again%3A1")
    page.get_by_role("button", name="Run again…").click()
    dialog = page.get_by_role("dialog", name="Run this task again?")
    expect(dialog).to_contain_text("as generation 1")
    tab.may_fail = True
    page.route("**/run?queue=default", lambda route: route.fulfill(
        status=409, content_type="application/problem+json",
        json={"title": "No", "status": 409, "detail": "queue 'default' is being replayed"},
    ))  # fmt: skip
    dialog.get_by_role("button", name="Run it again").click()
    expect(dialog.get_by_role("alert")).to_have_text("queue 'default' is being replayed")
    page.unroute_all()
    dialog.get_by_role("button", name="Run it again").click()
    expect(page.locator(".summary")).to_contain_text("succeeded")
    expect(page.locator(".timeline")).to_contain_text("generation 1")


def test_of_a_task_that_is_not_there_it_says_whether_it_may_be_too_old(
    tab: Tab, secret: str
) -> None:
    tab.may_fail = True
    page = tab.log_in(secret)
    page.evaluate("location.hash = '#/tasks/default/never'")
    expect(page.get_by_role("alert")).to_contain_text("no task 'never' in queue 'default'")
    expect(page.get_by_role("alert")).to_contain_text("too old")
