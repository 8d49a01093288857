"""Versions of catalogs, and how one of an earlier release is brought forward.

A catalog has a version, the number of a revision in `versions`, in a table that Alembic keeps; those
of releases before there were versions have none. Opening one that is behind runs the revisions that it lacks
in one transaction, which also sets the version. So whatever interrupts it leaves the catalog as it was, and
the next start begins again. The way back is the copy that is kept of a catalog in SQLite, or one that its
operator has made. What a later release has written is refused, not guessed at.

Alembic knows the order of revisions and runs them; its command line, settings and environment are not needed.
Revisions get its operations as an argument, since nodes of one process may open their catalogs at once.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from tercet.errors import StorageError
from tercet.storage.sqlite_files import BUSY_S, copy_database, sync

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
NONE = "0000"
"""What stands for the version of a catalog that has none."""
VERSION = sa.table("catalog_version", sa.column("version_num"))
"""As Alembic keeps it, under a name that is not another application's."""
_TURN = int.from_bytes(b"tercet")
"""What processes that bring a catalog in PostgreSQL forward wait for, one after the other."""


def known() -> list[str]:
    """The versions of catalogs that this release can read, earliest first."""
    return sorted(path.name[1:5] for path in (HERE / "versions").glob("v[0-9]*.py"))


def version_of(connection: sa.Connection, where: str) -> str | None:
    """The version of a catalog; None for one without, as of a release before there were versions.

    Raises StorageError for one that this release does not know, which a later one has written.
    """
    if not sa.inspect(connection).has_table(VERSION.name):
        return None
    found = [str(one) for one in connection.execute(sa.select(VERSION.c.version_num)).scalars()]
    if len(found) != 1 or not found[0].isdigit():
        # Kept in the transaction that it tells of, it is never half written. Taken for a catalog from before
        # there were versions, this one would lose what revisions have added.
        raise StorageError(
            f"the table {VERSION.name} of the catalog at {where} has been damaged, so nobody can tell which "
            "release has written it: put back a copy from before"
        )
    if found[0] not in known():
        raise StorageError(
            f"the catalog at {where} has version {found[0][:64]!r}, and this release of Tercet "
            f"knows versions up to {known()[-1]}: install the later release that has written it, or put back "
            "a copy from before"
        )
    return found[0]


def require_known(engine: sa.Engine, where: str) -> None:
    """Raise StorageError for a catalog of a later release."""
    with engine.connect() as connection:
        version_of(connection, where)


def bring_forward(engine: sa.Engine, where: str, *, keep_copy: bool) -> None:
    """Bring a catalog to the latest version, a new one too; at `where`, for messages. Blocks.

    If it is to `keep_copy`, an earlier one in SQLite is copied beside itself first. Raises StorageError for a
    catalog of a later release, and SQLAlchemyError; then it is as it was.
    """
    with engine.connect() as connection:
        if version_of(connection, where) == known()[-1]:
            return
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            # Its driver begins a transaction with the first row that is written, not when tables change.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif engine.dialect.name == "postgresql":
            # Two that make the same table at once would both fail to find it, and one then to make it.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TURN)))
        before = version_of(connection, where)
        if before == known()[-1]:  # another process was faster
            return
        new = before is None and not sa.inspect(connection).get_table_names()
        copy = None if new or not keep_copy else _copy(engine, before)
        _run(connection)
    if not new:
        kept = "" if copy is None else f"; as it was is {copy}"
        logger.info("the catalog was brought from version %s to %s%s", before or NONE, known()[-1], kept)


def _copy(engine: sa.Engine, version: str | None) -> Path | None:
    """Keep a catalog in SQLite as it is, beside itself. Others have the means of their database for that."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return None
    there = Path(engine.url.database)
    to = there.with_name(f"{there.name}.version-{version or NONE}")
    part = to.with_name(f"{to.name}.part")
    copy_database(there, part)
    sync(part)
    part.replace(to)
    sync(to.parent)
    return to


def _run(connection: sa.Connection) -> None:
    """Run the revisions that a catalog lacks, in the transaction that is under way."""
    # Imported where it is needed: a catalog that is up to date, as most are, needs none of it.
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext, RevisionStep
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(HERE))

    def lacking(heads: Any, _: MigrationContext) -> Iterator[RevisionStep]:
        for revision in reversed(list(script.iterate_revisions("head", heads or "base"))):
            yield RevisionStep.upgrade_from_script(script.revision_map, revision)

    # SQLite's tables can be changed in a transaction as those of PostgreSQL can, once it was begun.
    opts = {"fn": lacking, "transactional_ddl": True, "version_table": VERSION.name}
    context = MigrationContext.configure(connection, opts=opts)
    context.run_migrations(op=Operations(context))


def as_brought_forward(engine: sa.Engine, path: Path, where: str) -> sa.Engine:
    """A catalog in SQLite as it would be if it were brought forward, while it stays as it is. Blocks.

    That is itself if it is up to date, and else a copy without a name, which goes with its engine. Raises
    StorageError for a catalog of a later release, and SQLAlchemyError.
    """
    with engine.connect() as connection:
        if version_of(connection, where) == known()[-1]:
            return engine
    engine.dispose()
    copy = sqlite3.connect("", check_same_thread=False)
    there = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_S)
    with contextlib.closing(there):
        there.backup(copy)
    made = sa.create_engine("sqlite://", creator=lambda: copy, poolclass=sa.StaticPool)
    try:
        bring_forward(made, where, keep_copy=False)
    except BaseException:
        made.dispose()
        raise
    return made
