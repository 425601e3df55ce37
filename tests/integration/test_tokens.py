"""Tokens on a real Kafka: made, followed by consoles, revoked, and what holds without Kafka."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Producer

from support.brokers import PrivateBroker
from support.clocks import AheadClock
from support.commands import Command, set_environment
from taskmill.console.tokens import TokenTable
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import Unreachable

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]


class ShiftedClock(AheadClock):
    """The machine's clock, both of its times ahead by what the test says."""

    def monotonic(self) -> float:  # type: ignore[override]
        return time.monotonic() + self.ms / 1000


@pytest.fixture
def table(settings: Settings) -> Iterator[TokenTable]:
    with closing(TokenTable(settings)) as one:
        one.start()
        assert one.wait_ready(20)
        yield one


def wait(done: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    until = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < until, f"not {what} within {timeout_s:g} s"
        time.sleep(0.02)


def test_a_token_counts_in_every_console_until_it_is_revoked(
    settings: Settings, table: TokenTable
) -> None:
    with closing(TokenTable(settings)) as other:
        other.start()
        assert other.wait_ready(20)
        token, secret = table.create(["read"], queues=["a"], name="ci", by="ann")
        assert table.check(secret) == token
        wait(lambda: other.check(secret) == token, "known to another console")
        assert table.check(secret[:-1] + ("0" if secret[-1] != "0" else "1")) is None
        assert table.check(f"tm_{'0' * 12}_{'0' * 64}") is None
        assert table.check("") is None
        # By whom or where is the same: a command knows no console.
        assert TokenTable(settings).revoke(token.id)
        wait(lambda: other.check(secret) is None, "revoked in another console")
        wait(lambda: table.check(secret) is None, "revoked here")
        assert not table.revoke(token.id)
        assert table.stale_s() == 0.0


def test_a_console_that_starts_later_knows_all(settings: Settings, table: TokenTable) -> None:
    good, secret = table.create(["admin"], expires_ms=None)
    gone, revoked = table.create(["read"])
    table.revoke(gone.id)
    clock = AheadClock()
    with closing(TokenTable(settings, clock)) as later:
        with pytest.raises(Unreachable, match="has not said which hold"):
            later.check(secret)
        later.start()
        assert later.wait_ready(20)
        assert later.check(secret) == good
        assert later.check(revoked) is None
        _, short = later.create(["read"], expires_ms=60_000)
        assert later.check(short) is not None
        clock.ms = 60_001
        assert later.check(short) is None
    assert [one.id for one in table.all()][1:] in ([gone.id, good.id], [good.id, gone.id])


def test_what_is_no_token_on_the_topic_lets_nobody_in(
    settings: Settings, table: TokenTable, caplog: pytest.LogCaptureFixture
) -> None:
    token, secret = table.create(["read"])
    with caplog.at_level(logging.WARNING, "taskmill"):
        producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
        producer.produce(f"{settings.prefix}.tokens", key=token.id.encode(), value=b"{}")
        assert producer.flush(20) == 0
        wait(lambda: table.check(secret) is None, "refused")
    assert "the record of a token cannot be read" in caplog.text


def test_without_kafka_known_tokens_hold_for_a_time_and_then_none_does(
    private_broker: Callable[..., PrivateBroker],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker, clock = private_broker(), ShiftedClock()
    settings = Settings(bootstrap_servers=broker.bootstrap, prefix="t", state_dir=tmp_path)
    with closing(TokenTable(settings, clock)) as table:
        table.start()
        token, secret = table.create(["read"])
        assert table.check(secret) == token
        broker.kill()
        with caplog.at_level(logging.WARNING, "taskmill.console"):
            clock.ms += 6_000
            assert table.check(secret) == token, "a restart of the broker turns nobody away"
            assert (table.stale_s() or 0) > 5
        assert caplog.text.count("known tokens are accepted for 30 s in all") == 1
        clock.ms += 30_000
        with pytest.raises(Unreachable, match=r"Kafka at \S+ has not for \d+ s said which hold"):
            table.check(secret)
        broker.start()
        wait(lambda: table.stale_s() == 0.0, "well again", 60)
        assert table.check(secret) == token
        assert TokenTable(settings).revoke(token.id)
        wait(lambda: table.check(secret) is None, "revoked")


def test_the_command_shows_a_token_once(
    settings: Settings, command: Command, monkeypatch: pytest.MonkeyPatch, table: TokenTable
) -> None:
    set_environment(settings, monkeypatch)
    assert command("tokens", "list", "--json").json == {"tokens": []}
    done = command("tokens", "create", "--scope", "read", "--scope", "enqueue", "--name", "ci")
    assert done.code == 0
    secret = done.out.strip()
    wait(lambda: table.check(secret) is not None, "known")
    (one,) = command("tokens", "list", "--json").json["tokens"]
    assert (one["name"], one["status"]) == ("ci", "good")
    assert (one["scopes"], one["queues"]) == (["enqueue", "read"], None)
    assert one["id"] in command("tokens", "list").out
    assert secret not in str(one)
    given = ("tokens", "create", "--scope", "admin", "--queue", "a", "--expires", "never")
    never = command(*given, "--json")
    assert (never.json["expires_at"], never.json["queues"]) == (None, ["a"])
    assert "it never expires" in never.err
    assert command("tokens", "revoke", one["id"], "--json").json["revoked"] is True
    again = command("tokens", "revoke", one["id"])
    assert (again.code, "was revoked before" in again.err) == (0, True)
    wait(lambda: table.check(secret) is None, "revoked")
    assert command("topics", "create").code == 0
    assert command("topics", "check").code == 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["create", "--scope", "root"], "'enqueue', 'read', 'operate', 'admin'"),
        (["create"], "a token needs a scope: enqueue, read, operate, admin"),
        (["create", "--scope", "read", "--expires", "soon"], "--expires: duration 'soon'"),
        (["create", "--scope", "read", "--expires", "0s"], "--expires '0s': allowed"),
        (["create", "--scope", "read", "--expires", "9999999d"], "--expires '9999999d': allowed"),
        (["create", "--scope", "read", "-q", "a.b"], "queue 'a.b'"),
        (["revoke", "x"], "token ID 'x': 12 hexadecimal digits"),
        (["revoke", "0123456789ab"], "no token '0123456789ab'"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    settings: Settings,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    told: str,
) -> None:
    set_environment(settings, monkeypatch)
    done = command("tokens", *given)
    assert done.code == 2
    assert told in done.err
    assert (done.err.count("\n"), done.out) == (1, "")
    assert command("tokens", "list", "--json").json == {"tokens": []}
