"""The console of `taskmill dev`: its address, and the one token that is made unasked."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from taskmill.cli.console import missing_extra
from taskmill.cli.output import note
from taskmill.consumer.turn import myself
from taskmill.runtime.config import Settings
from taskmill.runtime.errors import ConfigError, TaskmillError

#: For a day of work; the end of `dev` revokes it before.
_EXPIRES_MS = 24 * 3_600_000


class DevConsole(NamedTuple):
    """The arguments of its command, and the address to open, with the token."""

    arguments: list[str]
    url: str


@contextmanager
def dev_console(settings: Settings) -> Iterator[DevConsole | None]:
    """A console to be started, whose token holds until the end; None, and why is said, where there
    can be none. Only on loopback: whoever sees the terminal is whoever is at the machine."""
    missing = missing_extra()
    if missing is not None:
        note(f"no console: {missing.told('it')}")
        yield None
        return
    if not _is_loopback(settings.console_host):
        note(
            f"no console: TASKMILL_CONSOLE_HOST is {settings.console_host}, and a token is made "
            "on loopback alone; `taskmill console` serves it there"
        )
        yield None
        return
    from taskmill.console.serve import listen
    from taskmill.console.tokens import TokenTable

    try:
        with listen(settings) as free:
            host, port = free.getsockname()[:2]
    except ConfigError as error:
        note(f"no console: {error}")
        yield None
        return
    tokens = TokenTable(settings)
    token, secret = tokens.create(
        ["admin"], expires_ms=_EXPIRES_MS, name="taskmill dev", by=myself()
    )
    shown = f"[{host}]" if ":" in host else host
    try:
        arguments = ["--host", settings.console_host, "--port", str(port)]
        yield DevConsole(arguments, f"http://{shown}:{port}/#token={secret}")
    finally:
        try:
            tokens.revoke(token.id)
        except TaskmillError as error:
            note(f"its token holds for up to a day: {error}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
