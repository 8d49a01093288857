"""Studies in the journal of a node: what was proposed, who has signed it, and what each run has come to.

They lie in the database of the catalog, as the rest of the journal does. Every method is one transaction, and
blocks: call it in a thread. Uses are counted by the runs that have begun, so that a restart forgets none; and
a run knows which request was which computation, so that none is done twice. Nothing here is secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import sqlalchemy as sa

from tercet.storage.catalog import METADATA, SEPARATOR, Catalog

STUDIES = sa.Table(
    "studies",
    METADATA,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),
    sa.Column("analyst", sa.String(64), nullable=False, index=True),
    sa.Column("packed", sa.LargeBinary, nullable=False),
    sa.Column("proposed", sa.Float, nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("refusal", sa.Text, nullable=False),
)
APPROVALS = sa.Table(
    "study_approvals",
    METADATA,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),
    sa.Column("approver", sa.String(64), primary_key=True),
    sa.Column("uses", sa.Integer, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("signature", sa.LargeBinary(64), nullable=False),
)
MODELS = sa.Table(
    "study_models",
    METADATA,
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),
    sa.Column("name", sa.String(256), primary_key=True),
    sa.Column("sources", sa.Text, nullable=False),
)
RUNS = sa.Table(
    "study_runs",
    METADATA,
    sa.Column("run", sa.LargeBinary(16), primary_key=True),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, index=True),
    sa.Column("began", sa.Float, nullable=False),
    sa.Column("ended", sa.Boolean, nullable=False),
)
STEPS = sa.Table(
    "study_steps",
    METADATA,
    sa.Column("run", sa.LargeBinary(16), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("computation", sa.LargeBinary(16), nullable=False),
)


@attrs.frozen
class StudyRow:
    """A study: whose, its canonical bytes, when it was proposed, and the sentence that refuses it, if any.

    Its approvals are the fields that they were made of; `runs` is how many have begun. `models` are the kept
    models that it names, and the tables that each was made from when the study was proposed.
    """

    digest: bytes
    analyst: str
    packed: bytes = attrs.field(repr=False)
    proposed: float
    refusal: str
    approvals: tuple[Mapping[str, Any], ...]
    runs: int
    models: Mapping[str, tuple[str, ...]]


@attrs.frozen
class RunRow:
    """A run of a study: of which, whether it has ended, and the computation at each position so far."""

    digest: bytes
    ended: bool
    steps: Mapping[int, bytes]


class StudyJournal:
    """The studies of a node, in the database of its catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._begin = catalog.begin

    def propose(
        self,
        digest: bytes,
        fields: Mapping[str, Any],
        most: int,
        models: Mapping[str, tuple[str, ...]],
    ) -> bool:
        """Note a study, unless its analyst has so many already; whether it is there. Again does nothing."""
        with self._begin() as connection:
            if connection.execute(sa.select(STUDIES.c.digest).where(STUDIES.c.digest == digest)).first():
                return True
            mine = sa.select(sa.func.count()).select_from(STUDIES)
            if connection.execute(mine.where(STUDIES.c.analyst == fields["analyst"])).scalar_one() >= most:
                return False
            connection.execute(STUDIES.insert().values(digest=digest, refusal="", **fields))
            for name, tables in models.items():
                sources = SEPARATOR.join(tables)
                connection.execute(MODELS.insert().values(digest=digest, name=name, sources=sources))
            return True

    def find(self, digest: bytes) -> StudyRow | None:
        """A study by its digest."""
        with self._begin() as connection:
            found = _read(connection, STUDIES.c.digest == digest)
        return found[0] if found else None

    def page(self, after: tuple[float, bytes], most: int) -> list[StudyRow]:
        """The next studies, so many, in the order in which they were proposed, by time and digest."""
        proposed, digest = after
        later = (STUDIES.c.proposed > proposed) | (
            (STUDIES.c.proposed == proposed) & (STUDIES.c.digest > digest)
        )
        with self._begin() as connection:
            return _read(connection, later, most)

    def approve(self, approval: Mapping[str, Any]) -> None:
        """Note an approval; a later one of the same owner replaces it."""
        with self._begin() as connection:
            mine = APPROVALS.c.approver == approval["approver"]
            connection.execute(APPROVALS.delete().where((APPROVALS.c.digest == approval["digest"]) & mine))
            connection.execute(APPROVALS.insert().values(**approval))

    def refuse(self, digest: bytes, why: str) -> None:
        """Note why a study is refused, the first time; its approvals count no more."""
        with self._begin() as connection:
            open_still = (STUDIES.c.digest == digest) & (STUDIES.c.refusal == "")
            connection.execute(STUDIES.update().where(open_still).values(refusal=why))
            connection.execute(APPROVALS.delete().where(APPROVALS.c.digest == digest))

    def begin_run(self, run: bytes, digest: bytes, most: int, now: float) -> bool:
        """Count a run, unless so many have begun; whether it counts. Again does nothing.

        A run of this name of another study counts as none of this one.
        """
        with self._begin() as connection:
            # The row is locked by being changed: runs that begin at once are counted one by one.
            touched = STUDIES.update().where(STUDIES.c.digest == digest).values(digest=digest)
            if not connection.execute(touched).rowcount:
                return False
            known = connection.execute(sa.select(RUNS).where(RUNS.c.run == run)).first()
            if known is not None:
                return bool(known.digest == digest)
            begun = sa.select(sa.func.count()).select_from(RUNS).where(RUNS.c.digest == digest)
            if connection.execute(begun).scalar_one() >= most:
                return False
            connection.execute(RUNS.insert().values(run=run, digest=digest, began=now, ended=False))
            return True

    def run(self, run: bytes) -> RunRow | None:
        """A run."""
        with self._begin() as connection:
            found = connection.execute(sa.select(RUNS).where(RUNS.c.run == run)).first()
            if found is None:
                return None
            steps = connection.execute(sa.select(STEPS).where(STEPS.c.run == run))
            return RunRow(found.digest, found.ended, {row.position: row.computation for row in steps})

    def take_step(self, run: bytes, position: int, computation: bytes) -> bool:
        """Note that a computation is the one at a position; whether it is, and at no other. Again is fine."""
        with self._begin() as connection:
            touched = RUNS.update().where((RUNS.c.run == run) & ~RUNS.c.ended).values(run=run)
            if not connection.execute(touched).rowcount:
                return False
            same = (STEPS.c.position == position) | (STEPS.c.computation == computation)
            known = connection.execute(sa.select(STEPS).where((STEPS.c.run == run) & same)).all()
            if known:
                return [(row.position, row.computation) for row in known] == [(position, computation)]
            connection.execute(STEPS.insert().values(run=run, position=position, computation=computation))
            return True

    def end_run(self, run: bytes) -> None:
        """A run takes no more requests."""
        with self._begin() as connection:
            connection.execute(RUNS.update().where(RUNS.c.run == run).values(ended=True))

    def sweep(self, before: float) -> list[bytes]:
        """Forget studies whose time was up before a time, and all about them; their digests.

        Nothing can be done any more under one of them.
        """
        with self._begin() as connection:
            old = list(
                connection.execute(sa.select(STUDIES.c.digest).where(STUDIES.c.until < before)).scalars()
            )
            runs = sa.select(RUNS.c.run).where(RUNS.c.digest.in_(old))
            connection.execute(STEPS.delete().where(STEPS.c.run.in_(runs)))
            for table in (RUNS, APPROVALS, MODELS, STUDIES):
                connection.execute(table.delete().where(table.c.digest.in_(old)))
            return old


def _read(connection: sa.Connection, where: sa.ColumnElement[bool], most: int = 1) -> list[StudyRow]:
    in_order = sa.select(STUDIES).where(where).order_by(STUDIES.c.proposed, STUDIES.c.digest)
    rows = connection.execute(in_order.limit(most)).all()
    found = []
    for row in rows:
        approvals = connection.execute(
            sa.select(APPROVALS).where(APPROVALS.c.digest == row.digest).order_by(APPROVALS.c.approver)
        ).mappings()
        begun = sa.select(sa.func.count()).select_from(RUNS).where(RUNS.c.digest == row.digest)
        models = connection.execute(sa.select(MODELS).where(MODELS.c.digest == row.digest)).all()
        found.append(
            StudyRow(
                row.digest,
                row.analyst,
                row.packed,
                row.proposed,
                row.refusal,
                tuple(dict(one) for one in approvals),
                connection.execute(begun).scalar_one(),
                {one.name: tuple(filter(None, one.sources.split(SEPARATOR))) for one in models},
            )
        )
    return found
