"""The dashboard's other pages: dead letters, schedules, queues, workers, and what each can do."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from support.consoles import ended, eventually
from support.pages import Stage, Tab

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def secret(stage: Stage) -> str:
    return stage.token("operate")


def die(stage: Stage, *ids: str, kind: str) -> None:
    for id in ids:
        stage.enqueue("brittle", id, kind=kind)
    for id in ids:
        assert ended(stage.admin, id)["status"] == "dead"
    eventually(lambda: all(stage.admin.get(f"/api/v1/dlq?id={id}").json()["letters"] for id in ids))


def confirm(page: Page, title: str, button: str) -> Locator:
    """Press the button of the dialog, which says what will happen."""
    dialog = page.get_by_role("dialog", name=title)
    dialog.get_by_role("button", name=button).click()
    return dialog


def test_letters_stand_in_groups_are_looked_at_and_put_back(
    stage: Stage, tab: Tab, secret: str
) -> None:
    die(stage, "dead:1", "dead:2", "dead:3", kind="key")
    die(stage, "dead:4", kind="type")
    page = tab.log_in(secret, "#/letters")
    group = tab.row("KeyError")
    expect(group.locator("td").nth(1)).to_have_text("3")
    expect(tab.row("TypeError").locator("td").nth(1)).to_have_text("1")
    page.get_by_label("Error holds").fill("keyerror")
    expect(page.locator("tbody tr")).to_have_count(1)
    group.get_by_role("link").click()
    expect(page.locator("tbody tr")).to_have_count(3)
    tab.row("dead:2").get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Dead letter default/")
    expect(page.get_by_role("region", name="Arguments")).to_contain_text('"kind": "key"')
    expect(page.get_by_role("region", name="Stack")).to_contain_text("KeyError")
    (stage.folder / "mended").touch()
    page.go_back()
    page.get_by_role("button", name="Replay all of them…").click()
    dialog = page.get_by_role("dialog", name="Replay dead letters")
    expect(dialog).to_contain_text("3 tasks go back to queue default")
    dialog.get_by_label("At most").fill("2")
    page.keyboard.press("Tab")
    expect(dialog).to_contain_text("2 tasks go back to queue default")
    expect(dialog).to_contain_text("3 letters would match without the limit.")
    dialog.get_by_role("button", name="Replay 2 letters").click()
    expect(page.locator(".replays")).to_contain_text("2 of 2 put back")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("replayed ones too").check()
    expect(page.locator("tbody tr")).to_have_count(3)
    (stage.folder / "mended").unlink()


def test_one_letter_is_put_back_alone(stage: Stage, tab: Tab, secret: str) -> None:
    die(stage, "alone:1", "alone:2", kind="")
    page = tab.log_in(secret, "#/letters?one=true&error=broken")
    (stage.folder / "mended").touch()
    tab.row("alone:1").get_by_role("link").click()
    page.get_by_role("button", name="Replay…").click()
    confirm(page, "Replay dead letters", "Replay 1 letter")
    expect(page.locator(".replays")).to_contain_text("1 of 1 put back")
    assert eventually(lambda: ended(stage.admin, "alone:1")["status"] == "succeeded")
    assert ended(stage.admin, "alone:2")["status"] == "dead"
    page.reload()
    expect(page.get_by_role("button", name="Replay…")).to_be_disabled()


def test_a_group_is_put_back_without_others_that_failed_equally(
    stage: Stage, tab: Tab, secret: str
) -> None:
    for name in ("nobody-a", "nobody-b"):
        stage.enqueue(name, name)
        assert ended(stage.admin, name)["status"] == "dead"

    def groups() -> list[dict[str, Any]]:
        return list(stage.admin.get("/api/v1/dlq/groups?reason=unknown_task").json()["groups"])

    eventually(lambda: len(groups()) == 2)
    assert len({one["fingerprint"] for one in groups()}) == 1
    tab.log_in(secret, "#/letters?reason=unknown_task&error=nobody")
    tab.row("nobody-a").get_by_role("button", name="Replay…").click()
    dialog = tab.page.get_by_role("dialog", name="Replay dead letters")
    expect(dialog).to_contain_text("1 task goes back to queue default")
    dialog.get_by_role("button", name="Leave them").click()


def test_a_schedule_is_made_changed_paused_triggered_and_removed(
    stage: Stage, tab: Tab, secret: str
) -> None:
    tab.may_fail = True
    page = tab.log_in(secret, "#/schedules")
    expect(page.get_by_role("heading", name="No schedules")).to_be_visible()
    page.get_by_role("button", name="New schedule").click()
    page.get_by_label("ID", exact=True).fill("nightly")
    page.get_by_label("Task", exact=True).fill("echo")
    page.get_by_label("Arguments").fill('{"value": ')
    page.get_by_label("Cron line", exact=True).fill("61 3 * * *")
    page.keyboard.press("Enter")
    expect(page.locator("#schedule-args-says")).to_contain_text("is no JSON")
    page.get_by_label("Arguments").fill('{"value": 7}')
    page.get_by_role("button", name="Make it").click()
    expect(page.locator("#schedule-cron-says")).to_contain_text("61")
    expect(page.get_by_label("Cron line", exact=True)).to_have_value("61 3 * * *")
    page.get_by_label("Cron line", exact=True).fill("0 3 * * *")
    page.get_by_label("Time zone").fill("Europe/Paris")
    page.get_by_role("button", name="Make it").click()
    row = tab.row("nightly")
    expect(row).to_contain_text("0 3 * * *")
    expect(row).to_contain_text("Europe/Paris")

    row.get_by_role("button", name="Pause nightly").click()
    expect(row).to_contain_text("paused")
    row.get_by_role("button", name="Resume nightly").click()
    expect(row.get_by_text("on", exact=True)).to_be_visible()

    row.get_by_role("button", name="Run nightly now").click()
    confirm(page, "Run it now?", "Run it now")
    expect(page.locator("#notices")).to_contain_text("Enqueued as schedule:nightly@")

    row.get_by_role("link").first.click()
    expect(page.locator(".next li")).to_have_count(5)
    page.get_by_label("at an interval").check()
    page.get_by_label("Every", exact=True).fill("6h")
    page.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("every 6h")

    row.get_by_role("button", name="Delete nightly").click()
    dialog = confirm(page, "Delete this schedule?", "Delete the schedule")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("heading", name="No schedules")).to_be_visible()
    assert stage.admin.get("/api/v1/schedules/nightly").status_code == 404


def test_a_queue_is_paused_and_resumed(stage: Stage, tab: Tab, secret: str) -> None:
    page = tab.log_in(secret, "#/queues")
    row = tab.row("default")
    expect(row).to_contain_text("open")
    row.get_by_role("button", name="Pause default").click()
    expect(page.get_by_role("dialog")).to_contain_text("until it is resumed")
    confirm(page, "Pause this queue?", "Pause the queue")
    expect(row).to_contain_text("paused")
    row.get_by_role("button", name="Resume default").click()
    expect(row).to_contain_text("open")
    stage.enqueue("noop", "after-the-pause")
    assert ended(stage.admin, "after-the-pause")["status"] == "succeeded"


def test_a_worker_is_shown_with_what_it_holds_and_is_at(
    stage: Stage, tab: Tab, secret: str
) -> None:
    stage.hold("held:1")
    page = tab.log_in(secret, "#/workers")
    row = page.locator("tbody tr").first
    expect(row).to_contain_text("0–1 2 of 2")
    expect(row.get_by_role("link", name="held:1")).to_be_visible()
    stage.gate.let("held:1")
    expect(row).to_contain_text("nothing long")


def test_the_overview_counts_what_ended(stage: Stage, tab: Tab, secret: str) -> None:
    for n in range(4):
        stage.enqueue("echo", f"glance:{n}", value=n)
        ended(stage.admin, f"glance:{n}")
    stage.enqueue("fails", "glance:bad", message="counted")
    ended(stage.admin, "glance:bad")
    page = tab.log_in(secret)
    row = page.get_by_role("region", name="By task").locator("tr").filter(has_text="echo")
    expect(row).to_contain_text("100 %")
    expect(page.get_by_role("region", name="Latest failures")).to_contain_text("glance:bad")
    # The arrow keys read a chart minute by minute.
    chart = page.get_by_role("group", name="Attempts that ended, a minute")
    chart.focus()
    page.keyboard.press("End")
    readout = page.locator("figure").filter(has=chart).locator(".readout")
    expect(readout).to_contain_text("UTC")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("figure").filter(has=chart).locator(".cursor")).to_have_count(1)
    page.get_by_role("list", name="Tasks by status").get_by_role("link", name="dead").click()
    expect(tab.row("glance:bad")).to_be_visible()
