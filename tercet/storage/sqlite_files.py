"""Catalogs in SQLite as files: where they are, copies of them as of one moment, and what is none of a node's.

A database is also a program: views, triggers and expressions run when it is read or changed, and pages that
point to each other are read without end. One that was made elsewhere is looked through before it is used.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path
from urllib.parse import quote

from tercet.errors import StorageError

BUSY_S = 60.0
"""How long a copy waits for those who write."""
_PLAIN = re.compile(
    r"CREATE TABLE [\w\"]+ ?\((?!.*\b(AS|CHECK|DEFAULT|COLLATE|REFERENCES)\b).*\)"
    r"|CREATE (UNIQUE )?INDEX \w+ ON \w+ \(\w+(, \w+)*\)",
    re.ASCII | re.DOTALL | re.IGNORECASE,
)
"""What nodes make: tables of plain columns, and indices over these."""
_LEAST_STEPS, _STEPS_A_BYTE, _STEPS_AT_ONCE = 10_000_000, 100, 100_000
"""SQLite's own operations, of which each row takes some tens."""


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


def require_plain(path: Path) -> None:
    """Look a database through that somebody else may have made: afterwards, reading it takes a bounded time.

    Blocks; takes time by its size at most. Raises StorageError if it has anything but tables of plain columns
    and indices over these, or pages that are no tree.
    """
    steps = (_LEAST_STEPS + _STEPS_A_BYTE * path.stat().st_size) // _STEPS_AT_ONCE
    left = iter(range(steps))
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)
        ) as database:
            database.set_progress_handler(lambda: next(left, None) is None, _STEPS_AT_ONCE)
            for kind, name, made in database.execute("SELECT type, name, sql FROM sqlite_master"):
                if not (_PLAIN.fullmatch(made) if made else kind == "index"):
                    raise StorageError(
                        f"{path} has a {str(kind)!a:.40} {str(name)!a:.80} that no node makes: it was "
                        "changed, or is no catalog; take another backup"
                    )
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise StorageError(f"{path} is no proper catalog ({error}); take another backup") from error
    if found != "ok":
        raise StorageError(f"{path} is damaged ({found!a:.200}); take another backup")


def vacuum(url: str, base: Path) -> None:
    """Give back to the disk what a catalog in SQLite does not use; others do so by themselves.

    Raises StorageError. Blocks, and takes as much room as the catalog has meanwhile.
    """
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite" or not path:
        return
    try:
        with contextlib.closing(sqlite3.connect(base / path, timeout=BUSY_S)) as database:
            database.execute("VACUUM")
    except sqlite3.Error as error:
        raise StorageError(
            f"the catalog at {base / path} cannot be made smaller ({error}); nothing is lost, make room"
        ) from error


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
