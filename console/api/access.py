"""Who may do what: a bearer token's scopes, and the queues that it is narrowed to."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request

from taskmill.console.api.problems import Refused

#: What each scope includes beside itself.
IMPLIED: dict[str, frozenset[str]] = {
    "enqueue": frozenset(),
    "read": frozenset(),
    "operate": frozenset({"read"}),
    "admin": frozenset({"enqueue", "read", "operate"}),
}
#: The scope of a route that any token may ask.
ANY = "any"
_KEY = "taskmill.caller"


class TokenLike(Protocol):
    """What is asked of a token."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def scopes(self) -> frozenset[str]: ...
    @property
    def queues(self) -> frozenset[str] | None: ...
    @property
    def expires_at(self) -> int | None: ...


class TokenCheck(Protocol):
    """What is asked of the table of tokens."""

    def check(self, secret: str) -> TokenLike | None:
        """The token of that secret; None: unknown, expired, revoked."""
        ...


class Caller:
    """Who asks, and what that one may do."""

    __slots__ = ("queues", "scopes", "token")

    def __init__(self, token: TokenLike) -> None:
        self.token = token
        given = frozenset(token.scopes)
        self.scopes = given.union(*(IMPLIED.get(one, frozenset()) for one in given))
        #: None: all of them.
        self.queues = token.queues

    @property
    def name(self) -> str:
        """As what it does is noted: whose the token is, where that was said, and its ID."""
        id, whose = self.token.id, self.token.name
        return f"{whose} (token {id})" if whose else f"token {id}"

    def sees(self, queue: str | None) -> bool:
        """Whether the token holds for that queue; what is of no queue is for all alone."""
        return self.queues is None or queue in self.queues

    def check_scope(self, scope: str) -> None:
        """Raises Refused, 403, which names the scope."""
        if scope != ANY and scope not in self.scopes:
            raise Refused(
                "forbidden", f"the token has not the scope {scope!r}, which this needs", scope=scope
            )

    def check_queue(self, queue: str) -> None:
        """Raises Refused, 403, which names the queue."""
        if not self.sees(queue):
            raise Refused("forbidden", f"the token does not hold for queue {queue!r:.110}")


def admit(tokens: TokenCheck, request: Request) -> Caller:
    """The caller of a request. Raises Refused, 401."""
    header = request.headers.get("authorization")
    if header is None:
        raise Refused("unauthorized", "no token: send Authorization: Bearer TOKEN")
    kind, _, secret = header.partition(" ")
    if kind.lower() != "bearer" or not secret.strip():
        raise Refused("unauthorized", "send the token as Authorization: Bearer TOKEN")
    token = tokens.check(secret.strip())
    if token is None:
        raise Refused(
            "unauthorized",
            "the token is unknown, expired or revoked",
            headers={"WWW-Authenticate": 'Bearer realm="taskmill", error="invalid_token"'},
        )
    caller = request.scope[_KEY] = Caller(token)
    return caller


def caller_of(request: Request) -> Caller:
    """The caller that was admitted."""
    caller: Caller = request.scope[_KEY]
    return caller
