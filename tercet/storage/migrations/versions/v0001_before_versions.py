"""What catalogs had when they got versions: all tables of a new one, and what those of earlier releases lack.

Earlier releases made tables that were not there, and columns that a table lacked, so a catalog without a
version has some of these. It may also have a column of the past.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0001"
down_revision = None

METADATA = sa.MetaData()
ENTRIES = sa.Table(
    "entries",
    METADATA,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(256), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("rules", sa.LargeBinary, nullable=False),
    sa.Column("sources", sa.Text, nullable=False),
    sa.Column("rows", sa.Text, nullable=False),
    sa.Column("orders", sa.Text, nullable=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("expires", sa.Float, nullable=True),
    sa.Column("identity", sa.String(32), nullable=True),
)
sa.Table(
    "handles",
    METADATA,
    sa.Column("handle", sa.String(512), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=True),
)
sa.Table(
    "submitted",
    METADATA,
    sa.Column("run", sa.LargeBinary(16), primary_key=True),
    sa.Column("caller", sa.String(64), nullable=False),
    sa.Column("packed", sa.LargeBinary, nullable=False),
    sa.Column("asked", sa.Float, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("ended", sa.Boolean, nullable=False),
    sa.Column("error", sa.LargeBinary, nullable=False),
    sa.Column("answer", sa.LargeBinary, nullable=False),
    sa.Column("name", sa.LargeBinary(16), nullable=True),
    sa.Column("step", sa.Integer, nullable=True),
)
sa.Table(
    "answers",
    METADATA,
    sa.Column("run", sa.LargeBinary(16), primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("answer", sa.LargeBinary, nullable=False),
)
sa.Table(
    "loose",
    METADATA,
    sa.Column("handle", sa.String(512), primary_key=True),
    sa.Column("caller", sa.String(64), nullable=False),
    sa.Column("sources", sa.Text, nullable=False),
    sa.Column("rows", sa.Text, nullable=False),
    sa.Column("arrangement", sa.String(16), nullable=True),
    sa.Column("identity", sa.String(32), nullable=True),
    sa.Column("bytes", sa.BigInteger, nullable=True),
)
sa.Table(
    "checkpoints",
    METADATA,
    sa.Column("session", sa.LargeBinary(64), primary_key=True),
    sa.Column("point", sa.Integer, primary_key=True),
    sa.Column("run", sa.LargeBinary(16), nullable=False, index=True),
    sa.Column("caller", sa.String(64), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("handles", sa.Text, nullable=False),
    sa.Column("made", sa.Float, nullable=False),
)
sa.Table(
    "runs",
    METADATA,
    sa.Column("run", sa.LargeBinary(16), primary_key=True),
    sa.Column("caller", sa.String(64), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("most", sa.Integer, nullable=False),
    sa.Column("spent", sa.Boolean, nullable=False),
    sa.Column("asked", sa.Float, nullable=False),
)
sa.Table(
    "approvals",
    METADATA,
    sa.Column("run", sa.LargeBinary(16), primary_key=True),
    sa.Column("approver", sa.String(64), primary_key=True),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
    sa.Column("signature", sa.LargeBinary(64), nullable=False),
)
sa.Table(
    "results",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run", sa.LargeBinary(16), nullable=False),
    sa.Column("receiver", sa.String(64), nullable=False, index=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("sender", sa.String(64), nullable=True),
)
sa.Table(
    "audit",
    METADATA,
    sa.Column("lines", sa.Integer, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)
sa.Table(
    "lake_file",
    METADATA,
    sa.Column("packed", sa.LargeBinary, nullable=False),
)
sa.Table(
    "restored",
    METADATA,
    sa.Column("node", sa.String(256), nullable=False),
    sa.Column("made", sa.String(32), nullable=False),
)
sa.Table(
    "data_key",
    METADATA,
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
)
sa.Table(
    "peer_logs",
    METADATA,
    sa.Column("node", sa.String(256), primary_key=True),
    sa.Column("lines", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("had", sa.BigInteger, nullable=True),
    sa.Column("has", sa.BigInteger, nullable=True),
    sa.Column("noticed", sa.Float, nullable=True),
)
sa.Table(
    "steps",
    METADATA,
    sa.Column("computation", sa.LargeBinary(16), primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("caller", sa.String(64), nullable=False),
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("facts", sa.LargeBinary, nullable=False),
    sa.Column("made", sa.Float, nullable=False),
    sa.Column("ends", sa.Integer, nullable=True),
)
sa.Table(
    "uses",
    METADATA,
    sa.Column("source", sa.String(32), primary_key=True),
    sa.Column("computation", sa.LargeBinary(16), primary_key=True),
)
sa.Table(
    "studies",
    METADATA,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),
    sa.Column("analyst", sa.String(64), nullable=False, index=True),
    sa.Column("packed", sa.LargeBinary, nullable=False),
    sa.Column("proposed", sa.Float, nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("refusal", sa.Text, nullable=False),
)
sa.Table(
    "study_approvals",
    METADATA,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),
    sa.Column("approver", sa.String(64), primary_key=True),
    sa.Column("uses", sa.Integer, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("signature", sa.LargeBinary(64), nullable=False),
)
sa.Table(
    "study_models",
    METADATA,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),
    sa.Column("name", sa.String(256), primary_key=True),
    sa.Column("sources", sa.Text, nullable=False),
)
sa.Table(
    "study_runs",
    METADATA,
    sa.Column("run", sa.LargeBinary(16), primary_key=True),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, index=True),
    sa.Column("began", sa.Float, nullable=False),
    sa.Column("ended", sa.Boolean, nullable=False),
)
sa.Table(
    "study_steps",
    METADATA,
    sa.Column("run", sa.LargeBinary(16), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("computation", sa.LargeBinary(16), nullable=False),
)


def upgrade(op: Operations) -> None:
    """Make what is missing. Entries get identities if they have none.

    What was made from tables before names them and not their identities, so it belongs to none of them: it
    has to be made anew.
    """
    connection = op.get_bind()
    METADATA.create_all(connection)
    there = sa.inspect(connection)
    for table in METADATA.tables.values():
        known = {column["name"] for column in there.get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                op.add_column(table.name, sa.Column(column.name, column.type, nullable=True))
        for name in sorted(known.difference(table.columns.keys())):
            # What is not null has no value in rows to come, so it cannot stay.
            op.drop_column(table.name, name)
    # An entry that did not say by the rows of which tables it is may be by those of all.
    op.execute(ENTRIES.update().where(ENTRIES.c.rows.is_(None)).values(rows=ENTRIES.c.sources))
    nameless = sa.select(ENTRIES.c.kind, ENTRIES.c.name).where(ENTRIES.c.identity.is_(None))
    for kind, name in connection.execute(nameless).all():
        same = (ENTRIES.c.kind == kind) & (ENTRIES.c.name == name)
        op.execute(ENTRIES.update().where(same).values(identity=secrets.token_hex(16)))
