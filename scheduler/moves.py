"""Tasks that wait and are given another time: what changes on their topic, and in its copy."""

from __future__ import annotations

from itertools import islice
from typing import Any

from taskmill.consumer.delayed import DIGITS, MOVE, DelayedKey, Move
from taskmill.consumer.dlq import NOT_BEFORE
from taskmill.runtime.store import Put, Store
from taskmill.scheduler.held import Headers, pack, unpack

#: In one transaction.
MOST = 1_000


def moved(
    place: tuple[str, int], store: Store, latest_ms: int
) -> tuple[list[dict[str, Any]], dict[tuple[str, int], list[Put]]]:
    """Carry out the moves that `store`, the copy of `place`, holds: arguments of `produce`, and
    what they mean for the copy.

    A task that is not there any more has been passed on: its move is dropped. None is put later
    than `latest_ms` (UTC): then it is handed over anew (consumer/delayed.py).
    """
    found = list(islice(store.items(MOVE), MOST))
    moves = [Move.unpack(key, value) for key, value in found]
    changes: dict[bytes, tuple[bytes, Headers] | None] = {}
    for move, (key, packed) in _waiting(store, moves):
        headers, value = unpack(packed)
        kept = [one for one in headers if one[0] != NOT_BEFORE]
        new = DelayedKey(min(move.due_at, latest_ms), move.id, move.generation, move.seq).pack()
        changes[key] = None
        changes[new] = value, [*kept, (NOT_BEFORE, b"%d" % move.due_at)]
    for key, _ in found:
        changes[key] = None
    topic, p = place
    messages: list[dict[str, Any]] = []
    puts: list[Put] = []
    for key, change in changes.items():
        message: dict[str, Any] = {"topic": topic, "partition": p, "key": key}
        if change is None:
            puts.append((key, None))
        else:
            value, headers = change
            message |= {"value": value, "headers": headers}
            puts.append((key, pack(headers, value)))
        messages.append(message)
    return messages, {place: puts}


def _waiting(store: Store, moves: list[Move]) -> list[tuple[Move, tuple[bytes, bytes]]]:
    """The entries that `moves` mean, as far as they are there."""
    keys = [DelayedKey(m.was_due_at, m.id, m.generation, m.seq).pack() for m in moves]
    at_once = zip(moves, keys, store.get_many(keys), strict=True)
    found = []
    missing: dict[bytes, Move] = {}
    for move, key, value in at_once:
        if value is None:
            missing[move.suffix] = move
        else:
            found.append((move, (key, value)))
    if missing:
        # Waits that are made in steps end at a time that nobody was told.
        for key, value in store.items(end=MOVE):
            if (meant := missing.get(key[DIGITS:])) is not None:
                found.append((meant, (key, value)))
    return found
