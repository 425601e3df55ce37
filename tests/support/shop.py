"""A shop's App, for a console to have something to show: tasks go well, fail, take time."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from taskmill import App, Context, Reject, Retry

app = App("shop", retry=Retry(max_attempts=3, base="2s", factor=1))


class GatewayTimeout(Exception):
    """The payment gateway is slow."""


@app.task(timeout="30s")
async def send_receipt(ctx: Context, order_id: int, email: str) -> dict[str, Any]:
    await asyncio.sleep(random.uniform(0.01, 0.12))
    return {"message_id": f"msg-{order_id:06}", "sent_to": email, "attempt": ctx.attempt}


@app.task(timeout="1m")
async def resize_image(key: str, width: int = 800) -> dict[str, Any]:
    await asyncio.sleep(random.uniform(0.1, 0.6))
    return {"key": key, "width": width, "bytes": random.randint(40_000, 90_000)}


@app.task(timeout="30s")
async def charge_card(ctx: Context, order_id: int, cents: int) -> dict[str, Any]:
    await asyncio.sleep(random.uniform(0.05, 0.2))
    if order_id % 17 == 0:
        raise GatewayTimeout(f"POST /charges for order {order_id}: no answer within 10 s")
    if order_id % 29 == 0:
        raise Reject(f"card of order {order_id} was declined: insufficient funds")
    return {"charge": f"ch_{order_id:06}", "cents": cents}


@app.task(timeout="10m")
async def export_orders(ctx: Context, day: str) -> dict[str, Any]:
    await asyncio.sleep(600)
    return {"day": day}


@app.task(timeout="5s", retry=Retry(max_attempts=1))
async def sync_inventory(warehouse: str) -> dict[str, Any]:
    await asyncio.sleep(0.02)
    if warehouse == "lyon":
        raise KeyError("stock_level")
    return {"warehouse": warehouse, "changed": random.randint(0, 40)}
