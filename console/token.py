"""A token of the console: what it allows, and its record on `<prefix>.tokens`.

A secret is `tm_<id>_<256 random bits>`, so that scanners for secrets find it. What is stored is its
SHA-256: of so many random bits nothing is guessed, and a slow hash would only slow each request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from taskmill.runtime.config import check_queue
from taskmill.runtime.errors import InvalidInput, TaskmillError


class Scope(StrEnum):
    """What a token may be good for. `operate` includes `read`, `admin` includes all."""

    ENQUEUE = "enqueue"
    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"


_INCLUDES = {
    Scope.ENQUEUE: {Scope.ENQUEUE},
    Scope.READ: {Scope.READ},
    Scope.OPERATE: {Scope.OPERATE, Scope.READ},
    Scope.ADMIN: set(Scope),
}
#: `tm_`, the ID, and 32 random bytes.
_SECRET = re.compile(r"tm_([0-9a-f]{12})_[0-9a-f]{64}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_NAME_CHARS = 100


class Token(NamedTuple):
    """A token without its secret. `queues`: None is all; times are UTC ms, `expires_at` None is
    never; `name` says whose it is; `created_by` is whoever made it."""

    id: str
    scopes: frozenset[str]
    queues: frozenset[str] | None
    expires_at: int | None
    name: str
    created_at: int
    created_by: str
    revoked_at: int | None = None

    def allows(self, scope: str, queue: str | None = None) -> bool:
        """Whether it has `scope`, and, where `queue` is given, for that queue."""
        held = {included for one in self.scopes for included in _INCLUDES.get(Scope(one), ())}
        return scope in held and (queue is None or self.queues is None or queue in self.queues)

    def is_valid(self, now_ms: int) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and not self.has_expired(now_ms)

    def has_expired(self, now_ms: int) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and now_ms >= self.expires_at


class Stored(NamedTuple):
    """A token as it is stored: with the SHA-256 of its secret, in hexadecimal."""

    token: Token
    digest: str

    def __repr__(self) -> str:
        return f"Stored({self.token!r})"

    def fits(self, secret: str) -> bool:
        """Whether that is its secret; takes as long for a wrong one."""
        return hmac.compare_digest(self.digest, _digest(secret))

    def to_bytes(self) -> bytes:
        """As JSON."""
        fields = self.token._asdict()
        fields["scopes"] = sorted(self.token.scopes)
        fields["queues"] = None if self.token.queues is None else sorted(self.token.queues)
        return json.dumps({**fields, "sha256": self.digest}).encode()

    @classmethod
    def from_bytes(cls, key: bytes, value: bytes) -> Stored:
        """What `to_bytes` wrote under that key. Raises TaskmillError for anything else, also for a
        scope that is not known here."""
        try:
            fields = json.loads(value)
            digest = fields.pop("sha256")
            queues = fields["queues"]
            token = Token(
                **{
                    **fields,
                    "scopes": frozenset(Scope(one).value for one in fields["scopes"]),
                    "queues": None if queues is None else frozenset(queues),
                }
            )
            times = (token.created_at, token.expires_at or 0, token.revoked_at or 0)
            texts = (token.name, token.created_by, *(token.queues or ()))
            if token.id.encode() != key or not all(type(one) is int for one in times):
                raise ValueError(token.id)
            if not all(type(one) is str for one in texts):
                raise ValueError("name, created_by, queues")
            if re.fullmatch(r"[0-9a-f]{64}", digest) is None:
                raise ValueError("sha256")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TaskmillError(
                f"the record of a token cannot be read, another version's? ({error!r})"
            ) from None
        return cls(token, digest)


def new_token(
    scopes: Iterable[str],
    queues: Iterable[str] | None,
    expires_at: int | None,
    name: str,
    created_at: int,
    created_by: str,
) -> tuple[Stored, str]:
    """A new token and its secret, which is kept nowhere. Raises InvalidInput, ConfigError."""
    wanted = frozenset(scopes)
    allowed = ", ".join(Scope)
    for one in sorted(wanted - set(Scope)):
        raise InvalidInput(f"scope {one!r:.40}: allowed are {allowed}")
    if not wanted:
        raise InvalidInput(f"a token needs a scope: {allowed}")
    narrowed = None if queues is None else frozenset(check_queue(one) for one in queues)
    if narrowed is not None and not narrowed:
        raise InvalidInput("a token for no queue is good for nothing; None means all")
    if len(name) > _NAME_CHARS or not name.isprintable():
        raise InvalidInput(f"name {name!r:.40}: up to {_NAME_CHARS} printable characters")
    id = secrets.token_hex(6)
    secret = f"tm_{id}_{secrets.token_hex(32)}"
    token = Token(id, wanted, narrowed, expires_at, name, created_at, created_by)
    return Stored(token, _digest(secret)), secret


def id_of(secret: str) -> str | None:
    """The ID in a secret; None where it is none of ours."""
    found = _SECRET.fullmatch(secret)
    return None if found is None else found[1]


def check_token_id(id: str) -> str:
    """`id` if it may be a token's, else InvalidInput."""
    if _ID.fullmatch(id) is None:
        # It may be a secret, given by mistake: not to be repeated in full anywhere.
        raise InvalidInput(
            f"token ID {id[:12]!r}: 12 hexadecimal digits; `taskmill tokens list` lists them"
        )
    return id


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
