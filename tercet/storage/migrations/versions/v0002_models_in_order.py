"""Descriptions of models say what was minimised in one order, so that all nodes have the same bytes.

Each node wrote the options in an order of its own, unless all were forked from one process, and members were
told that the nodes had different models.
"""

from __future__ import annotations

import msgpack
import sqlalchemy as sa
from alembic.operations import Operations

revision = "0002"
down_revision = "0001"

ENTRIES = sa.table("entries", sa.column("kind"), sa.column("name"), sa.column("body", sa.LargeBinary))


def upgrade(op: Operations) -> None:
    """Write the descriptions anew. What is none stays, and is refused when it is used, as before."""
    models = sa.select(ENTRIES.c.name, ENTRIES.c.body).where(ENTRIES.c.kind == "model")
    for name, body in op.get_bind().execute(models).all():
        try:
            facts = msgpack.unpackb(body)
            facts["objective"] = dict(sorted(facts["objective"].items()))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        same = (ENTRIES.c.kind == "model") & (ENTRIES.c.name == name)
        op.execute(ENTRIES.update().where(same).values(body=msgpack.packb(facts)))
