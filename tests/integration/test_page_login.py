"""The dashboard's door: who is let in, what a token may not do, and what is said of it."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import expect

from support.pages import Chromium, Stage, Tab

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


def kept(tab: Tab) -> str | None:
    """The token that the tab keeps."""
    found: str | None = tab.page.evaluate("sessionStorage.getItem('taskmill.token')")
    return found


def test_a_token_is_pasted_and_a_wrong_one_is_told_of(stage: Stage, tab: Tab) -> None:
    tab.may_fail = True
    page = tab.page
    page.goto(tab.url)
    field = page.get_by_label("Token")
    expect(field).to_be_focused()
    field.fill("nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("unknown, expired or revoked")
    assert kept(tab) is None
    secret = stage.token("read")
    field.fill(secret)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    assert kept(tab) == secret
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_focused()
    assert kept(tab) is None


def test_a_token_in_the_address_is_gone_from_it_at_once(stage: Stage, tab: Tab) -> None:
    secret = stage.token("read")
    page = tab.log_in(secret, "#/queues")
    assert secret not in page.url
    assert kept(tab) == secret
    page.reload()
    expect(page.get_by_role("heading", name="Queues")).to_be_visible()
    page.goto(f"{tab.url}/#token={secret}&next=%2Fworkers")
    expect(page.get_by_role("heading", name="Workers")).to_be_visible()
    assert secret not in page.url
    page.go_back()
    assert secret not in page.url, "nor is it in the browser's history"


def test_a_revoked_token_leads_back_to_the_door(stage: Stage, tab: Tab) -> None:
    tab.may_fail = True
    secret = stage.token("read")
    page = tab.log_in(secret, "#/queues")
    stage.revoke(secret)
    expect(page.get_by_role("alert")).to_contain_text("You were logged out")
    assert kept(tab) is None
    page.get_by_label("Token").fill(stage.token("read"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Queues")).to_be_visible()


def test_what_a_token_may_not_do_is_disabled_and_says_why(stage: Stage, tab: Tab) -> None:
    stage.enqueue("fails", "no-act", message="for good")
    page = tab.log_in(stage.token("read"), "#/queues")
    pause = page.get_by_role("button", name="Pause default")
    expect(pause).to_be_disabled()
    expect(pause).to_have_attribute("title", re.compile("has not the scope “operate”"))
    # It is reached all the same, and says it to who presses it.
    pause.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#notices")).to_contain_text("has not the scope “operate”")
    tab.go("#/tasks/default/no-act")
    expect(page.get_by_role("button", name="Run again…")).to_be_disabled()
    tab.go("#/schedules?new=true")
    expect(page.get_by_role("button", name="Make it")).to_be_disabled()


def test_a_token_of_another_queue_sees_none_of_this_one(stage: Stage, tab: Tab) -> None:
    tab.may_fail = True
    stage.enqueue("noop", "not-yours")
    page = tab.log_in(stage.token("operate", queues=["other"]), "#/tasks")
    expect(page.get_by_text("No task has come yet")).to_be_visible()
    page.evaluate("location.hash = '#/tasks/default/not-yours'")
    expect(page.get_by_role("alert")).to_contain_text("does not hold for queue 'default'")


def test_the_page_is_served_under_a_strict_policy(stage: Stage) -> None:
    for path in ("/", "/js/main.js", "/css/base.css"):
        answer = httpx.get(stage.console.url + path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        for part in ("default-src 'self'", "script-src 'self'", "style-src 'self'"):
            assert part in policy
    text = httpx.get(stage.console.url).text
    assert not re.search(r"<script(?! type=\"module\" src=)|<style| style=| on\w+=", text)
    assert httpx.get(f"{stage.console.url}/js/../../store.db").status_code == 404


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_colours_are_the_systems_until_they_are_chosen(
    stage: Stage, chromium: Chromium, system: str
) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light, dark = "rgb(244, 245, 246)", "rgb(16, 20, 24)"
    with chromium.tab(stage.console.url, scheme=system) as tab:
        page = tab.log_in(stage.token("read"))
        assert page.evaluate(ground) == {"light": light, "dark": dark}[system]
        page.get_by_role("button", name="Colours: as the system").click()
        expect(page.get_by_role("button", name="Colours: light")).to_be_visible()
        assert page.evaluate(ground) == light
        page.get_by_role("button", name="Colours: light").click()
        assert page.evaluate(ground) == dark
        page.reload()
        expect(page.get_by_role("button", name="Colours: dark")).to_be_visible()
        assert page.evaluate(ground) == dark
