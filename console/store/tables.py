"""The store's tables, for both databases. What is in them, and why: docs/console-store.md."""

from __future__ import annotations

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

from taskmill.console.store.rows import BUCKETS

METADATA = MetaData()

#: IDs and names in the order of their bytes, in both databases: a cursor's order is the index's.
_TEXT = Text().with_variant(POSTGRES_TEXT(collation="C"), "postgresql")
#: SQLite's own integer has 64 bits, and any other name costs it the alias of its row number.
_LONG = BigInteger().with_variant(Integer(), "sqlite")


def _text(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, _TEXT, nullable=null)


def _long(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, _LONG, nullable=null)


def _bytes(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=True)


#: One row a task. First what its newest state says (by generation, seq, rank, updated_at,
#: record_offset), then what its record on `tasks` says.
TASKS = Table(
    "tasks",
    METADATA,
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
Index("tasks_listed", TASKS.c.enqueued_at, TASKS.c.queue, TASKS.c.id)
Index("tasks_changed", TASKS.c.changed)
#: Most tasks went well, and a list of those is the list of all.
NOT_SUCCEEDED = text("status <> 'succeeded'")
Index(
    "tasks_not_succeeded",
    TASKS.c.status,
    TASKS.c.enqueued_at,
    sqlite_where=NOT_SUCCEEDED,
    postgresql_where=NOT_SUCCEEDED,
)
_HAS_PARENT = text("parent_id IS NOT NULL")
Index("tasks_children", TASKS.c.parent_id, sqlite_where=_HAS_PARENT, postgresql_where=_HAS_PARENT)

#: The best state of each (generation, seq) but the newest one, which is the task's row; none for
#: one that is known to be queued only.
ATTEMPTS = Table(
    "attempts",
    METADATA,
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

#: Results and errors too large for a state: the newest of each task.
RESULTS = Table(
    "results",
    METADATA,
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
Index("results_at", RESULTS.c.at)

#: Dead letters, by the DLQ's UUID and their place in it. died_at NULL: only the word that it was
#: replayed has been read.
LETTERS = Table(
    "letters",
    METADATA,
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
    LETTERS.c.died_at,
    LETTERS.c.queue,
    LETTERS.c.partition,
    LETTERS.c.offset,
)

#: Attempts that ended in one minute (its start), for charts.
MINUTES = Table(
    "minutes",
    METADATA,
    _text("queue"),
    _text("name"),
    _long("minute"),
    _text("outcome"),
    _long("count"),
    _long("runs"),
    _long("run_ms"),
    _long("waits"),
    _long("wait_ms"),
    *(_long(f"run_{i}") for i in range(BUCKETS)),
    *(_long(f"wait_{i}") for i in range(BUCKETS)),
    PrimaryKeyConstraint("minute", "queue", "name", "outcome"),
)

#: How many rows of `tasks` are so; kept with them, since to count millions takes seconds.
COUNTS = Table(
    "counts",
    METADATA,
    _text("queue"),
    _text("name"),
    _text("status"),
    _long("count"),
    PrimaryKeyConstraint("queue", "name", "status"),
)

#: Up to which record each partition was projected.
OFFSETS = Table(
    "offsets",
    METADATA,
    _text("topic"),
    _long("partition"),
    _text("topic_id"),
    _long("next_offset"),
    _long("time"),
    PrimaryKeyConstraint("topic", "partition"),
)

#: One row. Every projection transaction takes it first: it gives the numbers of changes, and holds
#: off all but the one console that projects. `progress`: JSON, {topic: [lag, as_of]}.
COUNTER = Table(
    "counter",
    METADATA,
    Column("one", Integer, primary_key=True, autoincrement=False),
    _long("value"),
    _text("holder"),
    _long("beat"),
    _long("as_of"),
    _text("progress"),
)

#: One row: which store this is.
STORE = Table(
    "store",
    METADATA,
    Column("one", Integer, primary_key=True, autoincrement=False),
    _text("uuid"),
    _long("created_at"),
)
