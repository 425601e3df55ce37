"""The client ID of a worker's consumer: `<prefix>-worker-<version>-<slot>-<queue>`, so that Kafka
tells of each member of a group which worker it is, and of which version."""

from __future__ import annotations

import re
from typing import NamedTuple

from taskmill._version import __version__

#: A version of PEP 440 has no hyphen; a slot is `<node>.<number>` (consumer/slots.py).
_NAME = re.compile(r"worker-(?P<version>[^-]+)-(?P<slot>[0-9a-f]{12}\.\d+)-.+", re.ASCII)
#: Up to 0.1.0.
_OLD = re.compile(r"worker-.+-(?P<slot>[0-9a-f]{12}\.\d+)", re.ASCII)


class Worker(NamedTuple):
    """Which worker a client is of; None: not told, a client of another make."""

    slot: str | None
    version: str | None


def client_name(slot: str, queue: str, version: str = __version__) -> str:
    """The client ID, without the prefix that all clients have."""
    return f"worker-{version}-{slot}-{queue}"


def worker_of(client_id: str, prefix: str) -> Worker:
    """Which worker has that client ID."""
    name = client_id.removeprefix(f"{prefix}-")
    if found := _NAME.fullmatch(name):
        return Worker(found["slot"], found["version"])
    found = _OLD.fullmatch(name)
    return Worker(found["slot"] if found else None, None)
