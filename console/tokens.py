"""Who may use the console: tokens on `<prefix>.tokens`, followed by every console.

A revocation counts once its record has been read: at once where Kafka answers. Where it does not,
nobody can know what was revoked. Tokens that are known go on for OFFLINE_S, so that a broker's
restart does not turn all away, and then none does: `check` raises Unreachable.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from taskmill.console.token import Scope, Stored, Token, check_token_id, id_of, new_token
from taskmill.consumer.compacted import read_people, write_people
from taskmill.consumer.follow import Follower
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import InvalidInput, TaskmillError, Unreachable
from taskmill.runtime.kafka import bootstrap_servers
from taskmill.runtime.topic_table import Kind, people_spec

__all__ = ["DEFAULT_EXPIRY_MS", "Scope", "Token", "TokenTable"]

logger = logging.getLogger("taskmill.console")

DEFAULT_EXPIRY_MS = 30 * 24 * 3_600_000
#: A revocation counts within this where Kafka answers; older, what is known is called stale.
STALE_S = 5.0
#: For so long without an answer of Kafka's, known tokens are accepted. What a console says from its
#: store is refused as too old after the same time.
OFFLINE_S = 30.0
#: How long a new token, or a revocation, may take to count here before its command goes on.
_SEEN_S = 5.0


class TokenTable:
    """The tokens there are. `check` needs `start`; the other methods ask Kafka, at the moment, and
    raise Unreachable, and TaskmillError for what Kafka refuses."""

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        topic = people_spec(settings, Kind.TOKENS).name
        self._follower = Follower(settings, topic, Stored.from_bytes, clock)
        self._is_started = False
        self._told_stale = False

    def start(self) -> None:
        """Follow the topic, in a thread."""
        self._is_started = True
        self._follower.start()

    def close(self) -> None:
        """End the thread."""
        self._follower.close()

    def wait_ready(self, seconds: float) -> bool:
        """Whether `check` can tell within so long."""
        return self._follower.wait_ready(seconds)

    def stale_s(self) -> float | None:
        """For how many seconds Kafka has not said what holds, once that is more than STALE_S (then
        a revocation may not have been heard of); 0 where all is well, None where it never has."""
        age_s = self._follower.age_s()
        return age_s if age_s is None or age_s > STALE_S else 0.0

    def check(self, secret: str) -> Token | None:
        """The token of that secret; None where it is unknown, expired or revoked. Does not block.

        Raises Unreachable where Kafka has not said for OFFLINE_S, or not yet, what holds.
        """
        stale_s = self._tell_stale()
        if stale_s is None or stale_s > OFFLINE_S:
            since = "not" if stale_s is None else f"not for {stale_s:.0f} s"
            raise Unreachable(
                f"tokens cannot be checked: Kafka at {bootstrap_servers(self._settings)} has "
                f"{since} said which hold"
            )
        id = id_of(secret)
        stored = None if id is None else self._follower.values.get(id.encode())
        if stored is None or not stored.fits(secret):
            return None
        return stored.token if stored.token.is_valid(self._clock.now_ms()) else None

    def _tell_stale(self) -> float | None:
        stale_s = self.stale_s()
        if stale_s and not self._told_stale:
            logger.warning(
                "Kafka has not answered for %.0f s: known tokens are accepted for %g s in all, "
                "also those that are revoked meanwhile",
                stale_s,
                OFFLINE_S,
            )
        self._told_stale = bool(stale_s)
        return stale_s

    # ---- asks Kafka -----------------------------------------------------------------------------

    def create(
        self,
        scopes: Iterable[str],
        *,
        queues: Iterable[str] | None = None,
        expires_ms: int | None = DEFAULT_EXPIRY_MS,
        name: str = "",
        by: str = "",
    ) -> tuple[Token, str]:
        """A new token and its secret, which is stored nowhere and cannot be told again.

        `queues`: None is all; `expires_ms`: milliseconds from now, None is never; `name`: whose it
        is; `by`: who makes it. Raises InvalidInput, ConfigError (a queue's name).
        """
        if expires_ms is not None and expires_ms <= 0:
            raise InvalidInput(f"a token that expires after {expires_ms} ms is good for nothing")
        now = self._clock.now_ms()
        expires_at = None if expires_ms is None else now + expires_ms
        stored, secret = new_token(scopes, queues, expires_at, name, now, by)
        self._write(stored)
        return stored.token, secret

    def revoke(self, id: str) -> bool:
        """Have the token of that ID be refused from now on, in every console. False: it was
        revoked before. Raises InvalidInput where there is none."""
        key = check_token_id(id).encode()
        value = read_people(self._settings, Kind.TOKENS, self._clock).get(key)
        if value is None:
            raise InvalidInput(f"no token {id!r}; `taskmill tokens list` lists them")
        stored = Stored.from_bytes(key, value)
        if stored.token.revoked_at is not None:
            return False
        token = stored.token._replace(revoked_at=self._clock.now_ms())
        self._write(stored._replace(token=token))
        return True

    def all(self) -> list[Token]:
        """Every token, the newest first, also those that expired or were revoked. A record that
        cannot be read is told of in the log: it counts as none."""
        tokens = []
        for key, value in read_people(self._settings, Kind.TOKENS, self._clock).items():
            try:
                tokens.append(Stored.from_bytes(key, value).token)
            except TaskmillError as error:
                logger.warning("%.80r: %s", key, error)
        return sorted(tokens, key=lambda token: (-token.created_at, token.id))

    def _write(self, stored: Stored) -> None:
        key, value = stored.token.id.encode(), stored.to_bytes()
        offset = write_people(self._settings, Kind.TOKENS, key, value, self._clock)
        # So that it counts here by the time its maker is told.
        if self._is_started and not self._follower.wait_for(offset, _SEEN_S):
            logger.warning("token %s: written, and not read back yet", stored.token.id)
