"""Times of blocks of events, so that a search by time does not read the events of other times."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table; the service fills it, also from the events that are there."""
    op.create_table(
        "blocks",
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("earliest", sa.Double(), nullable=False),
        sa.Column("latest", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("start"),
    )
