"""What httpx says where there is no answer, and how long that is borne."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from taskmill.console.client.address import httpx_module
from taskmill.console.client.exchange import FIRST_S, LONGEST_S
from taskmill.console.client.wire import Lost, Way
from taskmill.runtime.errors import ConfigError, TaskmillError, Unreachable

if TYPE_CHECKING:
    import httpx


def lost(error: httpx.RequestError) -> Lost:
    """Why there is no answer. Raises ConfigError where no attempt will do."""
    module = httpx_module()
    why = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (module.UnsupportedProtocol, module.TooManyRedirects)):
        raise ConfigError(f"the console's address cannot be asked: {why}") from None
    unsent = (module.ConnectError, module.ConnectTimeout, module.PoolTimeout, module.ProxyError)
    if isinstance(error, module.TimeoutException):
        why = f"{type(error).__name__}: {why}" if why != type(error).__name__ else why
    return Lost(why, isinstance(error, unsent))


class Patience:
    """How long a stream that is lost is asked for again: `timeout_s` from the loss on."""

    def __init__(self, way: Callable[[], Way]) -> None:
        self._way = way
        self.renew()

    def renew(self) -> None:
        """Something came: it is not lost."""
        self._lost: Way | None = None
        self._next = FIRST_S

    def check(self, error: TaskmillError) -> None:
        """Raises `error` where it is another than of being away, or has lasted too long."""
        if self._lost is None:
            self._lost = self._way()
        if not isinstance(error, Unreachable) or self._lost.deadline.over():
            raise error

    def pause(self, retry_s: float) -> float:
        """The seconds until it is asked for again; `retry_s`: what the stream said, at the most."""
        pause = min(self._next, retry_s, LONGEST_S)
        self._next = 2 * self._next
        return pause
