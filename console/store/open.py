"""Opening a store: the claim on its file, the connection pool, the steps of its schema."""

from __future__ import annotations

import uuid
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, insert, select, text
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError

from taskmill.console.store.address import SETTING, Address, FileClaim, address_of
from taskmill.console.store.errors import first_line, is_passing
from taskmill.console.store.store import Store
from taskmill.console.store.tables import COUNTER, STORE
from taskmill.runtime.clock import SYSTEM_CLOCK, Clock
from taskmill.runtime.errors import ConfigError, Unreachable

_SCRIPTS = "taskmill.console.store:migrations"
_VERSION_TABLE = "taskmill_schema"
#: Of PostgreSQL's advisory locks: consoles that start together make the tables once. "taskmill".
_STEPS_LOCK = 0x7461736B6D696C6C
_CONNECT_S = 5
#: Threads of the API that read at once, beyond which they wait; and for how long.
_POOL, _POOL_WAIT_S = 20, 5


def open_store(url: str, clock: Clock = SYSTEM_CLOCK, *, claimed: bool = True) -> Store:
    """The store at `url` (sqlite:///path or postgresql://…), its schema brought up to date.

    `claimed=False`: another process of this console holds the file.
    Raises ConfigError for a URL that is none, a SQLite file that another console uses or that is
    none, and a store that a newer version wrote; Unreachable where the database is away.
    """
    address = address_of(url)
    claim = FileClaim(address.file) if claimed and address.file is not None else None
    try:
        engine = _engine(address)
        try:
            identity = _prepare(engine, address, clock)
        except BaseException:
            engine.dispose()
            raise
        return Store(engine, identity, address.shown, claim)
    except BaseException:
        if claim is not None:
            claim.release()
        raise


def _engine(address: Address) -> Engine:
    arguments: dict[str, Any] = {"timeout": 10}
    if address.file is None:
        arguments = {
            "connect_timeout": _CONNECT_S,
            # A machine that is gone is noticed within half a minute.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
            "application_name": "taskmill console",
        }
        # What the URL says holds.
        arguments = {k: v for k, v in arguments.items() if k not in address.url.query}
    try:
        engine = create_engine(
            address.url,
            connect_args=arguments,
            # They hold results, and would be in the log, and in what is raised.
            hide_parameters=True,
            pool_size=5,
            max_overflow=_POOL - 5,
            pool_timeout=_POOL_WAIT_S,
            # After a restart of the server each connection of the pool would fail once.
            pool_pre_ping=address.file is None,
        )
    except (ArgumentError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError):
            raise ConfigError(
                f"{SETTING}: PostgreSQL needs psycopg: pip install 'taskmill[console,postgres]'"
            ) from None
        raise ConfigError(f"{SETTING}: {first_line(error)}") from None
    if address.file is not None:
        event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        # A machine's crash may take the last transactions, rows and offsets alike.
        "synchronous = NORMAL",
        "cache_size = -65536",
        "temp_store = MEMORY",
        "busy_timeout = 10000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _prepare(engine: Engine, address: Address, clock: Clock) -> str:
    """Run the steps that are missing; the store's UUID."""
    try:
        with engine.begin() as connection:
            if address.file is None:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_STEPS_LOCK})"))
            _migrate(connection, address.shown)
            return _identity(connection, clock)
    except SQLAlchemyError as error:
        said = f"the store at {address.shown}: {first_line(error)}"
        if address.file is not None and isinstance(error, DatabaseError):
            said += "; a store may be deleted, it is made again from Kafka"
        if is_passing(error):
            raise Unreachable(said) from None
        raise ConfigError(said) from None


def _migrate(connection: Connection, shown: str) -> None:
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    context = MigrationContext.configure(connection, opts={"version_table": _VERSION_TABLE})
    found = context.get_current_revision()
    if found is not None and found not in known:
        raise ConfigError(
            f"the store at {shown} was written by a newer taskmill (schema {found}, this one knows "
            f"up to {scripts.get_current_head()}): upgrade, or use another store"
        )
    if found != scripts.get_current_head():
        command.upgrade(config, "head")


def _identity(connection: Connection, clock: Clock) -> str:
    found = connection.execute(select(STORE.c.uuid)).scalar()
    if found is not None:
        return str(found)
    made = str(uuid.uuid4())
    connection.execute(insert(STORE).values(one=1, uuid=made, created_at=clock.now_ms()))
    first = {"one": 1, "value": 0, "holder": "", "beat": 0, "as_of": 0, "progress": "{}"}
    connection.execute(insert(COUNTER).values(**first))
    return made
