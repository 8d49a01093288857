"""The part of a node's journal that has its jobs: what they are, where they stand, what came out, sealed.

A job may be several plans. Its row has the one that it is at, and moves to the next in the transaction that
ends the run before; sealed answers of those that have ended lie beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import attrs
import sqlalchemy as sa

from tercet.storage.catalog import METADATA

JOBS = sa.Table(
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
ANSWERS = sa.Table(
    "answers",
    METADATA,
    sa.Column("run", sa.LargeBinary(16), primary_key=True),
    sa.Column("step", sa.Integer, primary_key=True),
    sa.Column("answer", sa.LargeBinary, nullable=False),
)


@attrs.frozen
class JobRow:
    """A job: whose, what, when, how often it was begun again.

    And whether it has ended, with the packed error if that is how it ended. `step` is the number of the plan
    that `packed` asks for, of a job that is several, and `name` that of the run which it is.
    """

    run: bytes
    caller: str
    packed: bytes = attrs.field(repr=False)
    asked: float
    attempts: int = 0
    ended: bool = False
    error: bytes = b""
    name: bytes | None = None
    step: int | None = None


@attrs.frozen
class JobEnd:
    """What a run is the end of: of a job, with a sealed answer, or of a step of one.

    Then the next step is what `packed` asks for, in a run of that `name`.
    """

    job: bytes
    answer: bytes = attrs.field(repr=False)
    packed: bytes = attrs.field(default=b"", repr=False)
    name: bytes = b""


class JobJournal:
    """Jobs in the database of the catalog; see `Journal`."""

    _begin: Callable[[], AbstractContextManager[sa.Connection]]

    def jobs(self) -> list[JobRow]:
        """All jobs, in the order in which they were asked for."""
        columns = [JOBS.c[name] for name in attrs.fields_dict(JobRow)]
        with self._begin() as connection:
            rows = connection.execute(sa.select(*columns).order_by(JOBS.c.asked)).mappings()
            return [JobRow(**row) for row in rows]

    def put_job(self, job: JobRow) -> None:
        """Note a job."""
        with self._begin() as connection:
            connection.execute(JOBS.insert().values(**attrs.asdict(job), answer=b""))

    def begin_job(self, run: bytes, attempts: int, packed: bytes, name: bytes, step: int) -> None:
        """Note how often a job was begun again, and at which step; later ones count no more."""
        fields = {"attempts": attempts, "packed": packed, "name": name, "step": step}
        with self._begin() as connection:
            connection.execute(JOBS.update().where(JOBS.c.run == run).values(**fields))
            connection.execute(ANSWERS.delete().where((ANSWERS.c.run == run) & (ANSWERS.c.step >= step)))

    def fail_job(self, run: bytes, error: bytes) -> None:
        """Note that a job has failed, and with what, unless it has ended or was forgotten."""
        with self._begin() as connection:
            under_way = (JOBS.c.run == run) & ~JOBS.c.ended
            connection.execute(JOBS.update().where(under_way).values(ended=True, error=error))

    def answer(self, run: bytes, step: int | None = None) -> bytes:
        """The sealed answer of a job that has come to its end, or of an earlier step; else nothing."""
        early = sa.select(ANSWERS.c.answer).where((ANSWERS.c.run == run) & (ANSWERS.c.step == step))
        with self._begin() as connection:
            if step is not None and (found := connection.execute(early).scalar()) is not None:
                return bytes(found)
            found = connection.execute(sa.select(JOBS.c.answer).where(JOBS.c.run == run)).scalar()
            return b"" if found is None else bytes(found)

    def drop_job(self, run: bytes) -> None:
        """Forget a job."""
        with self._begin() as connection:
            connection.execute(JOBS.delete().where(JOBS.c.run == run))
            connection.execute(ANSWERS.delete().where(ANSWERS.c.run == run))


def end_job(connection: sa.Connection, end: JobEnd) -> None:
    """A job has ended, or a step of it, after which comes the next; unless it was forgotten meanwhile."""
    same = JOBS.c.run == end.job
    if not end.packed:
        connection.execute(JOBS.update().where(same).values(ended=True, answer=end.answer))
        return
    row = connection.execute(sa.select(JOBS.c.step).where(same)).first()
    if row is not None:
        step = row.step or 0
        connection.execute(ANSWERS.insert().values(run=end.job, step=step, answer=end.answer))
        fields = {"packed": end.packed, "name": end.name, "step": step + 1, "attempts": 0}
        connection.execute(JOBS.update().where(same).values(**fields))
