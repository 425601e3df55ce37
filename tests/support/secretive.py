"""An App whose arguments, results and failures hold what no log may tell."""

from __future__ import annotations

import logging
from typing import Any

from support import traced
from taskmill import App, Retry

app = App("secretive", retry=Retry(max_attempts=1))
logger = logging.getLogger("shop")


class Unjson:
    """A result that cannot be stored, and tells its secret to whoever prints it."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return self.secret


def _works(secret: str) -> str:
    logger.warning("at work", extra={"span": traced.span_id()})
    return secret


@app.task
async def in_loop(secret: str) -> str:
    return _works(secret)


@app.task
def in_thread(secret: str) -> str:
    return _works(secret)


@app.task(isolate="process")
def in_process(secret: str) -> str:
    return _works(secret)


@app.task
async def fails(secret: str) -> None:
    raise ValueError(f"no such thing: {len(secret)}")


@app.task
async def unjson(secret: str) -> Any:
    return Unjson(secret)


@app.task
async def typed(secret: int) -> None: ...


@app.task(result_ttl="1h")
async def large(secret: str) -> str:
    return secret * 3000


app.schedule("often", in_loop, every="1s", args={"secret": "SECRET-schedule"})
