"""Streams and the feed behind them, over a store that fails and tokens that end. No broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request

from support.asking import until_set
from taskmill.console.api import stream as module
from taskmill.console.api.access import admit
from taskmill.console.api.asked import ChangesOf
from taskmill.console.api.feed import Feed
from taskmill.console.api.problems import Refused
from taskmill.console.api.reads import Reads
from taskmill.console.api.stream import Stream
from taskmill.console.store.rows import Freshness
from taskmill.console.token import Token
from taskmill.runtime.clock import SYSTEM_CLOCK
from taskmill.runtime.errors import TaskmillError, Unreachable
