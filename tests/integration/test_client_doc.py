"""docs/client.md says what is so: each of its blocks is run against a real console."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from support.consoles import Stand, eventually
from taskmill.console.client import Client
from taskmill.console.client.surface import Calls
from taskmill.console.tokens import TokenTable
from taskmill.runtime.errors import NotAllowed

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "client.md").read_text(encoding="utf-8")


def test_each_block_runs(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    _, token = TokenTable(stand.settings).create(["enqueue", "read"], queues=None, by="test")
    with Client(stand.console.url, token) as client:
        eventually(lambda: _counts(client))
        ended = threading.Event()

        def work() -> None:
            # For the block that waits for a change: others may enqueue at any time.
            while not ended.wait(0.2):
                client.enqueue("noop")

        others = threading.Thread(target=work)
        others.start()
        names: dict[str, Any] = {"token": token}
        try:
            blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
            for number, block in enumerate(blocks, start=1):
                text = block.replace("http://127.0.0.1:8420", stand.console.url)
                exec(compile(text, f"docs/client.md, block {number}", "exec"), names)
        finally:
            ended.set()
            others.join()
    assert len(blocks) == 3
    assert "succeeded 5" in capsys.readouterr().out


def _counts(client: Client) -> bool:
    try:
        return client.me() is not None
    except NotAllowed:
        return False


def test_it_names_every_call() -> None:
    table = PAGE.split("| about | calls |")[1].split("\n\n")[0]
    offered = {name for name in vars(Calls) if not name.startswith("_")} | {"stream"}
    assert set(re.findall(r"`(\w+)`", table)) == offered
