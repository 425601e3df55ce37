"""What every request passes first and every answer last: an ID, its path, limits, safe headers."""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar
from urllib.parse import quote, unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskmill.console.api.problems import Refused
from taskmill.console.api.tally import count
from taskmill.console.api.trace import trace_of
from taskmill.producer.ids import new_id
from taskmill.runtime.clock import Clock

logger = logging.getLogger("taskmill.console")

#: The whole of a batch; a task alone is limited by its own size.
MAX_BODY_BYTES = 16 * 1024 * 1024
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}\Z", re.ASCII)
#: The ID of the request that this code serves; "-" outside of one.
request_id: ContextVar[str] = ContextVar("taskmill_request_id", default="-")

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class PathText(Convertor[str]):
    """A parameter of a path that may hold any text: encoded slashes are part of it, and so are
    plain ones where no route's own word follows."""

    regex = ".+"

    def convert(self, value: str) -> str:
        return unquote(value, errors="strict")

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


class PathWhole(PathText):
    """Likewise, for routes that end in it: not what another route's own word ends."""

    regex = r"(?!.+/(?:cancel|pause|result|resume|run|trigger)$).+"


class PathWord(PathText):
    """One part of a path, without a plain slash."""

    regex = "[^/]+"


register_url_convertor("text", PathText())
register_url_convertor("whole", PathWhole())
register_url_convertor("word", PathWord())


def canonical_path(raw: bytes) -> str:
    """The path as routes compare it: each part encoded in one way, so that an encoded slash stays
    apart from a plain one. Raises UnicodeError."""
    parts = raw.split(b"?", 1)[0].decode("ascii").split("/")
    return "/".join(quote(unquote(part, errors="strict"), safe=":") for part in parts)


class Edge:
    """The outermost ASGI application around the API's."""

    def __init__(self, app: ASGIApp, clock: Clock, max_body: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._clock = clock
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        id = given if _REQUEST_ID.match(given) else new_id()
        token = request_id.set(id)
        began = self._clock.monotonic()
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(raw=message.setdefault("headers", []))
                out["x-request-id"] = id
                for name, value in _HEADERS.items():
                    out.setdefault(name, value)
                if scope["path"].startswith("/api/"):
                    out.setdefault("cache-control", "no-store")
            await send(message)

        try:
            refusal = self._prepare(scope, headers)
            if refusal is not None:
                await refusal.response(id)(scope, receive, sending)
            else:
                with trace_of(headers):
                    await self._app(scope, self._limited(receive), sending)
        finally:
            request_id.reset(token)
            took_s = self._clock.monotonic() - began
            count(scope, status, took_s)
            self._log(scope, status, id, took_s)

    def _prepare(self, scope: Scope, headers: Headers) -> Refused | None:
        """Put the canonical path in place; what is refused before any route sees it."""
        raw = scope.get("raw_path") or quote(scope["path"], safe="/:").encode()
        try:
            scope["path"] = canonical_path(raw)
        except UnicodeError:
            return Refused("malformed", "the path is not UTF-8, percent-encoded")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._max_body:
            return _too_large(self._max_body)
        return None

    def _limited(self, receive: Receive) -> Receive:
        """Counts what comes without a length."""
        read = 0

        async def receiving() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > self._max_body:
                    raise _too_large(self._max_body)
            return message

        return receiving

    def _log(self, scope: Scope, status: int, id: str, took_s: float) -> None:
        caller = scope.get("taskmill.caller")
        is_enqueue = scope["path"].endswith(("/tasks", "/tasks:batch"))
        is_act = scope["method"] not in ("GET", "HEAD") and not is_enqueue
        level = logging.ERROR if status >= 500 else logging.INFO if is_act else logging.DEBUG
        if logger.isEnabledFor(level):
            who = "-" if caller is None else caller.name
            what = f"{scope['method']} {scope['path']}"
            logger.log(level, "%s %d %.1f ms, %s, request %s", what, status, took_s * 1000, who, id)


def _too_large(most: int) -> Refused:
    return Refused("too-large", f"the body is larger than {most} bytes, which is allowed")
