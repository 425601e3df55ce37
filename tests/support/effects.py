"""The App of the tests of PostgreSQL effects: each handler adds a row, and notes its run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from support import jobs
from support.postgres import Postgres
from taskmill import App, Context
from taskmill.producer.retry import ONCE

EFFECTS = "support.effects:app"

app = App("effects", retry=ONCE)

_ADD = "INSERT INTO effects VALUES (%s)"


def table(postgres: Postgres, database: str) -> None:
    """Make the table that the handlers write to."""
    postgres.query("CREATE TABLE effects (id text)", database)


def done(postgres: Postgres, database: str) -> dict[str, int]:
    """How often the effect of each ID was committed."""
    counts = postgres.query("SELECT id, count(*) FROM effects GROUP BY id", database)
    return dict(counts)


def _note(ctx: Context) -> None:
    with Path("runs").open("a") as file:
        file.write(f"{ctx.id}\n")


@app.task(effects="postgresql")
async def add(ctx: Context, ms: float = 0) -> str:
    _note(ctx)
    await ctx.connection.execute(_ADD, (ctx.id,))
    await asyncio.sleep(ms / 1000)
    return ctx.id


@app.task(effects="postgresql")
def add_thread(ctx: Context, ms: float = 0) -> str:
    _note(ctx)
    ctx.connection.execute(_ADD, (ctx.id,))
    ctx.connection.execute("SELECT pg_sleep(%s)", (ms / 1000,))
    return ctx.id


@app.task(effects="postgresql")
async def fails(ctx: Context) -> None:
    await ctx.connection.execute(_ADD, (ctx.id,))
    raise ValueError("no")


@app.task(effects="postgresql")
async def gated(ctx: Context) -> Any:
    await ctx.connection.execute(_ADD, (ctx.id,))
    return await jobs.gated(ctx)


@app.task(effects="postgresql")
def gated_thread(ctx: Context) -> Any:
    ctx.connection.execute(_ADD, (ctx.id,))
    return jobs.gated_thread(ctx)


@app.task(effects="postgresql")
async def gated_fails(ctx: Context) -> None:
    await ctx.connection.execute(_ADD, (ctx.id,))
    raise ValueError(f"by {await jobs.gated(ctx)}")
