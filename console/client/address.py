"""Whom a client asks, and as who: the address, the token, and httpx where it is installed."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from taskmill._version import __version__
from taskmill.console.client.wire import BASE, Request
from taskmill.runtime.config import MASK
from taskmill.runtime.errors import ConfigError
from taskmill.runtime.tracing import tracing

if TYPE_CHECKING:
    import httpx


def httpx_module() -> Any:
    """httpx. Raises ConfigError, one line, where it is not installed."""
    try:
        import httpx
    except ModuleNotFoundError as error:
        if error.name != "httpx":
            raise
        raise ConfigError(
            "to ask a console, httpx is needed: pip install 'taskmill[client]'"
        ) from None
    module: ModuleType = httpx
    return module


def address_of(url: str) -> str:
    """`url` without what the client adds itself. Raises ConfigError for one that is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url[:100]!r} is no address of a console: http://HOST:PORT")
    if "@" in parts.netloc:
        host = parts.netloc.rpartition("@")[2]
        raise ConfigError(
            f"the address {parts.scheme}://{MASK}@{host} holds a login: what a console takes is a "
            "token (TASKMILL_API_TOKEN)"
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"{url[:100]!r}: a console's address has no ? or #")
    path = parts.path.rstrip("/").removesuffix(BASE).rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


class Headed:
    """Makes requests of httpx, with the token, which no repr shows."""

    def __init__(self, address: str, token: str | None) -> None:
        """Raises ConfigError for a token that no header can hold."""
        if token is not None and (not token.isascii() or not token.isprintable() or " " in token):
            raise ConfigError("the token holds what no token has: is it whole, and nothing else?")
        self._address = address
        self._headers = {"user-agent": f"taskmill/{__version__}", "accept": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self.shown = MASK if token else "None"

    def request(
        self, client: httpx.Client | httpx.AsyncClient, request: Request, timeout: httpx.Timeout
    ) -> httpx.Request:
        """What `client` is to send."""
        url = self._address + BASE + request.path
        return client.build_request(
            request.method,
            url,
            params=request.query or None,
            content=request.body,
            headers={**self._headers, **_trace(), **dict(request.headers)},
            timeout=timeout,
        )


def _trace() -> dict[str, str]:
    """What tells the console of the trace that is current here."""
    found = tracing()
    return {} if found is None else found.carried()
