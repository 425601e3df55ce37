"""Makes the pictures of docs/dashboard.md: a shop's tasks on a Kafka of its own, seen in Chromium.

    .venv/bin/python docs/images/make.py

The hour before is not waited for: it is written into the store, in the likeness of the minute that
was. The rest is what a console shows of a worker at work.
"""

from __future__ import annotations

import base64
import json
import os
import random
import sqlite3
import struct
import sys
import tempfile
import time
import zlib
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests"))

from playwright.sync_api import Browser, expect, sync_playwright  # noqa: E402

from support.brokers import shared_broker  # noqa: E402
from support.consoles import ConsoleProcess, ended, eventually  # noqa: E402
from support.workers import WorkerProcess  # noqa: E402
from taskmill.runtime.config import Settings  # noqa: E402

SHOP = "support.shop:app"
#: Colours of a picture: enough for flat areas and the edges of letters.
COLOURS = 96
QUANTISE = (HERE / "quantise.js").read_text()
PAGES = {
    "overview": "#/",
    "tasks": "#/tasks",
    "task": "#/tasks/default/charge%3A17",
    "letters": "#/letters",
    "schedules": "#/schedules",
    "workers": "#/workers",
    "queues": "#/queues",
}


def enqueue(client: Any, name: str, id: str | None = None, **args: Any) -> None:
    """One task; an ID of its own where none is given."""
    said = {"name": name, "args": args, **({} if id is None else {"id": id})}
    client.post("/api/v1/tasks", json=said).raise_for_status()


def fill(client: Any, dice: random.Random) -> None:
    """What a shop does in a minute or so."""
    for id, new in (
        ("nightly-export", {"task": "export_orders", "cron": "0 3 * * *", "tz": "Europe/Paris"}),
        ("inventory", {"task": "sync_inventory", "every": "5m", "args": {"warehouse": "turin"}}),
        ("thumbnails", {"task": "resize_image", "every": "1h", "args": {"key": "new.jpg"}}),
    ):
        client.put(f"/api/v1/schedules/{id}", json=new).raise_for_status()
    client.post("/api/v1/schedules/thumbnails/pause").raise_for_status()
    late = {"name": "send_receipt", "id": "receipt:9001", "delay": "2h"}
    late["args"] = {"order_id": 9001, "email": "late@example.org"}
    client.post("/api/v1/tasks", json=late).raise_for_status()
    enqueue(client, "export_orders", "export:2026-11-25", day="2026-11-25")
    for _ in range(3):
        enqueue(client, "sync_inventory", warehouse="lyon")
    for n in range(1, 61):
        kind = "charge_card" if n in (17, 34, 29, 58) else dice.choice(("receipt", "card", "image"))
        if kind == "receipt":
            enqueue(client, "send_receipt", f"receipt:{n}", order_id=n, email=f"u{n}@example.org")
        elif kind == "image":
            enqueue(client, "resize_image", key=f"products/{n}.jpg")
        else:
            enqueue(client, "charge_card", f"charge:{n}", order_id=n, cents=n * 130)
        time.sleep(dice.uniform(0.02, 0.25))
    for n in (17, 34):
        ended(client, f"charge:{n}")


def before(path: Path, dice: random.Random) -> None:
    """The 58 minutes before, in the likeness of those that were."""
    with closing(sqlite3.connect(path, timeout=30)) as store, store:
        names = [row[1] for row in store.execute("PRAGMA table_info(minutes)")]
        counted = [n for n in names if n not in ("queue", "name", "minute", "outcome")]
        sums = ", ".join(f"SUM({name})" for name in counted)
        rows = store.execute(
            f"SELECT queue, name, MIN(minute), outcome, {sums} FROM minutes "
            "GROUP BY queue, name, outcome"
        ).fetchall()
        columns = ("queue", "name", "minute", "outcome", *counted)
        place = ", ".join("?" for _ in columns)
        put = f"INSERT OR IGNORE INTO minutes ({', '.join(columns)}) VALUES ({place})"
        tasks = [row[1] for row in store.execute("PRAGMA table_info(tasks)")]
        like = store.execute("SELECT * FROM tasks WHERE status = 'succeeded' LIMIT 1").fetchone()
        for back in range(1, 59):
            busy = 0.8 + 0.3 * ((back * 7) % 11) / 11 + dice.uniform(-0.15, 0.25)
            for queue, name, minute, outcome, *numbers in rows:
                rare = outcome in ("dead", "retrying") and dice.random() < 0.8
                share = 0 if rare else busy
                store.execute(
                    put, (queue, name, minute - back * 60_000, outcome,
                          *(round(number * share) for number in numbers))
                )  # fmt: skip
            for n in range(round(66 * busy)):
                one = dict(zip(tasks, like, strict=True))
                at = rows[0][2] - back * 60_000 + dice.randrange(60_000)
                one |= {"id": f"receipt:{-back * 1000 - n}", "enqueued_at": at, "changed": 0}
                store.execute(
                    f"INSERT INTO tasks ({', '.join(tasks)}) "
                    f"VALUES ({', '.join('?' for _ in tasks)})",
                    [one[name] for name in tasks],
                )


def picture(browser: Browser, shot: bytes) -> bytes:
    """The same picture with few colours, as a PNG with a palette."""
    page = browser.new_page()
    found = json.loads(page.evaluate(QUANTISE, [base64.b64encode(shot).decode(), COLOURS]))
    page.close()
    width, height = found["width"], found["height"]
    pixels = base64.b64decode(found["pixels"])
    rows = b"".join(b"\0" + pixels[y * width : (y + 1) * width] for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data)
        )  # fmt: skip

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", base64.b64decode(found["palette"]))
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def shoot(browser: Browser, url: str, secret: str) -> None:
    """Every page in both schemes, and each on a narrow screen."""
    for scheme, width, height in (("light", 1280, 800), ("dark", 1280, 800), ("light", 360, 740)):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        page = context.new_page()
        page.goto(f"{url}/#token={secret}")
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        for name, place in PAGES.items():
            page.evaluate("place => { location.hash = place; }", place)
            expect(page.locator("main[aria-busy=false] .body")).to_be_visible()
            page.wait_for_timeout(500)
            suffix = "narrow" if width == 360 else scheme
            path = HERE / f"{name}-{suffix}.png"
            path.write_bytes(picture(browser, page.screenshot()))
            print(path.name, path.stat().st_size)
        context.close()


def main() -> None:
    dice = random.Random(7)
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
    folder = Path(tempfile.mkdtemp(prefix="taskmill-pictures-"))
    os.chdir(folder)
    with ExitStack() as stack:
        settings = Settings(
            bootstrap_servers=stack.enter_context(shared_broker()),
            prefix="shop",
            partitions=4,
            state_dir=folder / "state",
            store_url=f"sqlite:///{folder}/store.db",
        )
        worker = stack.enter_context(WorkerProcess(settings, folder, target=SHOP))
        stack.enter_context(WorkerProcess(settings, folder, target=SHOP, role="scheduler"))
        worker.wait_ready(settings.partitions)
        console = stack.enter_context(ConsoleProcess(settings, folder))
        console.wait_until_ready()
        client = console.client("operate", "enqueue")
        fill(client, dice)
        eventually(lambda: len(client.get("/api/v1/dlq/groups").json()["groups"]) >= 3)
        before(folder / "store.db", dice)
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        shoot(browser, console.url, client.headers["Authorization"].removeprefix("Bearer "))
        browser.close()


if __name__ == "__main__":
    main()
