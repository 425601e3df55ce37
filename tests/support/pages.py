"""The dashboard in a real Chromium: tabs that are logged in, and hear of all that must not be."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Page, Request, expect, sync_playwright

from support.consoles import Stand, ended, eventually, quoted
from support.workers import Gate, WorkerProcess
from taskmill.console.tokens import TokenTable

#: A page looks again every few seconds, on a machine with other things to do.
PATIENCE_MS = 20_000
#: What the browser itself logs of an answer that is no 2xx.
FAILED_LOAD = re.compile(r"Failed to load resource")


class Stage(Stand):
    """A console, a worker whose handlers wait at a gate, and a scheduler."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.gate = Gate()
        with patch.dict(os.environ, self.gate.env):
            super().__init__(bootstrap, folder)
        self.scheduler = WorkerProcess(self.settings, folder, role="scheduler", target="")

    def __enter__(self) -> Self:
        super().__enter__()
        self.admin = self.console.client("admin")
        return self

    def __exit__(self, *error: Any) -> None:
        self.gate.close()
        self.scheduler.__exit__(*error)
        super().__exit__(*error)

    def token(self, *scopes: str, queues: list[str] | None = None) -> str:
        """A new token's secret, once the console knows it."""
        client = self.console.client(*scopes, queues=queues)
        return client.headers["Authorization"].removeprefix("Bearer ")

    def revoke(self, secret: str) -> None:
        TokenTable(self.settings).revoke(secret.split("_")[1])

    def enqueue(self, name: str, id: str, **args: Any) -> str:
        answer = self.admin.post("/api/v1/tasks", json={"name": name, "id": id, "args": args})
        assert answer.is_success, answer.text
        return id

    def hold(self, id: str) -> None:
        """Have a task run, and known to run, until the gate lets it go."""
        self.enqueue("gated", id)
        self.gate.wait_begun(id)

        def is_told() -> bool:
            # That it runs is written with the next outcome of anything, once it is a second old.
            ended(self.admin, self.enqueue("noop", f"beside-{id}-{uuid.uuid4().hex[:8]}"))
            return bool(self.admin.get(f"/api/v1/tasks/{quoted(id)}").json()["status"] == "running")

        eventually(is_told)


class Chromium:
    """One browser; each tab is of a context of its own. A context manager."""

    def __init__(self) -> None:
        found = shutil.which("chromium") or shutil.which("chromium-browser")
        assert found, "apt-get install chromium"
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        expect.set_options(timeout=PATIENCE_MS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._playwright.stop()

    @contextmanager
    def tab(self, url: str, *, width: int = 1280, scheme: Any = "light") -> Iterator[Tab]:
        """A blank tab for the console at `url`; in the end nothing may have gone wrong in it."""
        context = self._browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme
        )
        context.set_default_timeout(PATIENCE_MS)
        tab = Tab(context.new_page(), url)
        try:
            yield tab
            assert not tab.faults, "\n".join(tab.faults)
        finally:
            context.close()


class Tab:
    """A page, and what was wrong with it: errors it logged or threw, among them violations of the
    policy; requests elsewhere."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.faults: list[str] = []
        #: Answers that are no 2xx are what a test is about.
        self.may_fail = False
        page.on("console", self._logged)
        page.on("pageerror", lambda error: self.faults.append(f"thrown: {error}"))
        page.on("request", self._asked)

    def _logged(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        if not (self.may_fail and FAILED_LOAD.match(message.text)):
            self.faults.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        asked, own = urlsplit(request.url), urlsplit(self.url)
        if (asked.scheme, asked.netloc) != (own.scheme, own.netloc):
            self.faults.append(f"asked {request.url}")

    def log_in(self, secret: str, place: str = "#/") -> Page:
        """Open the page with a token in its address, and go to `place`."""
        self.page.goto(f"{self.url}/#token={secret}")
        expect(self.page.get_by_role("navigation")).to_be_visible()
        return self.go(place)

    def go(self, place: str) -> Page:
        """Go to an address of the page and wait until it is filled."""
        self.page.evaluate("place => { location.hash = place; }", place)
        expect(self.page.locator("main[aria-busy=false] .body")).to_be_visible()
        return self.page

    def row(self, text: str) -> Any:
        """The row of a table that holds `text`."""
        return self.page.locator("tbody tr").filter(has_text=text)
