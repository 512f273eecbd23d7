"""Indexes by time, so that rules of alarms, the page and retention read no older rows."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the indexes."""
    op.create_index(
        "alarms_by_time",
        "events",
        ["model", "time"],
        unique=False,
        sqlite_where=sa.text("alarm IS 1"),
        postgresql_where=sa.text("alarm IS true"),
    )
    op.create_index("drift_by_time", "drift", ["model", "version", "time"], unique=False)
