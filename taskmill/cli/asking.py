"""How commands ask a console: its client, and what a shell's completion takes from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from taskmill.runtime.config import load_settings
from taskmill.runtime.errors import ConfigError, TaskmillError

if TYPE_CHECKING:
    from taskmill.console.client import Client

#: Nobody waits longer for what a Tab should bring.
_TAB_S = 1.5
_MOST = 50


def console_client(what: str, timeout_s: float) -> Client:
    """A client of the console of TASKMILL_API_URL. Raises ConfigError, one line, where that is not
    set; `what` names who needs it."""
    settings = load_settings()
    if settings.api_url is None:
        raise ConfigError(
            f"{what} asks a console: set TASKMILL_API_URL to its address and TASKMILL_API_TOKEN to "
            "a token that may read (`taskmill console` and `taskmill dev` print the address)"
        )
    # httpx is imported by those who need it.
    from taskmill.console.client import Client

    return Client(settings.api_url, settings.api_token, timeout_s=timeout_s)


def complete_queue(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Queues of the console, where there is one."""
    return _completed(incomplete, lambda client: [one.queue for one in client.queues().queues])


def complete_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of the newest tasks that the console knows."""
    return _completed(incomplete, lambda client: {one.name for one in _newest(client, 500)})


def complete_id(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """IDs of the newest tasks that begin so."""
    queue = ctx.params.get("queue") or "default"
    return _completed(
        incomplete,
        lambda client: [
            one.id for one in _newest(client, _MOST, queue=queue, prefix=incomplete or None)
        ],
    )


def _newest(client: Client, most: int, **said: Any) -> list[Any]:
    found = client.tasks(page=most, **said)
    return [one for one, _ in zip(found, range(most), strict=False)]


def _completed(incomplete: str, ask: Any) -> list[CompletionItem]:
    """What begins so; nothing where no console answers: a shell has no place for an error."""
    try:
        with console_client("completion", _TAB_S) as client:
            words = sorted({word for word in ask(client) if word and word.startswith(incomplete)})
    except TaskmillError:
        return []
    return [CompletionItem(word) for word in words[:_MOST] if word.isprintable()]
