"""Computations in the journal of a node: which steps have come to their end, and how many use each table.

They lie in the database of the catalog, as the rest of the journal does. Every method is one transaction, and
blocks: call it in a thread. Uses are counted where they are held against what an owner allows, so that of
computations at once none is overlooked. Nothing here is secret.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import attrs
import sqlalchemy as sa

from tercet.storage.catalog import METADATA, Catalog

STEPS = sa.Table(
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
USES = sa.Table(
    "uses",
    METADATA,
    sa.Column("source", sa.String(32), primary_key=True),
    sa.Column("computation", sa.LargeBinary(16), primary_key=True),
)
FORGOTTEN = "forgotten"
"""In the place of a table, which has another identity: what made room is used no more."""


@attrs.frozen
class StepRow:
    """A step of a computation that has come to its end: whose, what was asked, and public facts on it.

    `ends` is how often it has, None for once.
    """

    computation: bytes
    step: int
    caller: str
    request: bytes = attrs.field(repr=False)
    facts: bytes = attrs.field(repr=False)
    made: float = attrs.field(factory=time.time)
    ends: int | None = None


class StepJournal:
    """Computations that a node knows, in the database of its catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._begin = catalog.begin

    def steps(self, computation: bytes) -> list[StepRow]:
        """The steps of a computation that have come to their end, in order."""
        query = sa.select(STEPS).where(STEPS.c.computation == computation).order_by(STEPS.c.step)
        with self._begin() as connection:
            return [StepRow(**row) for row in connection.execute(query).mappings()]

    def put_step(self, row: StepRow, most: int) -> int:
        """Note a step, in the place of an earlier attempt at it; a member's oldest beyond `most` go.

        How often it has come to its end, now included. The names of computations that go stay; see
        `forgotten`.
        """
        mine = STEPS.c.caller == row.caller
        same = (STEPS.c.computation == row.computation) & (STEPS.c.step == row.step)
        with self._begin() as connection:
            ends = 1 + _ends(connection, same)
            connection.execute(STEPS.delete().where(same))
            connection.execute(STEPS.insert().values(**attrs.asdict(attrs.evolve(row, ends=ends))))
            old = sa.select(STEPS.c.made).where(mine).order_by(STEPS.c.made.desc()).offset(most).limit(1)
            before = connection.execute(old).scalar()
            if before is not None:
                gone = mine & (STEPS.c.made <= before)
                names = set(connection.execute(sa.select(STEPS.c.computation).where(gone)).scalars())
                for name in names:
                    known = (USES.c.source == FORGOTTEN) & (USES.c.computation == name)
                    connection.execute(USES.delete().where(known))
                    connection.execute(USES.insert().values(source=FORGOTTEN, computation=name))
                connection.execute(STEPS.delete().where(gone))
        return ends

    def forgotten(self, computation: bytes) -> bool:
        """Whether steps of a computation have made room for others."""
        known = (USES.c.source == FORGOTTEN) & (USES.c.computation == computation)
        with self._begin() as connection:
            return connection.execute(sa.select(USES.c.source).where(known)).first() is not None

    def ends(self, computation: bytes, step: int) -> int:
        """How often a step of a computation has come to its end."""
        with self._begin() as connection:
            return _ends(connection, (STEPS.c.computation == computation) & (STEPS.c.step == step))

    def uses(self, source: str, but: bytes) -> int:
        """By how many computations of others a table was used, `but` for one."""
        counted = (USES.c.source == source) & (USES.c.computation != but)
        with self._begin() as connection:
            return int(connection.execute(sa.select(sa.func.count()).where(counted)).scalar_one())

    def use(self, most: Mapping[str, int | None], computation: bytes) -> str | None:
        """Count that a computation uses tables, each of which counts it once and counts `most` of them.

        A table that was used so often already, if there is one: then nothing is counted.
        """
        with self._begin() as connection:
            known = set(
                connection.execute(
                    sa.select(USES.c.source).where(USES.c.computation == computation)
                ).scalars()
            )
            new = sorted(most.keys() - known)
            for source in new:
                used = sa.select(sa.func.count()).where(USES.c.source == source)
                limit = most[source]
                if limit is not None and connection.execute(used).scalar_one() >= limit:
                    return source
            for source in new:
                connection.execute(USES.insert().values(source=source, computation=computation))
        return None


def _ends(connection: sa.Connection, same: sa.ColumnElement[bool]) -> int:
    found = connection.execute(sa.select(STEPS.c.ends).where(same)).first()
    return 0 if found is None else int(found.ends or 1)
