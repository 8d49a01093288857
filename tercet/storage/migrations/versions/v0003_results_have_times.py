"""Results that wait for their receivers say since when, so that those that nobody fetches can be told.

Those that are there already count from now on.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0003"
down_revision = "0002"

RESULTS = sa.table("results", sa.column("made", sa.Float))


def upgrade(op: Operations) -> None:
    """Add the time."""
    op.add_column("results", sa.Column("made", sa.Float, nullable=True))
    op.execute(RESULTS.update().values(made=time.time()))
