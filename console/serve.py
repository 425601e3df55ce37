"""A console: the projection and the HTTP API of one store, until it is told to end."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from taskmill.console.api.app import create_app
from taskmill.console.api.replays import Replays
from taskmill.console.api.services import Services
from taskmill.console.projecting import Projecting
from taskmill.console.queues import QueueWatch
from taskmill.console.store.address import store_url
from taskmill.console.store.open import open_store
from taskmill.console.tokens import TokenTable
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError

logger = logging.getLogger("taskmill.console")

#: Requests under way when it is to end get this long; those that wait are answered at once.
DRAIN_S = 10
#: An idle connection is kept for so long: longer than the pauses of a dashboard that polls.
_KEEP_ALIVE_S = 75
_BACKLOG = 2048
#: Requests that wait, streams and clients of Kafka each need one; a shell allows 1,024 or 256.
_FILES = 16_384


class Console:
    """Made, run once, gone."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock = SYSTEM_CLOCK,
        page: Path | None = None,
    ) -> None:
        """`page`: the folder of the dashboard's files, another than the package's."""
        self._settings = settings
        self._clock = clock
        self._page = page

    def run(self, ready: Callable[[str], None] = lambda url: None) -> int:
        """Serve until SIGTERM or SIGINT, which drains; a second one ends at once. `ready` is told
        the address once it listens. Returns 0.

        Raises ConfigError: a port that is taken, a store that cannot be; Unreachable: a store that
        is away.
        """
        _allow_files()
        with ExitStack() as stack:
            # First what may be taken: nothing was begun then.
            listener = stack.enter_context(listen(self._settings))
            store = open_store(store_url(self._settings), self._clock)
            stack.callback(store.close)
            projection = Projecting(self._settings, self._clock)
            tokens = TokenTable(self._settings, self._clock)
            queues = QueueWatch(self._settings, self._clock)
            stack.callback(queues.close)
            services = Services(
                self._settings, tokens, store, queues, page=self._page, clock=self._clock
            )
            replays = Replays(self._settings, services.codec, self._clock)
            for part in (projection, tokens):
                part.start()
                stack.callback(part.close)
            services.start()
            stack.callback(services.close)
            stack.callback(replays.close)
            server = _Server(_config(create_app(services, replays)), services)
            host, port = listener.getsockname()[:2]
            url = f"http://{_shown(host)}:{port}"
            logger.info("console at %s, store %s", url, store.where)
            ready(url)
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(_serve(server, listener))
        return 0


def listen(settings: Settings) -> socket.socket:
    """A socket at the console's address. Raises ConfigError where it cannot be had."""
    host, port = settings.console_host, settings.console_port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"console_host {host!r}: {error.strerror or error}") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(_BACKLOG)
        found.setblocking(False)
    except OSError as error:
        found.close()
        raise ConfigError(
            f"port {port} of {host} cannot be had ({error.strerror}): another console? "
            "TASKMILL_CONSOLE_PORT names another port"
        ) from None
    return found


def _allow_files() -> None:
    """As many open files as this process may have, up to what it can need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError) as error:
        logger.info("it may have %s files open, no more: %s", soft, error)


class _Server(uvicorn.Server):
    """Answers who waits before it waits for who is answered."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services
        self._asked = 0
        self.loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._asked += 1
        self.should_exit = True
        if self._asked > 1:
            self.force_exit = True
        if self.loop is not None:
            # A signal comes between any two instructions; the event is the loop's.
            self.loop.call_soon_threadsafe(self._services.ending.set)


async def _serve(server: _Server, listener: socket.socket) -> None:
    server.loop = asyncio.get_running_loop()
    await server.serve([listener])


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where it is there: half the CPU of a request."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
        ws="none",
    )


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
