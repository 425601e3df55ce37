"""A typed client of the console's HTTP API, for programs and our own commands (docs/client.md)."""

from taskmill.console.client.client import AsyncClient, Client
from taskmill.console.client.events import Event

__all__ = ["AsyncClient", "Client", "Event"]
