"""What a node knows of its peers' audit logs, in the database of the catalog: how far each had come.

Also how far back the log of a peer has gone, when that was noticed last. Every method is one transaction, and
blocks: call it in a thread.
"""

from __future__ import annotations

import attrs
import sqlalchemy as sa

from tercet.storage.catalog import METADATA, Catalog

PEER_LOGS = sa.Table(
    "peer_logs",
    METADATA,
    sa.Column("node", sa.String(256), primary_key=True),
    sa.Column("lines", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("had", sa.BigInteger, nullable=True),
    sa.Column("has", sa.BigInteger, nullable=True),
    sa.Column("noticed", sa.Float, nullable=True),
)


@attrs.frozen
class PeerRow:
    """The log of a node: lines and the hash of the last one, as it has told itself.

    When it was `noticed` to have gone back, in seconds since 1970, from how many lines to how many.
    """

    node: str
    lines: int
    digest: str
    had: int | None = None
    has: int | None = None
    noticed: float | None = None


class PeerRows:
    """How far the logs of the other nodes have come."""

    def __init__(self, catalog: Catalog) -> None:
        self._begin = catalog.begin

    def all(self) -> list[PeerRow]:
        """All that are known."""
        with self._begin() as connection:
            rows = connection.execute(sa.select(PEER_LOGS).order_by(PEER_LOGS.c.node)).mappings()
            return [PeerRow(**row) for row in rows]

    def find(self, node: str) -> PeerRow | None:
        """That of a node, if it has told it."""
        return next((row for row in self.all() if row.node == node), None)

    def put(self, row: PeerRow) -> None:
        """Remember that of a node."""
        with self._begin() as connection:
            connection.execute(PEER_LOGS.delete().where(PEER_LOGS.c.node == row.node))
            connection.execute(PEER_LOGS.insert().values(**attrs.asdict(row)))
