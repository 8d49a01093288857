"""Bringing a catalog forward, killed before each change and each commit: a program, for it forks."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tercet.storage.catalog import Catalog


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


def killed(url: str, at: int) -> bool:
    """Whether a process was killed at its step of that number, or else had opened the catalog before."""
    child = os.fork()
    if child == 0:
        steps = iter(range(at))

        def step(*_: object) -> None:
            if next(steps, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        def executed(*told: Any) -> None:
            if not told[2].lstrip().startswith(("SELECT", "PRAGMA")):
                step()

        sa.event.listen(sa.Engine, "before_cursor_execute", executed)
        sa.event.listen(sa.Engine, "commit", step)
        Catalog(url, base=Path()).close()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def main(url: str) -> None:
    """Say how often it was killed."""
    before, at = contents(url), 0
    while killed(url, at):
        assert contents(url) == before, f"changed, though killed at step {at}"
        at += 1
    assert contents(url) != before
    sys.stdout.write(str(at))


if __name__ == "__main__":
    main(*sys.argv[1:])
