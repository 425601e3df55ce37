"""The first schema: a frozen copy of tables.py as it was."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import TEXT as POSTGRES_TEXT

revision = "1"
down_revision = None

_TEXT = Text().with_variant(POSTGRES_TEXT(collation="C"), "postgresql")
_LONG = BigInteger().with_variant(Integer(), "sqlite")


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, _TEXT, nullable=null)


def _long(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, _LONG, nullable=null)


def _bytes(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=True)


_METADATA = MetaData()
_TASKS = Table(
    "tasks",
    _METADATA,
    _text("queue"),
    _text("id"),
    _long("generation"),
    _long("seq"),
    _long("rank"),
    _long("attempt"),
    _text("status"),
    _text("name"),
    _text("worker", null=True),
    _long("enqueued_at"),
    _long("started_at", null=True),
    _long("finished_at", null=True),
    _long("next_attempt_at", null=True),
    _text("error_type", null=True),
    _text("error_message", null=True),
    _text("fingerprint", null=True),
    _bytes("result"),
    _text("content_type", null=True),
    _text("large", null=True),
    _long("result_expires_at", null=True),
    _long("partition"),
    _long("offset"),
    _long("updated_at"),
    _long("record_offset"),
    _long("task_generation", null=True),
    _long("task_seq", null=True),
    _long("task_at", null=True),
    _long("task_offset", null=True),
    _bytes("payload"),
    _text("payload_type", null=True),
    _long("payload_bytes", null=True),
    _text("lock_key", null=True),
    _text("parent_id", null=True),
    _long("changed"),
    PrimaryKeyConstraint("queue", "id"),
)
Index("tasks_listed", _TASKS.c.enqueued_at, _TASKS.c.queue, _TASKS.c.id)
Index("tasks_changed", _TASKS.c.changed)
_NOT_SUCCEEDED = text("status <> 'succeeded'")
Index(
    "tasks_not_succeeded",
    _TASKS.c.status,
    _TASKS.c.enqueued_at,
    sqlite_where=_NOT_SUCCEEDED,
    postgresql_where=_NOT_SUCCEEDED,
)
_HAS_PARENT = text("parent_id IS NOT NULL")
Index("tasks_children", _TASKS.c.parent_id, sqlite_where=_HAS_PARENT, postgresql_where=_HAS_PARENT)

Table(
    "attempts",
    _METADATA,
    _text("queue"),
    _text("id"),
    _long("generation"),
    _long("seq"),
    _long("rank"),
    _long("attempt"),
    _text("status"),
    _text("name"),
    _text("worker", null=True),
    _long("enqueued_at"),
    _long("started_at", null=True),
    _long("finished_at", null=True),
    _long("next_attempt_at", null=True),
    _text("error_type", null=True),
    _text("error_message", null=True),
    _text("fingerprint", null=True),
    _long("updated_at"),
    _long("record_offset"),
    PrimaryKeyConstraint("queue", "id", "generation", "seq"),
)

_RESULTS = Table(
    "results",
    _METADATA,
    _text("queue"),
    _text("id"),
    _long("generation"),
    _long("seq"),
    _long("at"),
    _long("record_offset"),
    _bytes("result"),
    _text("content_type", null=True),
    _text("error_type", null=True),
    _text("error_message", null=True),
    _text("fingerprint", null=True),
    _text("stack", null=True),
    PrimaryKeyConstraint("queue", "id"),
)
Index("results_at", _RESULTS.c.at)

_LETTERS = Table(
    "letters",
    _METADATA,
    _text("queue"),
    _text("topic_id"),
    _long("partition"),
    _long("offset"),
    _text("id", null=True),
    _text("name", null=True),
    _text("reason"),
    _text("error_type"),
    _text("error_message"),
    _text("fingerprint"),
    _long("died_at", null=True),
    _long("attempts"),
    _long("generation"),
    _long("replayed_at", null=True),
    _text("replay", null=True),
    _long("changed"),
    PrimaryKeyConstraint("queue", "topic_id", "partition", "offset"),
)
Index(
    "letters_listed",
    _LETTERS.c.died_at,
    _LETTERS.c.queue,
    _LETTERS.c.partition,
    _LETTERS.c.offset,
)

Table(
    "minutes",
    _METADATA,
    _text("queue"),
    _text("name"),
    _long("minute"),
    _text("outcome"),
    _long("count"),
    _long("runs"),
    _long("run_ms"),
    _long("waits"),
    _long("wait_ms"),
    *(_long(f"run_{i}") for i in range(18)),
    *(_long(f"wait_{i}") for i in range(18)),
    PrimaryKeyConstraint("minute", "queue", "name", "outcome"),
)

Table(
    "counts",
    _METADATA,
    _text("queue"),
    _text("name"),
    _text("status"),
    _long("count"),
    PrimaryKeyConstraint("queue", "name", "status"),
)

Table(
    "offsets",
    _METADATA,
    _text("topic"),
    _long("partition"),
    _text("topic_id"),
    _long("next_offset"),
    _long("time"),
    PrimaryKeyConstraint("topic", "partition"),
)

Table(
    "counter",
    _METADATA,
    Column("one", Integer, primary_key=True, autoincrement=False),
    _long("value"),
    _text("holder"),
    _long("beat"),
    _long("as_of"),
    _text("progress"),
)

Table(
    "store",
    _METADATA,
    Column("one", Integer, primary_key=True, autoincrement=False),
    _text("uuid"),
    _long("created_at"),
)


def upgrade() -> None:
    """Make the tables."""
    _METADATA.create_all(op.get_bind(), checkfirst=False)
