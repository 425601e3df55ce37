"""The harness in async tests: handlers run on the test's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from taskmill import App, ConfigError
from taskmill.runtime.errors import ResultTimeout
from taskmill.testing import Harness

app = App("harness")


@app.task
async def send(order_id: int, email: str = "a@b.c") -> str:
    return f"{order_id} to {email}"


@app.task
def double(number: int) -> int:
    return 2 * number


@app.task
async def asks(number: int) -> int:
    return 1 + await (await double.aenqueue(number)).aresult()


@pytest.fixture
def mill() -> Iterator[Harness]:
    with Harness(app) as one:
        yield one


def test_async_tests_run_handlers_on_their_own_loop() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()

        @app.task(name="here")
        async def here() -> bool:
            return asyncio.get_running_loop() is loop

        async with Harness(app, now="2026-01-01T00:00Z") as mill:
            handle = await here.aenqueue()
            waits = double.options(delay="5m").enqueue(2)
            assert [state.name for state in await mill.adrain()] == ["here"]
            assert await handle.aresult() is True
            assert [state.name for state in await mill.aadvance("5m")] == ["double"]
            assert await waits.aresult() == 4
            with pytest.raises(ConfigError, match="adrain"):
                mill.drain()

    asyncio.run(scene())


def test_who_awaits_a_result_has_the_task_run() -> None:
    async def scene() -> None:
        async with Harness(app) as mill:
            assert await (await asks.aenqueue(1)).aresult() == 3
            later = await double.options(delay="1h").aenqueue(1)
            both = asyncio.gather(later.aresult(), mill.aadvance("1h"))
            assert (await both)[0] == 2
            with pytest.raises(ResultTimeout):
                await app.handle("unheard-of").aresult()

    asyncio.run(scene())


def test_an_async_test_enters_it_with_async() -> None:
    async def scene() -> None:
        with pytest.raises(ConfigError, match="async with"):
            Harness(app).__enter__()

    asyncio.run(scene())


def test_a_plain_fixture_serves_an_async_test(mill: Harness) -> None:
    async def scene() -> None:
        handle = await send.aenqueue(3)
        await mill.adrain()
        assert await handle.aresult() == "3 to a@b.c"

    asyncio.run(scene())
