"""The catalog of a node: the tables, models and numbers that it keeps, whose they are, what owners allow.

A few tables in SQLite, or in any database that SQLAlchemy reaches by URL. The catalog is what counts: a file
of shares without an entry is swept away, and an entry is made, in one transaction, after its files are
complete. Nothing in it is secret; who can change it can refuse service, or change rules at this node alone.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs
import sqlalchemy as sa

from tercet.errors import StorageError
from tercet.storage.migrations import as_brought_forward, bring_forward, require_known

METADATA = sa.MetaData()
ENTRIES = sa.Table(
    "entries",
    METADATA,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(256), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("rules", sa.LargeBinary, nullable=False),
    sa.Column("sources", sa.Text, nullable=False),
    sa.Column("rows", sa.Text, nullable=False),
    sa.Column("orders", sa.Text, nullable=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("expires", sa.Float, nullable=True),
    sa.Column("identity", sa.String(32), nullable=True),
)
HANDLES = sa.Table(
    "handles",
    METADATA,
    sa.Column("handle", sa.String(512), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=True),
)
LISTS, SEPARATOR = ("sources", "rows", "orders"), "\n"
"""Columns with several words, as identities of tables, and what stands between these."""


def new_identity() -> str:
    """What an entry or value is known by at this node, for good: nobody else can make one like it."""
    return secrets.token_hex(16)


@attrs.frozen
class Label:
    """What tells an entry from others: all of it that is short."""

    kind: str
    name: str
    owner: str
    identity: str


@attrs.frozen
class Entry:
    """A table, model or number: whose it is, its public description, its owner's rules, where its values lie.

    `sources` are the identities of the tables that it was made from; `rows` those of them by whose rows its
    values are, and `orders` in what order, a word for each value, if that is known; `fingerprint` recognises
    a repeated upload; `created` and `expires` are in seconds since 1970. `identity` is its own, at this node
    alone: another entry of its name has another one, so what was made from the one that was there before does
    not belong to it.
    """

    kind: str
    name: str
    owner: str
    body: bytes = attrs.field(repr=False)
    rules: bytes = attrs.field(repr=False)
    handles: tuple[str, ...]
    sources: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    orders: tuple[str, ...] = ()
    fingerprint: bytes = b""
    created: float = attrs.field(factory=time.time)
    expires: float | None = None
    identity: str = attrs.field(factory=new_identity)


class Catalog:
    """Entries by kind and name. Every method is one transaction, and blocks: call it in a thread.

    Without `may_be_new`, raises StorageError for a database that has no catalog yet, and leaves it so.
    `new` says whether it had none. One of an earlier release is brought forward (see `migrations`), after a
    copy if it is to `keep_copy`; one of a later release raises StorageError. Unless it `may_change`, it is
    left as it is, to be read.
    """

    def __init__(
        self,
        url: str,
        *,
        base: Path,
        may_be_new: bool = True,
        may_change: bool = True,
        keep_copy: bool = True,
    ) -> None:
        scheme, _, path = url.partition(":///")
        there = base / path if scheme == "sqlite" and path else None
        if there is not None:
            url = f"sqlite:///{there}" if may_change else f"sqlite:///file:{there}?mode=ro&uri=true"
            if not may_change and not there.exists():
                url = "sqlite://"  # it has no file yet
        self._where = _hidden(url)
        try:
            self._engine = sa.create_engine(url)
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
            raise StorageError(f"the catalog {self._where!r} is no usable database URL: {error}") from error
        # SQLite lets who finds it busy sleep for long; threads of this process need not find it so.
        sqlite = self._engine.dialect.name == "sqlite"
        self._turn = threading.Lock() if sqlite else contextlib.nullcontext()
        try:
            with self._sentences():
                self.new = not {ENTRIES.name, HANDLES.name} <= self._names()
                if self.new and not may_be_new:
                    raise self._lost()
                if may_change:
                    bring_forward(self._engine, self._where, keep_copy=keep_copy)
                elif there is not None and not self.new:
                    self._engine = as_brought_forward(self._engine, there, self._where)
                else:
                    require_known(self._engine, self._where)
                self._tables = self._names()
        except BaseException:
            self.close()
            raise

    def _lost(self) -> StorageError:
        return StorageError(
            f"the catalog at {self._where} is empty, but there are files of shares: restore it, or name the "
            "right one in node.toml; if it is lost, empty the storage, and owners upload again"
        )

    def _names(self) -> set[str]:
        return set(sa.inspect(self._engine).get_table_names())

    def has(self, table: sa.Table) -> bool:
        """Whether the catalog had a table when it was opened, as one of an earlier release may not."""
        return table.name in self._tables

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def put(self, entry: Entry, sizes: Mapping[str, int] | None = None) -> tuple[str, ...]:
        """Make or replace an entry, whose values have so many bytes; the handles of the one replaced."""
        with self.begin() as connection:
            before = self._handles(connection, entry.kind, entry.name)
            self._delete(connection, entry.kind, entry.name)
            fields = attrs.asdict(entry)
            handles = fields.pop("handles")
            fields |= {name: SEPARATOR.join(fields[name]) for name in LISTS}
            connection.execute(ENTRIES.insert().values(**fields))
            for place, handle in enumerate(handles):
                row = {"handle": handle, "kind": entry.kind, "name": entry.name, "place": place}
                connection.execute(HANDLES.insert().values(**row, bytes=(sizes or {}).get(handle)))
        return before

    def drop(self, entry: Entry) -> tuple[str, ...]:
        """Delete an entry; its handles. Leaves another alone that has its name by now."""
        with self.begin() as connection:
            if not self._read(connection, ENTRIES.c.identity == entry.identity):
                return ()
            before = self._handles(connection, entry.kind, entry.name)
            self._delete(connection, entry.kind, entry.name)
        return before

    def find(self, kind: str, name: str) -> Entry | None:
        """An entry."""
        with self.begin() as connection:
            found = self._read(connection, (ENTRIES.c.kind == kind) & (ENTRIES.c.name == name))
        return found[0] if found else None

    def identified(self, identity: str) -> Entry | None:
        """The entry of an identity, if it is still there."""
        with self.begin() as connection:
            found = self._read(connection, ENTRIES.c.identity == identity)
        return found[0] if found else None

    def of_handle(self, handle: str) -> Entry | None:
        """The entry that a value belongs to."""
        with self.begin() as connection:
            row = connection.execute(sa.select(HANDLES).where(HANDLES.c.handle == handle)).first()
            if row is None:
                return None
            found = self._read(connection, (ENTRIES.c.kind == row.kind) & (ENTRIES.c.name == row.name))
        return found[0] if found else None

    def entries(self) -> list[Entry]:
        """All entries, by kind and name."""
        with self.begin() as connection:
            return self._read(connection, sa.true())

    def labels(self) -> list[Label]:
        """All entries in short, by kind and name."""
        columns = [ENTRIES.c[name] for name in attrs.fields_dict(Label)]
        with self.begin() as connection:
            rows = connection.execute(sa.select(*columns).order_by(ENTRIES.c.kind, ENTRIES.c.name))
            return [Label(*row) for row in rows]

    def page(self, after: tuple[str, str], most: int, most_bytes: int) -> list[Entry]:
        """The next entries by kind and name: so many, or one more than has so many bytes."""
        later = (ENTRIES.c.kind > after[0]) | ((ENTRIES.c.kind == after[0]) & (ENTRIES.c.name > after[1]))
        size = sa.func.length(ENTRIES.c.body) + sa.func.length(ENTRIES.c.rules)
        short = sa.select(ENTRIES.c.kind, ENTRIES.c.name, size).where(later)
        with self.begin() as connection:
            rows = connection.execute(short.order_by(ENTRIES.c.kind, ENTRIES.c.name).limit(most)).all()
            count = 0
            for _, _, length in rows:
                count += 1
                if most_bytes < 0:
                    break
                most_bytes -= length
            if not count:
                return []
            kind, name, _ = rows[count - 1]
            upto = (ENTRIES.c.kind < kind) | ((ENTRIES.c.kind == kind) & (ENTRIES.c.name <= name))
            return self._read(connection, later & upto)

    def handles(self) -> set[str]:
        """The handles of all values that are kept."""
        with self.begin() as connection:
            return set(connection.execute(sa.select(HANDLES.c.handle)).scalars())

    def kept(self, owner: str) -> tuple[int, int]:
        """How many entries an owner has, and their bytes: those of values, descriptions and rules."""
        mine = ENTRIES.c.owner == owner
        described = sa.func.sum(sa.func.length(ENTRIES.c.body) + sa.func.length(ENTRIES.c.rules))
        same = (HANDLES.c.kind == ENTRIES.c.kind) & (HANDLES.c.name == ENTRIES.c.name)
        values = sa.select(sa.func.sum(HANDLES.c.bytes)).select_from(ENTRIES.join(HANDLES, same)).where(mine)
        with self.begin() as connection:
            count, described_bytes = connection.execute(
                sa.select(sa.func.count(), described).where(mine)
            ).one()
            return int(count), int(described_bytes or 0) + int(connection.execute(values).scalar() or 0)

    def bytes_of(self, kind: str, name: str) -> int:
        """Bytes of the values of an entry."""
        mine = (HANDLES.c.kind == kind) & (HANDLES.c.name == name)
        with self.begin() as connection:
            return int(connection.execute(sa.select(sa.func.sum(HANDLES.c.bytes)).where(mine)).scalar() or 0)

    def measure(self, size: Callable[[str], int]) -> None:
        """Note how many bytes values have, of those whose release did not say so."""
        unknown = sa.select(HANDLES.c.handle).where(HANDLES.c.bytes.is_(None))
        with self.begin() as connection:
            for handle in connection.execute(unknown).scalars().all():
                same = HANDLES.c.handle == handle
                connection.execute(HANDLES.update().where(same).values(bytes=size(handle)))

    def expired(self, now: float) -> list[Entry]:
        """Entries whose time is up."""
        with self.begin() as connection:
            return self._read(connection, ENTRIES.c.expires <= now)

    # -- inside a transaction --------------------------------------------------------------------------------

    def _read(self, connection: sa.Connection, where: sa.ColumnElement[bool]) -> list[Entry]:
        rows = connection.execute(sa.select(ENTRIES).where(where).order_by(ENTRIES.c.kind, ENTRIES.c.name))
        entries = rows.mappings().all()
        same = (HANDLES.c.kind == ENTRIES.c.kind) & (HANDLES.c.name == ENTRIES.c.name)
        query = sa.select(HANDLES.c.kind, HANDLES.c.name, HANDLES.c.handle).join(ENTRIES, same).where(where)
        handles: dict[tuple[str, str], list[str]] = {}
        for kind, name, handle in connection.execute(query.order_by(HANDLES.c.place)):
            handles.setdefault((kind, name), []).append(handle)
        found = []
        for row in entries:
            fields = dict(row)
            fields["handles"] = tuple(handles.get((row["kind"], row["name"]), ()))
            fields |= {name: tuple(filter(None, (row[name] or "").split(SEPARATOR))) for name in LISTS}
            found.append(Entry(**fields))
        return found

    def _handles(self, connection: sa.Connection, kind: str, name: str) -> tuple[str, ...]:
        where = (HANDLES.c.kind == kind) & (HANDLES.c.name == name)
        query = sa.select(HANDLES.c.handle).where(where).order_by(HANDLES.c.place)
        return tuple(connection.execute(query).scalars())

    def _delete(self, connection: sa.Connection, kind: str, name: str) -> None:
        connection.execute(HANDLES.delete().where((HANDLES.c.kind == kind) & (HANDLES.c.name == name)))
        connection.execute(ENTRIES.delete().where((ENTRIES.c.kind == kind) & (ENTRIES.c.name == name)))

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction: all that is done inside, or nothing. Raises StorageError."""
        with self._turn, self._sentences(), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            why = getattr(error, "orig", None) or error
            raise StorageError(
                f"the catalog at {self._where} failed: {why}; look at that database"
            ) from error


def _hidden(url: str) -> str:
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return url.partition("@")[2] or url
