"""What a copy of a catalog names, and that a catalog is a copy which was put back.

What the copy of a moment names can be compared with what the catalog names later: a value is the same as long
as it is named by the same identity, since its file is written before anything names it, never changed, and
removed after that.
"""

from __future__ import annotations

import attrs
import sqlalchemy as sa

from tercet.storage.catalog import ENTRIES, HANDLES, METADATA, SEPARATOR, Catalog
from tercet.storage.journal import CHECKPOINTS, LOOSE

RESTORED = sa.Table(
    "restored",
    METADATA,
    sa.Column("node", sa.String(256), nullable=False),
    sa.Column("made", sa.String(32), nullable=False),
)


@attrs.frozen
class Restored:
    """That a catalog is a copy which was put back: that of which node, and when it was made."""

    node: str
    made: str


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


def noted_bytes(catalog: Catalog) -> dict[str, int]:
    """How many bytes the values have that a catalog names, as far as it says, by handle."""
    with catalog.begin() as connection:
        return {
            handle: size
            for table in (HANDLES, LOOSE)
            if catalog.has(table)
            for handle, size in connection.execute(sa.select(table.c.handle, table.c.bytes))
            if size is not None
        }


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
