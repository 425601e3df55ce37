"""For tests of an App: the same App and handlers in memory, without Kafka. See docs/testing.md."""

from __future__ import annotations

from taskmill.testing.enqueued import Enqueued
from taskmill.testing.harness import Harness

__all__ = ["Enqueued", "Harness"]
