"""Numbers of events are never used twice, also not where all events were deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_INDEXES = {
    "alarms_of_model": ["model", "alarm", "seq"],
    "events_of_batch": ["batch"],
    "events_of_model": ["model", "seq"],
}


def upgrade() -> None:
    """Copy the events of SQLite to a table with AUTOINCREMENT; a sequence of PostgreSQL repeats no number."""
    if op.get_bind().dialect.name != "sqlite":
        return
    for name in _INDEXES:
        op.drop_index(name, "events")
    op.rename_table("events", "events_before")
    op.create_table(
        "events",
        sa.Column("seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("request", sa.String(length=64), nullable=True),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("p_value", sa.Double(), nullable=False),
        sa.Column("alarm", sa.Boolean(), nullable=False),
        sa.Column("reasons", sa.Text(), nullable=True),
        sa.Column("inputs", sa.Text(), nullable=True),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.execute("INSERT INTO events SELECT * FROM events_before")
    op.drop_table("events_before")
    for name, columns in _INDEXES.items():
        op.create_index(name, "events", columns, unique=False)
    # A monitor may have read further than the events that are left.
    op.execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
    op.execute(
        "INSERT INTO sqlite_sequence (name, seq) SELECT 'events', MAX("
        "COALESCE((SELECT MAX(seq) FROM events), 0), COALESCE((SELECT MAX(cursor) FROM monitors), 0))"
    )
