"""Runs the steps on the connection that open.py passes in."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from taskmill.console.store.tables import METADATA


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=METADATA, version_table="taskmill_schema"
    )
    context.run_migrations()


_run(context.config.attributes["connection"])
