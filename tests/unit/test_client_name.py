"""What the client ID of a worker tells."""

from __future__ import annotations

import pytest

from taskmill.consumer.client_name import client_name, worker_of

SLOT = "0123456789ab.3"


@pytest.mark.parametrize("queue", ["default", "a-b_c", "worker-1-0123456789ab.0-x"])
@pytest.mark.parametrize("prefix", ["taskmill", "t-1", "worker"])
def test_it_tells_slot_and_version(prefix: str, queue: str) -> None:
    name = client_name(SLOT, queue, "1.2.3.dev4+local.5")
    assert worker_of(f"{prefix}-{name}", prefix) == (SLOT, "1.2.3.dev4+local.5")


def test_an_old_worker_tells_its_slot_and_another_client_nothing() -> None:
    assert worker_of(f"taskmill-worker-a-b-{SLOT}", "taskmill") == (SLOT, None)
    for other in ("rdkafka", "", "taskmill-worker-", "taskmill-worker-a-0123456789ab"):
        assert worker_of(other, "taskmill") == (None, None)
