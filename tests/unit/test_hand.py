"""A call that hangs is left behind, and its transaction counts as unknown."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from taskmill.consumer import commit
from taskmill.consumer.commit import Answer, Committer, Partitions
from taskmill.consumer.hand import Hand, NoAnswer
from taskmill.consumer.protocol import Fence, Transaction
from taskmill.consumer.state import StateEncoder
from taskmill.runtime.config import Settings
from taskmill.runtime.topics import Topics
from taskmill.schemas.codec import CODEC


def test_a_hand_returns_what_the_call_returns_and_raises_what_it_raises() -> None:
    hand: Hand[int] = Hand("t")
    assert hand.call(lambda: 7, 5) == 7
    with pytest.raises(ZeroDivisionError):
        hand.call(lambda: 1 // 0, 5)
    assert hand.call(lambda: 8, 5) == 8
    hand.end()


def test_a_call_that_does_not_return_gives_no_answer() -> None:
    hand: Hand[bool] = Hand("t")
    never = threading.Event()
    with pytest.raises(NoAnswer):
        hand.call(lambda: never.wait(30), 0.01)
    never.set()
    hand.end()


class _Hanging:
    """A producer whose send_offsets_to_transaction ignores its time-out."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def init_transactions(self, timeout: float) -> None:
        return

    def begin_transaction(self) -> None:
        return

    def send_offsets_to_transaction(self, *arguments: Any) -> None:
        self.release.wait(30)

    def commit_transaction(self, timeout: float) -> None:
        return


def test_a_transaction_that_hangs_is_unknown_and_its_producer_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commit, "PATIENCE_S", 0.05)
    settings = Settings(bootstrap_servers="127.0.0.1:1")
    topics = Topics(settings.prefix, "default")
    encoder = StateEncoder(CODEC, "default", "w", topics.results)
    committer = Committer(settings, topics, Partitions(1, 1), "t", encoder)
    hanging = _Hanging()
    monkeypatch.setattr(committer, "_new_producer", lambda: hanging)
    assert committer.open(lambda: False)
    assert committer.run(Transaction(1, Fence(1, b""), {}, {0: 1}, {}, {})) == (Answer.UNKNOWN, {})
    assert not committer.is_open
    assert committer.failures == 1
    # The next one gets a producer and a hand of its own.
    second = _Hanging()
    second.release.set()
    monkeypatch.setattr(committer, "_new_producer", lambda: second)
    assert committer.open(lambda: False)
    transaction = Transaction(2, Fence(1, b""), {}, {0: 1}, {}, {})
    assert committer.run(transaction) == (Answer.COMMITTED, {})
    hanging.release.set()
    monkeypatch.setattr(committer, "_producer", None)
    committer.close()
