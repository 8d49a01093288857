"""The journal of a node: what was under way, so that a restart does not lose it.

Loose values that plans have stored, checkpoints of runs, runs that owners are asked about with the approvals
that have come, jobs, sealed results that wait for their receivers, how far the audit log has come, and by
which list of members the node goes. They lie in the database of the catalog, beside its entries; values
themselves are files. Every method is one transaction, which makes the files that were written before it
count, and blocks: call it in a thread. Nothing in it is secret: results are sealed, those of jobs with the
node's data key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import sqlalchemy as sa

from tercet.storage.catalog import METADATA, SEPARATOR, Catalog, new_identity
from tercet.storage.job_rows import ANSWERS, JOBS, JobEnd, JobJournal, end_job

LOOSE = sa.Table(
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
CHECKPOINTS = sa.Table(
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
RUNS = sa.Table(
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
APPROVALS = sa.Table(
    "approvals",
    METADATA,
    sa.Column("run", sa.LargeBinary(16), primary_key=True),
    sa.Column("approver", sa.String(64), primary_key=True),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
    sa.Column("signature", sa.LargeBinary(64), nullable=False),
)
RESULTS = sa.Table(
    "results",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run", sa.LargeBinary(16), nullable=False),
    sa.Column("receiver", sa.String(64), nullable=False, index=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("sender", sa.String(64), nullable=True),
    sa.Column("made", sa.Float, nullable=True),
)
AUDIT = sa.Table(
    "audit",
    METADATA,
    sa.Column("lines", sa.Integer, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)
LAKE_FILE = sa.Table("lake_file", METADATA, sa.Column("packed", sa.LargeBinary, nullable=False))


@attrs.frozen
class LooseValue:
    """A value that was not kept: whose, made from which tables, of which of them by row, in what order.

    Tables are identities of theirs (see `Entry`), and the value has one too: another value that comes to lie
    under its handle is another one. `size` is its bytes at this node.
    """

    caller: str
    sources: frozenset[str]
    rows: frozenset[str]
    order: str = ""
    identity: str = attrs.field(factory=new_identity)
    size: int = 0


@attrs.frozen
class AskedRun:
    """A run that owners are asked about.

    Its approvals are the fields that they were made of. `spent` says whether it has come to its end, or was
    let through as often as it may be, so that it is let through no more.
    """

    caller: str
    digest: bytes
    spent: bool
    approvals: tuple[Mapping[str, Any], ...]


@attrs.frozen
class Checkpoint:
    """Values that a session has come to at a point of its plan, which has that digest."""

    session: bytes
    point: int
    run: bytes
    caller: str
    digest: bytes
    handles: tuple[str, ...]


class Journal(JobJournal):
    """What was under way at a node, in the database of its catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._begin = catalog.begin

    def handles(self) -> list[str]:
        """All values that count: loose ones, and those of checkpoints."""
        with self._begin() as connection:
            loose = list(connection.execute(sa.select(LOOSE.c.handle)).scalars())
            kept = connection.execute(sa.select(CHECKPOINTS.c.handles)).scalars()
            return loose + [handle for listed in kept for handle in _names(listed)]

    # -- the audit log ---------------------------------------------------------------------------------------

    def noted(self) -> tuple[int, str] | None:
        """How many lines the audit log had, and the hash of the last one, when that was noted."""
        with self._begin() as connection:
            row = connection.execute(sa.select(AUDIT)).first()
        return None if row is None else (row.lines, row.digest)

    def note(self, lines: int, digest: str) -> None:
        """Remember how far the audit log has come; those lines are on the disk."""
        with self._begin() as connection:
            connection.execute(AUDIT.delete())
            connection.execute(AUDIT.insert().values(lines=lines, digest=digest))

    # -- the lake's file -------------------------------------------------------------------------------------

    def lake_file(self) -> bytes | None:
        """The list of the lake's members that the node has gone by last."""
        with self._begin() as connection:
            row = connection.execute(sa.select(LAKE_FILE)).first()
        return None if row is None else bytes(row.packed)

    def note_lake_file(self, packed: bytes) -> None:
        """Remember by which list of members the node goes from now on."""
        with self._begin() as connection:
            connection.execute(LAKE_FILE.delete())
            connection.execute(LAKE_FILE.insert().values(packed=packed))

    # -- loose values ----------------------------------------------------------------------------------------

    def loose(self) -> dict[str, LooseValue]:
        """All loose values by handle."""
        with self._begin() as connection:
            return {
                row.handle: LooseValue(
                    row.caller,
                    frozenset(_names(row.sources)),
                    frozenset(_names(row.rows)),
                    row.arrangement or "",
                    row.identity or new_identity(),
                    row.bytes or 0,
                )
                for row in connection.execute(sa.select(LOOSE))
            }

    def measure(self, size: Callable[[str], int]) -> None:
        """Note how many bytes loose values have, of those whose release did not say so."""
        with self._begin() as connection:
            for handle in (
                connection.execute(sa.select(LOOSE.c.handle).where(LOOSE.c.bytes.is_(None))).scalars().all()
            ):
                connection.execute(LOOSE.update().where(LOOSE.c.handle == handle).values(bytes=size(handle)))

    def forget(self, handles: Iterable[str]) -> None:
        """Loose values do not count any more."""
        with self._begin() as connection:
            for handle in handles:
                connection.execute(LOOSE.delete().where(LOOSE.c.handle == handle))

    # -- runs ------------------------------------------------------------------------------------------------

    def ask(self, run: bytes, caller: str, digest: bytes, most: int) -> AskedRun:
        """What is known of a run that owners are asked about.

        It is noted if it is a new one, to be let through at most so often.
        """
        with self._begin() as connection:
            row = connection.execute(sa.select(RUNS).where(RUNS.c.run == run)).first()
            if row is None:
                fields = {"caller": caller, "digest": digest, "attempts": 0, "most": most, "spent": False}
                connection.execute(RUNS.insert().values(run=run, asked=time.time(), **fields))
                return AskedRun(caller, digest, spent=False, approvals=())
            rows = connection.execute(sa.select(APPROVALS).where(APPROVALS.c.run == run)).mappings()
            given = tuple(
                {("session" if name == "run" else name): value for name, value in one.items()} for one in rows
            )
            spent = row.spent or row.attempts >= row.most
            return AskedRun(row.caller, row.digest, spent, given)

    def approve(self, approval: Mapping[str, Any]) -> None:
        """Note an approval; a later one of the same owner replaces it."""
        fields = {("run" if name == "session" else name): value for name, value in approval.items()}
        with self._begin() as connection:
            same = (APPROVALS.c.run == fields["run"]) & (APPROVALS.c.approver == fields["approver"])
            connection.execute(APPROVALS.delete().where(same))
            connection.execute(APPROVALS.insert().values(**fields))

    def let_through(self, run: bytes) -> None:
        """Count that a run was let through."""
        with self._begin() as connection:
            connection.execute(RUNS.update().where(RUNS.c.run == run).values(attempts=RUNS.c.attempts + 1))

    def was_let_through(self, run: bytes) -> bool:
        """Whether a run that owners were asked about has begun."""
        query = sa.select(RUNS.c.run).where((RUNS.c.run == run) & (RUNS.c.attempts > 0))
        with self._begin() as connection:
            return connection.execute(query).first() is not None

    def spent(self, run: bytes, caller: str) -> bool:
        """Whether a member's run that owners were asked about is let through no more."""
        used = RUNS.c.spent | (RUNS.c.attempts >= RUNS.c.most)
        query = sa.select(RUNS.c.run).where((RUNS.c.run == run) & (RUNS.c.caller == caller) & used)
        with self._begin() as connection:
            return connection.execute(query).first() is not None

    def holder(self, run: bytes) -> str | None:
        """The member whose run this is, of whom the journal knows it; None if it knows of no such run."""
        with self._begin() as connection:
            for table, names in (
                (RUNS, RUNS.c.run),
                (JOBS, JOBS.c.run),
                (JOBS, JOBS.c.name),
                (CHECKPOINTS, CHECKPOINTS.c.run),
            ):
                query = sa.select(table.c.caller).where(names == run)
                found = connection.execute(query.limit(1)).scalar()
                if found is not None:
                    return str(found)
        return None

    def end(
        self,
        run: bytes,
        stored: Mapping[str, LooseValue],
        results: Sequence[tuple[str, bytes]],
        most: int,
        *,
        sender: str | None = None,
        job: JobEnd | None = None,
    ) -> tuple[bool, list[str]]:
        """A run has come to its end: its values count, its results wait, it is let through no more.

        `results` are receivers and bodies, of which the latest `most` of a sender stay for each; `job` says
        what has ended with the run. Returns whether all of that was done, which it is not if the
        run had come to its end before; and the handles of checkpoints that count no more.
        """
        with self._begin() as connection:
            # The row is locked by being changed: of two ends, one finds it spent.
            spending = RUNS.update().where((RUNS.c.run == run) & ~RUNS.c.spent).values(spent=True)
            known = connection.execute(sa.select(RUNS.c.run).where(RUNS.c.run == run)).first() is not None
            if known and not connection.execute(spending).rowcount:
                return False, []
            connection.execute(APPROVALS.delete().where(APPROVALS.c.run == run))
            for handle, one in stored.items():
                fields = {
                    "sources": _listed(one.sources),
                    "rows": _listed(one.rows),
                    "arrangement": one.order,
                    "identity": one.identity,
                    "bytes": one.size,
                }
                connection.execute(LOOSE.insert().values(handle=handle, caller=one.caller, **fields))
            for receiver, body in results:
                fields = {"run": run, "receiver": receiver, "body": body, "sender": sender}
                connection.execute(RESULTS.insert().values(**fields, made=time.time()))
            for receiver in {receiver for receiver, _ in results}:
                _trim(connection, receiver, sender, most)
            if job is not None:
                end_job(connection, job)
            return True, _drop_checkpoints(connection, CHECKPOINTS.c.run == run)

    def sweep(self, before: float) -> list[str]:
        """Forget checkpoints and unspent runs from before a time; the handles of values that count no more.

        A run that was let through stays known as spent, so that its name is never used again.
        """
        with self._begin() as connection:
            named = sa.select(sa.func.coalesce(JOBS.c.name, JOBS.c.run)).where(~JOBS.c.ended)
            old = (RUNS.c.asked < before) & RUNS.c.run.not_in(named)
            connection.execute(
                APPROVALS.delete().where(APPROVALS.c.run.in_(sa.select(RUNS.c.run).where(old)))
            )
            connection.execute(RUNS.delete().where(old & (RUNS.c.attempts == 0)))
            connection.execute(RUNS.update().where(old).values(spent=True))
            return _drop_checkpoints(connection, CHECKPOINTS.c.made < before)

    # -- checkpoints -----------------------------------------------------------------------------------------

    def reach(self, checkpoint: Checkpoint) -> None:
        """A session has come to a checkpoint, whose values have been written."""
        fields = attrs.asdict(checkpoint) | {"handles": SEPARATOR.join(checkpoint.handles)}
        with self._begin() as connection:
            connection.execute(CHECKPOINTS.insert().values(**fields, made=time.time()))

    def checkpoints(self, run: bytes) -> list[Checkpoint]:
        """The checkpoints of a run, the latest last."""
        query = sa.select(CHECKPOINTS).where(CHECKPOINTS.c.run == run)
        with self._begin() as connection:
            rows = connection.execute(query.order_by(CHECKPOINTS.c.made)).mappings()
            found = [{**row, "handles": tuple(_names(row["handles"]))} for row in rows]
        return [Checkpoint(**{name: one[name] for name in attrs.fields_dict(Checkpoint)}) for one in found]

    def abandon(self, run: bytes, caller: str) -> list[str]:
        """Forget the checkpoints of a member's run; the handles of their values."""
        with self._begin() as connection:
            mine = (CHECKPOINTS.c.run == run) & (CHECKPOINTS.c.caller == caller)
            return _drop_checkpoints(connection, mine)

    # -- results ---------------------------------------------------------------------------------------------

    def results(self, receiver: str, after: int, most: int, most_bytes: int) -> list[tuple[int, bytes]]:
        """Results that wait for a receiver, oldest first, from after a number on, with their numbers.

        So many, or one more than has so many bytes.
        """
        later = (RESULTS.c.receiver == receiver) & (RESULTS.c.number > after)
        short = sa.select(RESULTS.c.number, sa.func.length(RESULTS.c.body)).where(later)
        found: list[tuple[int, bytes]] = []
        with self._begin() as connection:
            for number, size in connection.execute(short.order_by(RESULTS.c.number).limit(most)).all():
                body = sa.select(RESULTS.c.body).where(RESULTS.c.number == number)
                found.append((number, bytes(connection.execute(body).scalar_one())))
                if most_bytes < 0:
                    break
                most_bytes -= size
        return found

    def bytes_waiting(self, member: str) -> int:
        """Bytes of what waits of a member's runs: results for others, jobs and what they gave."""
        queries = (
            sa.select(sa.func.sum(sa.func.length(RESULTS.c.body))).where(RESULTS.c.sender == member),
            sa.select(sa.func.sum(sa.func.length(JOBS.c.answer) + sa.func.length(JOBS.c.packed))).where(
                JOBS.c.caller == member
            ),
            sa.select(sa.func.sum(sa.func.length(ANSWERS.c.answer))).where(
                ANSWERS.c.run.in_(sa.select(JOBS.c.run).where(JOBS.c.caller == member))
            ),
        )
        with self._begin() as connection:
            return sum(int(connection.execute(query).scalar() or 0) for query in queries)

    def take_away(self, receiver: str, run: bytes) -> None:
        """Forget the results of a run for a receiver, who has them."""
        with self._begin() as connection:
            same = (RESULTS.c.receiver == receiver) & (RESULTS.c.run == run)
            connection.execute(RESULTS.delete().where(same))


def _names(listed: str) -> list[str]:
    return list(filter(None, listed.split(SEPARATOR)))


def _listed(names: Iterable[str]) -> str:
    return SEPARATOR.join(sorted(names))


def _trim(connection: sa.Connection, receiver: str, sender: str | None, most: int) -> None:
    """Let the oldest results go that a sender has for a receiver, but the latest so many."""
    mine = sa.select(RESULTS.c.number).where((RESULTS.c.receiver == receiver) & (RESULTS.c.sender == sender))
    numbers = list(connection.execute(mine.order_by(RESULTS.c.number.desc()).offset(most)).scalars())
    if numbers:
        connection.execute(RESULTS.delete().where(RESULTS.c.number.in_(numbers)))


def _drop_checkpoints(connection: sa.Connection, where: sa.ColumnElement[bool]) -> list[str]:
    listed = list(connection.execute(sa.select(CHECKPOINTS.c.handles).where(where)).scalars())
    connection.execute(CHECKPOINTS.delete().where(where))
    return [handle for one in listed for handle in _names(one)]
