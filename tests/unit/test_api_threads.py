"""What blocks has threads, so many, and enqueues have their own. No broker."""

from __future__ import annotations

import asyncio
import threading

import pytest

from taskmill.console.api import services as module
from taskmill.console.api.problems import Refused
from taskmill.console.api.services import Services
from taskmill.runtime.config import Settings


def test_acts_that_wait_hold_up_no_enqueue_and_too_many_are_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_WAITING", 4)
    release = threading.Event()

    async def whole() -> None:
        settings = Settings(bootstrap_servers="127.0.0.1:9")
        services = Services(settings, None, None)  # type: ignore[arg-type]
        try:
            acts = [asyncio.create_task(services.act(release.wait, 20)) for _ in range(20)]
            await asyncio.sleep(0)
            with pytest.raises(Refused, match="too much is under way"):
                await services.act(release.wait, 20)
            assert await services.send(lambda: 1) == 1
            release.set()
            assert all(await asyncio.gather(*acts))
            assert await services.act(lambda: 2) == 2
        finally:
            release.set()
            services._acts.close()
            services._sends.close()
            services.enqueuer.close()
            services.control.close()
            services.reads.close()

    asyncio.run(whole())
