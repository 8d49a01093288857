"""Bringing a catalog forward, killed before each change and each commit: a program, for it forks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tercet.storage.catalog import Catalog
from tests.kills import killed


def contents(url: str) -> dict[str, Any]:
    """All tables of a database, with their columns and rows."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = {}
        for name in sa.inspect(connection).get_table_names():
            rows = connection.execute(sa.text(f"SELECT * FROM {name}"))
            found[name] = (list(rows.keys()), sorted(map(repr, rows)))
    engine.dispose()
    return found


def killed_at(url: str, at: int) -> bool:
    """Whether a process was killed at its step of that number, or else had opened the catalog before."""
    return killed(
        lambda: Catalog(url, base=Path()).close(),
        at,
        statement=lambda text: not text.lstrip().startswith(("SELECT", "PRAGMA")),
    )


def main(url: str) -> None:
    """Say how often it was killed."""
    before, at = contents(url), 0
    while killed_at(url, at):
        assert contents(url) == before, f"changed, though killed at step {at}"
        at += 1
    assert contents(url) != before
    sys.stdout.write(str(at))


if __name__ == "__main__":
    main(*sys.argv[1:])
