"""The dashboard for everybody: axe-core finds nothing, keys reach all, it says when it is old."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, expect

from support.consoles import ConsoleProcess, ended, eventually
from support.pages import Chromium, Stage, Tab

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def secret(stage: Stage) -> str:
    return stage.token("operate")


@pytest.fixture(scope="module")
def places(stage: Stage) -> list[str]:
    """Every page, with something on it."""
    stage.enqueue("echo", "reach:1", value=[1, {"two": 2}])
    stage.enqueue("flaky", "reach:2", fails=4)
    stage.hold("reach:3")
    schedule = {"task": "echo", "args": {"value": 1}, "cron": "0 3 * * *"}
    assert stage.admin.put("/api/v1/schedules/nightly", json=schedule).is_success
    for id in ("reach:1", "reach:2"):
        ended(stage.admin, id)
    (letter,) = eventually(lambda: stage.admin.get("/api/v1/dlq?id=reach:2").json()["letters"])
    at = f"{letter['queue']}/{letter['partition']}/{letter['offset']}"
    return [
        "#/",
        "#/tasks",
        f"#/tasks/default/{quote('reach:1')}",
        f"#/tasks/default/{quote('reach:2')}",
        "#/letters",
        "#/letters?one=true",
        f"#/letters/{at}",
        "#/schedules",
        "#/schedules/nightly",
        "#/schedules?new=true",
        "#/workers",
        "#/queues",
        "#/tasks?prefix=nothing",
    ]


def violations(page: Page) -> list[str]:
    """What axe-core finds, a line each."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run({resultTypes: ['violations']}).then(one => one.violations)")
    return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}" for one in found]


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_is_cut_off(
    stage: Stage, chromium: Chromium, secret: str, places: list[str], scheme: str, width: int
) -> None:
    with chromium.tab(stage.console.url, width=width, scheme=scheme) as tab:
        tab.page.goto(tab.url)
        expect(tab.page.get_by_label("Token")).to_be_visible()
        assert violations(tab.page) == [], "the door"
        page = tab.log_in(secret)
        for place in places:
            tab.go(place)
            assert violations(page) == [], place
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{place} is {wide} wide"
        for place, button in (("#/queues", "Pause default"), ("#/letters", "Replay…")):
            tab.go(place)
            page.get_by_role("button", name=button).first.click()
            expect(page.get_by_role("dialog").locator(".danger")).to_be_enabled()
            assert violations(page) == [], f"the dialog of {button}"
            page.keyboard.press("Escape")
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
        assert violations(page) == [], "the keys"


def test_every_page_is_reached_by_keys(tab: Tab, secret: str, places: list[str]) -> None:
    page = tab.log_in(secret, places[0])
    for key, name in (
        ("t", "Tasks"),
        ("d", "Dead letters"),
        ("s", "Schedules"),
        ("w", "Workers"),
        ("q", "Queues"),
        ("o", "Overview"),
    ):
        page.keyboard.press("g")
        page.keyboard.press(key)
        heading = page.get_by_role("heading", level=1, name=name)
        expect(heading).to_be_focused()
        assert page.title() == f"{name} · taskmill"
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Dead letters")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.get_by_label("ID begins with")).to_be_focused()
    page.keyboard.press("g")
    page.keyboard.press("t")
    expect(page.get_by_label("ID begins with")).to_have_value("gt")
    page.keyboard.press("Escape")
    page.goto(f"{tab.url}/#/tasks?prefix=reach%3A")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator("tbody tr").nth(1).get_by_role("link")).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Task reach:3")).to_be_visible()


def test_the_skip_link_leads_past_the_header(stage: Stage, tab: Tab, secret: str) -> None:
    page = tab.log_in(secret, "#/queues")
    page.reload()
    expect(page.get_by_role("heading", name="Queues")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    expect(page).to_have_url(f"{tab.url}/#/queues")


def test_a_store_that_is_behind_is_told(tab: Tab, secret: str) -> None:
    tab.may_fail = True
    page = tab.log_in(secret, "#/tasks")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    page.route("**/api/v1/tasks?*", lambda route: route.fulfill(
        status=503, content_type="application/problem+json",
        json={"title": "Something that this needs is away or behind", "status": 503,
              "detail": "the store is behind Kafka (by 31 s)"},
    ))  # fmt: skip
    page.keyboard.press("r")
    expect(page.get_by_text("behind", exact=True)).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("the store is behind Kafka (by 31 s)")
    page.unroute_all()
    expect(page.get_by_text("live", exact=True)).to_be_visible()


def test_a_console_that_is_away_is_told_and_come_back_to(
    stage: Stage, tab: Tab, secret: str
) -> None:
    tab.may_fail = True
    page = tab.log_in(secret, "#/tasks?prefix=away%3A")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    port = urlsplit(stage.console.url).port
    stage.console.kill()
    expect(page.get_by_text("offline", exact=True)).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    with ConsoleProcess(stage.settings, stage.folder, "--port", str(port)) as again:
        again.wait_until_ready()
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)
        # The stream goes on as well, behind what it had told.
        stage.enqueue("echo", "away:1", value=1)
        expect(tab.row("away:1")).to_be_visible()
