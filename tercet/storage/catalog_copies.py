"""Copies of a catalog: the database as of one moment, and which values it names.

Only for SQLite, whose file is copied by its own interface, while others read and write it. What the copy
names can be compared with what the catalog names later: a value is the same as long as it is named by the
same identity, since its file is written before anything names it, never changed, and removed after that.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

import attrs
import sqlalchemy as sa

from tercet.errors import StorageError
from tercet.storage.catalog import ENTRIES, HANDLES, METADATA, SEPARATOR, Catalog
from tercet.storage.journal import CHECKPOINTS, LOOSE

RESTORED = sa.Table(
    "restored",
    METADATA,
    sa.Column("node", sa.String(256), nullable=False),
    sa.Column("made", sa.String(32), nullable=False),
)
BUSY_S = 60.0
"""How long a copy waits for those who write."""


@attrs.frozen
class Restored:
    """That a catalog is a copy which was put back: that of which node, and when it was made."""

    node: str
    made: str


def database_path(url: str, base: Path) -> Path:
    """The file of a catalog in SQLite. Raises StorageError for one that is elsewhere."""
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite" or not path:
        raise StorageError(
            "the catalog is in a database of its own, which `tercet backup` does not copy: take it with "
            "`pg_dump` first, then the files of the storage, then the segments of the audit log and "
            "audit.log, in this order, and begin again if a file vanishes meanwhile"
        )
    return base / path


def copy_database(path: Path, to: Path) -> None:
    """Copy a database as it is at one moment, also while others write to it. Blocks; raises StorageError.

    Those wait for as long as reading it takes. The copy need not be on the disk yet.
    """
    to.unlink(missing_ok=True)
    os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        # It may be written to, to undo what a crash has left half done, as the node's own start does.
        source = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=BUSY_S)
        with contextlib.closing(source), contextlib.closing(sqlite3.connect(to)) as copy:
            for setting in ("synchronous = OFF", "journal_mode = OFF"):  # who writes would wait for this disk
                copy.execute(f"PRAGMA {setting}")
            source.backup(copy)
    except sqlite3.Error as error:
        raise StorageError(
            f"the catalog at {path} cannot be copied ({error}); look at that database"
        ) from error


def named_values(catalog: Catalog) -> dict[str, str]:
    """The handles of all values that a catalog names, and by which identity. Raises StorageError."""
    same = (HANDLES.c.kind == ENTRIES.c.kind) & (HANDLES.c.name == ENTRIES.c.name)
    kept = sa.select(HANDLES.c.handle, ENTRIES.c.identity).select_from(HANDLES.join(ENTRIES, same))
    found: dict[str, str] = {}
    with catalog.begin() as connection:
        if catalog.has(CHECKPOINTS):
            for row in connection.execute(sa.select(CHECKPOINTS)):
                identity = f"{row.session.hex()} {row.point}"
                found |= dict.fromkeys(filter(None, row.handles.split(SEPARATOR)), identity)
        if catalog.has(LOOSE):
            rows = connection.execute(sa.select(LOOSE.c.handle, LOOSE.c.identity))
            found |= {handle: identity or "" for handle, identity in rows}
        found |= {handle: identity or "" for handle, identity in connection.execute(kept)}
    return found


def note_restored(catalog: Catalog, restored: Restored) -> None:
    """Note that a catalog is a copy which is put back."""
    with catalog.begin() as connection:
        connection.execute(RESTORED.delete())
        connection.execute(RESTORED.insert().values(**attrs.asdict(restored)))


def restored_from(catalog: Catalog) -> Restored | None:
    """From which copy a catalog was put back, if it was."""
    with catalog.begin() as connection:
        row = connection.execute(sa.select(RESTORED)).first()
    return None if row is None else Restored(row.node, row.made)
