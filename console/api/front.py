"""The way in, without what other routes need: enqueues are many, and each step of a stack of
middleware costs as much as to read the task."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from taskmill.console.api.access import TokenCheck, admit
from taskmill.console.api.edge import request_id
from taskmill.console.api.problems import Refused, of_error
from taskmill.console.api.tally import ROUTE
from taskmill.runtime.errors import TaskmillError

logger = logging.getLogger("taskmill.console")

Handler = Callable[[Request], Awaitable[Response]]


class Front:
    """Answers `POST` of some paths by itself, and leaves all else to the application behind it,
    which has the same routes in its document, and the same handlers."""

    def __init__(
        self, app: ASGIApp, tokens: TokenCheck, scope: str, handlers: dict[str, Handler], base: str
    ) -> None:
        """`handlers`: by path behind `base`; each needs a token of `scope`."""
        self._app = app
        self._tokens = tokens
        self._scope = scope
        self._handlers = {base + path: (path, handler) for path, handler in handlers.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._handlers.get(scope.get("path", ""))
        if found is None or scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        scope[ROUTE], handler = found
        response = await self._answer(Request(scope, receive), handler)
        await response(scope, receive, send)

    async def _answer(self, request: Request, handler: Handler) -> Response:
        try:
            admit(self._tokens, request).check_scope(self._scope)
            return await handler(request)
        except Refused as refusal:
            return refusal.response(request_id.get())
        except TaskmillError as error:
            return of_error(error).response(request_id.get())
        except Exception:
            id = request_id.get()
            logger.exception("request %s failed", id)
            return Refused("failed", f"request {id} failed: the log tells why").response(id)
