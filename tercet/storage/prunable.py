"""What of a catalog nobody may miss: results and jobs of long ago, and what members who are gone have kept.

A running node has told its members of all this and knows it in memory, so it is removed only while the node
does not run, in one transaction. Runs stay known as spent, so none of their names is used again.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import sqlalchemy as sa

from tercet.storage.catalog import ENTRIES, HANDLES, Catalog
from tercet.storage.job_rows import ANSWERS, JOBS
from tercet.storage.journal import LOOSE, RESULTS


@attrs.frozen
class Amount:
    """How many of something there are, and how many bytes they have."""

    count: int
    size: int


@attrs.frozen
class Prunable:
    """What was made `before` a time and is over, and what belongs to members who are `gone`."""

    catalog: Catalog
    before: float
    gone: Sequence[str] = ()

    @property
    def _results(self) -> sa.ColumnElement[bool]:
        return RESULTS.c.made < self.before

    @property
    def _jobs(self) -> sa.ColumnElement[bool]:
        return JOBS.c.ended & (JOBS.c.asked < self.before)

    def results(self) -> Amount:
        """Results that their receivers have not fetched."""
        size = sa.func.coalesce(sa.func.sum(sa.func.length(RESULTS.c.body)), 0)
        with self.catalog.begin() as connection:
            query = sa.select(sa.func.count(), size).select_from(RESULTS).where(self._results)
            return Amount(*map(int, connection.execute(query).one()))

    def jobs(self) -> Amount:
        """Jobs that have ended, with what they gave."""
        held = sa.func.length(JOBS.c.answer) + sa.func.length(JOBS.c.packed)
        size = sa.func.coalesce(sa.func.sum(held), 0)
        steps = sa.func.coalesce(sa.func.sum(sa.func.length(ANSWERS.c.answer)), 0)
        with self.catalog.begin() as connection:
            query = sa.select(sa.func.count(), size).select_from(JOBS).where(self._jobs)
            count, own = connection.execute(query).one()
            of_jobs = ANSWERS.c.run.in_(sa.select(JOBS.c.run).where(self._jobs))
            earlier = connection.execute(sa.select(steps).where(of_jobs)).scalar_one()
            return Amount(int(count), int(own) + int(earlier))

    def kept(self) -> Amount:
        """Tables and models of members who are gone."""
        with self.catalog.begin() as connection:
            count = connection.execute(
                sa.select(sa.func.count()).select_from(ENTRIES).where(ENTRIES.c.owner.in_(self.gone))
            ).scalar_one()
            same = (HANDLES.c.kind == ENTRIES.c.kind) & (HANDLES.c.name == ENTRIES.c.name)
            size = connection.execute(
                sa.select(sa.func.coalesce(sa.func.sum(HANDLES.c.bytes), 0))
                .select_from(HANDLES.join(ENTRIES, same))
                .where(ENTRIES.c.owner.in_(self.gone))
            ).scalar_one()
            return Amount(int(count), int(size))

    def remove(self) -> list[str]:
        """Remove all of it from the catalog; the handles of values that count no more."""
        with self.catalog.begin() as connection:
            connection.execute(RESULTS.delete().where(self._results))
            connection.execute(
                ANSWERS.delete().where(ANSWERS.c.run.in_(sa.select(JOBS.c.run).where(self._jobs)))
            )
            connection.execute(JOBS.delete().where(self._jobs))
            theirs = sa.select(ENTRIES.c.kind, ENTRIES.c.name).where(ENTRIES.c.owner.in_(self.gone))
            handles: list[str] = []
            for kind, name in connection.execute(theirs).all():
                same = (HANDLES.c.kind == kind) & (HANDLES.c.name == name)
                mine = list(connection.execute(sa.select(HANDLES.c.handle).where(same)).scalars())
                for handle in mine:  # a crash may have left it loose as well
                    connection.execute(LOOSE.delete().where(LOOSE.c.handle == handle))
                handles += mine
                connection.execute(HANDLES.delete().where(same))
                connection.execute(
                    ENTRIES.delete().where((ENTRIES.c.kind == kind) & (ENTRIES.c.name == name))
                )
            return handles
