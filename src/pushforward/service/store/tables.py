"""The tables of the store. The migrations make them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

__all__ = [
    "alerts",
    "audit",
    "blocks",
    "deliveries",
    "drift",
    "events",
    "feedback",
    "files",
    "leases",
    "metadata",
    "minutes",
    "models",
    "monitors",
    "state",
    "workers",
]

metadata = MetaData()
_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows itself only where the type is INTEGER

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("loaded", Boolean, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("time", Double, nullable=False),
    UniqueConstraint("name", "version", name="one_version"),
)
files = Table(
    "files",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
events = Table(
    "events",
    metadata,
    Column("seq", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("time", Double, nullable=False),
    Column("model", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("request", String(64)),
    Column("score", Double, nullable=False),
    Column("p_value", Double, nullable=False),
    Column("alarm", Boolean, nullable=False),
    Column("reasons", Text),
    Column("inputs", Text),
    Column("batch", BigInteger, nullable=False),
    Index("events_of_model", "model", "seq"),
    Index("alarms_of_model", "model", "alarm", "seq"),
    Index("events_of_batch", "batch"),
    Index(
        "alarms_by_time",
        "model",
        "time",
        sqlite_where=text("alarm IS 1"),
        postgresql_where=text("alarm IS true"),
    ),
    sqlite_autoincrement=True,  # a number that a monitor has read must not come again when all events were deleted
)
blocks = Table(  # of events with neighboring numbers: in which of them a time can be
    "blocks",
    metadata,
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("earliest", Double, nullable=False),
    Column("latest", Double, nullable=False),
)
feedback = Table(
    "feedback",
    metadata,
    Column("seq", _NUMBER, primary_key=True, autoincrement=True),
    Column("event", String(32), nullable=False, index=True),
    Column("time", Double, nullable=False),
    Column("label", String(32), nullable=False),
    Column("note", Text),
)
monitors = Table(
    "monitors",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("version", String(32), primary_key=True),
    Column("cursor", BigInteger, nullable=False),
    Column("segment", Integer, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("log_evidence", Double, nullable=False),
    Column("bound", Double, nullable=False),
    Column("alarm_at", Double),
    Column("snapshot", LargeBinary),
    Column("snapshot_cursor", BigInteger, nullable=False),
)
drift = Table(
    "drift",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("version", String(32), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("time", Double, nullable=False),
    Column("log_evidence", Double, nullable=False),
    Column("bound", Double, nullable=False),
    Index("drift_by_time", "model", "version", "time"),
)
minutes = Table(
    "minutes",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("version", String(32), primary_key=True),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("rows", BigInteger, nullable=False),
    Column("alarms", BigInteger, nullable=False),
)
alerts = Table(
    "alerts",
    metadata,
    Column("fingerprint", String(16), primary_key=True),
    Column("rule", String(64), nullable=False),
    Column("labels", Text, nullable=False),
    Column("annotations", Text, nullable=False),
    Column("status", String(8), nullable=False),
    Column("starts", Double, nullable=False),
    Column("ends", Double),
    Column("notified", Double, nullable=False),
)
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("receiver", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("time", Double, nullable=False),
    Column("next_try", Double, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("done", Double),
    Column("error", Text),
    Index("open_deliveries", "done", "next_try"),
)
audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("time", Double, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("detail", Text),
    Column("signature", String(128)),
)
state = Table(
    "state",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
workers = Table(
    "workers",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("seen", Double, nullable=False),
    Column("generation", Integer, nullable=False),
)
leases = Table(
    "leases",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", String(32), nullable=False),
    Column("expires", Double, nullable=False),
)
