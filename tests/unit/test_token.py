"""What a token allows, and what its record gives away."""

from __future__ import annotations

import json

import pytest

from taskmill.console.token import Scope, Stored, Token, check_token_id, id_of, new_token
from taskmill.runtime.errors import ConfigError, InvalidInput, TaskmillError


def made(**changes: object) -> tuple[Stored, str]:
    given = {
        "scopes": ["read"], "queues": None, "expires_at": 2_000, "name": "ci",
        "created_at": 1_000, "created_by": "ann",
    }  # fmt: skip
    return new_token(**{**given, **changes})  # type: ignore[arg-type]


def test_a_secret_is_not_stored_and_no_two_are_alike() -> None:
    stored, secret = made()
    other, another = made()
    assert secret.startswith(f"tm_{stored.token.id}_")
    assert len({secret, another, stored.token.id, other.token.id}) == 4
    kept = stored.to_bytes().decode() + repr(stored)
    assert secret not in kept
    assert secret.rsplit("_", 1)[1] not in kept
    assert stored.digest not in repr(stored)
    assert stored.fits(secret)
    assert not stored.fits(another)
    assert not stored.fits("tm_\udc80")
    assert id_of(secret) == stored.token.id


def test_what_is_stored_is_read_back_and_nothing_else_is() -> None:
    stored, _ = made(scopes=["read", "enqueue"], queues=["b", "a"], expires_at=None)
    key, value = stored.token.id.encode(), stored.to_bytes()
    assert Stored.from_bytes(key, value) == stored
    fields = json.loads(value)
    for wrong in (
        b"", b"[]", b"1", b"{}", b"\xff",
        json.dumps({**fields, "scopes": ["root"]}).encode(),
        json.dumps({**fields, "sha256": "0"}).encode(),
        json.dumps({**fields, "sha256": None}).encode(),
        json.dumps({**fields, "expires_at": "soon"}).encode(),
        json.dumps({**fields, "more": 1}).encode(),
    ):  # fmt: skip
        with pytest.raises(TaskmillError, match="the record of a token cannot be read"):
            Stored.from_bytes(key, wrong)
    with pytest.raises(TaskmillError, match="cannot be read"):
        Stored.from_bytes(b"another key", value)


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("enqueue", {"enqueue"}),
        ("read", {"read"}),
        ("operate", {"operate", "read"}),
        ("admin", {"admin", "operate", "read", "enqueue"}),
    ],
)
def test_scopes_include_others(scope: str, allowed: set[str]) -> None:
    token = made(scopes=[scope])[0].token
    assert {one.value for one in Scope if token.allows(one)} == allowed


def test_a_token_may_be_narrowed_to_queues() -> None:
    token = made(queues=["a"])[0].token
    assert token.allows("read", "a")
    assert not token.allows("read", "b")
    assert not token.allows("operate", "a")


def test_a_token_ends_at_its_time_and_when_it_is_revoked() -> None:
    token: Token = made()[0].token
    assert token.is_valid(1_999)
    assert not token.is_valid(2_000)
    assert made(expires_at=None)[0].token.is_valid(1 << 60)
    assert not token._replace(revoked_at=1_500).is_valid(1_600)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scopes": ["root"]}, "scope 'root': allowed are enqueue, read, operate, admin"),
        ({"scopes": []}, "a token needs a scope"),
        ({"queues": []}, "no queue"),
        ({"queues": ["a.b"]}, "queue 'a.b'"),
        ({"name": "x" * 101}, "up to 100 printable characters"),
        ({"name": "a\nb"}, "printable"),
    ],
)
def test_wrong_wishes_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises((InvalidInput, ConfigError), match=told):
        made(**changes)


def test_a_secret_given_as_an_id_is_not_repeated() -> None:
    _, secret = made()
    with pytest.raises(InvalidInput) as caught:
        check_token_id(secret)
    assert secret[-40:] not in str(caught.value)
    for wrong in ("", "tm_", secret[:-1], secret + "0", secret.upper(), secret + "\n"):
        assert id_of(wrong) is None
