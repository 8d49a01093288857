"""The catalog: entries come and go whole, in SQLite and in PostgreSQL, also after it was closed."""

from __future__ import annotations

import attrs
import pytest
import sqlalchemy as sa

from tercet.errors import StorageError
from tercet.storage.catalog import METADATA, Catalog, Entry
from tercet.storage.journal import Journal, LooseValue

pytestmark = pytest.mark.smoke
ENTRY = Entry(
    "table", "patients", "clinic", b"body", b"rules", ("p#2", "p#1"), ("a", "b"), ("b",), fingerprint=b"f"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return "sqlite:///catalog.sqlite"
    return request.getfixturevalue("postgres")


@pytest.fixture
def catalog(url, tmp_path):
    made = Catalog(url, base=tmp_path)
    for entry in made.entries():
        made.drop(entry)
    yield made
    made.close()


def test_an_entry_comes_back(catalog, url, tmp_path):
    assert catalog.put(ENTRY) == ()
    assert catalog.find("table", "patients") == ENTRY
    assert catalog.find("model", "patients") is None
    assert catalog.of_handle("p#1") == ENTRY
    assert catalog.of_handle("p#3") is None
    other = Catalog(url, base=tmp_path)
    assert other.entries() == [ENTRY]
    other.close()


def test_replacing_and_dropping(catalog):
    catalog.put(ENTRY)
    newer = attrs.evolve(ENTRY, handles=("q#1",), rules=b"stricter")
    assert catalog.put(newer) == ("p#2", "p#1")
    assert catalog.entries() == [newer]
    assert catalog.of_handle("p#1") is None
    again = attrs.evolve(newer, identity="another", handles=("r#1",))
    assert catalog.drop(again) == ()  # what has its name is another
    assert catalog.drop(newer) == ("q#1",)
    assert catalog.drop(newer) == ()
    assert catalog.entries() == []


def test_an_entry_that_does_not_fit_changes_nothing(catalog):
    catalog.put(ENTRY)
    with pytest.raises(StorageError, match="failed"):
        catalog.put(attrs.evolve(ENTRY, name="other", handles=("q#1", "p#1")))
    assert catalog.entries() == [ENTRY]


def test_expiry(catalog):
    catalog.put(attrs.evolve(ENTRY, expires=100.0))
    catalog.put(attrs.evolve(ENTRY, name="later", handles=("l",), expires=200.0))
    catalog.put(attrs.evolve(ENTRY, name="never", handles=("n",)))
    assert [entry.name for entry in catalog.expired(150.0)] == ["patients"]


@pytest.mark.parametrize(
    "url", ["nonsense", "oracle9://here", "postgresql+psycopg://u:secret@127.0.0.1:1/db"]
)
def test_a_database_that_is_not_there(url, tmp_path):
    with pytest.raises(StorageError) as error:
        Catalog(url, base=tmp_path)
    assert "secret" not in str(error.value)


def test_entries_come_in_pages(catalog):
    names = ["b", "a", "c#", "Z", "\u00e4"]
    for name in names:
        catalog.put(attrs.evolve(ENTRY, name=name, handles=(name,), body=bytes(100)))
    catalog.put(attrs.evolve(ENTRY, kind="model", name="m", handles=("m",)))
    found, after = [], ("", "")
    while page := catalog.page(after, 2, 1 << 20):
        assert len(page) <= 2
        found += page
        after = (page[-1].kind, page[-1].name)
    assert found == catalog.entries()
    assert [(one.kind, one.name) for one in catalog.labels()] == [(one.kind, one.name) for one in found]
    assert len(catalog.page(("", ""), 10, 1)) == 2
    assert catalog.handles() == {*names, "m"}


def test_what_an_owner_keeps_is_counted(catalog):
    catalog.put(ENTRY, {"p#1": 1000, "p#2": 500})
    catalog.put(attrs.evolve(ENTRY, name="of another", owner="insurer", handles=("i",)), {"i": 7})
    described = len(ENTRY.body) + len(ENTRY.rules)
    assert catalog.kept("clinic") == (1, 1500 + described)
    assert catalog.bytes_of("table", "patients") == 1500
    catalog.put(attrs.evolve(ENTRY, handles=("q",)))  # as an earlier release did
    catalog.measure(lambda handle: 30 if handle == "q" else 0)
    assert catalog.kept("clinic") == (1, 30 + described)
    assert catalog.kept("nobody") == (0, 0)


# -- databases of earlier releases ---------------------------------------------------------------------------

HANDLE = "handles (handle VARCHAR(512) PRIMARY KEY, kind VARCHAR(16), name VARCHAR(256), place INTEGER)"
ENTRY_BEGIN = (
    "entries (kind VARCHAR(16) NOT NULL, name VARCHAR(256) NOT NULL, owner VARCHAR(64) NOT NULL, body {blob} "
    "NOT NULL, rules {blob} NOT NULL, sources TEXT NOT NULL, "
)
ENTRY_END = "fingerprint {blob} NOT NULL, created FLOAT NOT NULL, expires FLOAT, PRIMARY KEY (kind, name))"
LOOSE = (
    "loose (handle VARCHAR(512) PRIMARY KEY, caller VARCHAR(64) NOT NULL, sources TEXT NOT NULL, "
    "rows TEXT NOT NULL{more})"
)
FIRST = [HANDLE, f"{ENTRY_BEGIN}by_row BOOLEAN NOT NULL, {ENTRY_END}"]
ROWS = [HANDLE, f"{ENTRY_BEGIN}rows TEXT NOT NULL, {ENTRY_END}", LOOSE.replace("{more}", "")]
IDENTITIES = [
    HANDLE,
    f"{ENTRY_BEGIN}rows TEXT NOT NULL, identity VARCHAR(32), {ENTRY_END}",
    LOOSE.replace("{more}", ", arrangement VARCHAR(16), identity VARCHAR(32)"),
]


@pytest.mark.parametrize("schema", [FIRST, ROWS, IDENTITIES], ids=["by_row", "rows", "identities"])
def test_a_database_of_an_earlier_release(url, schema, tmp_path):
    """Its entries are all there, and new ones fit in; what was made from tables belongs to none of them."""
    where = url.replace("///", f"///{tmp_path}/") if url.startswith("sqlite") else url
    engine = sa.create_engine(where)
    blob = "BYTEA" if url.startswith("postgresql") else "BLOB"
    with engine.begin() as connection:
        METADATA.drop_all(connection)
        connection.execute(sa.text("DROP TABLE IF EXISTS catalog_version"))
        for table in schema:
            connection.execute(sa.text("CREATE TABLE " + table.replace("{blob}", blob)))
        old = {
            "kind": "model",
            "owner": "clinic",
            "body": b"b",
            "rules": b"r",
            "fingerprint": b"",
            "created": 1.0,
        }
        old |= {"by_row": True} if schema is FIRST else {"rows": "costs"}
        old |= {"identity": "1" * 32} if schema is IDENTITIES else {}
        for name, sources in (("risk", "ages\ncosts"), ("other", "")):
            row = old | {"name": name, "sources": sources}
            values = ", ".join(f":{field}" for field in row)
            connection.execute(sa.text(f"INSERT INTO entries ({', '.join(row)}) VALUES ({values})"), row)
        for place in range(2):
            connection.execute(sa.text(f"INSERT INTO handles VALUES ('h{place}', 'model', 'risk', {place})"))
        if schema is not FIRST:
            more = "" if schema is ROWS else ", 'mixed', 'me'"
            connection.execute(sa.text(f"INSERT INTO loose VALUES ('v', 'ann', 'ages', ''{more})"))
    engine.dispose()
    for again in range(2):
        catalog = Catalog(url, base=tmp_path)
        found = {entry.name: entry for entry in catalog.entries()}
        assert len(found) == 2 + again
        assert (found["risk"].handles, found["risk"].sources) == (("h0", "h1"), ("ages", "costs"))
        assert found["risk"].rows == (("ages", "costs") if schema is FIRST else ("costs",))
        assert all(len(entry.identity) == 32 for entry in found.values())
        assert catalog.identified("ages") is None
        assert catalog.of_handle("h1") == found["risk"]
        journal = Journal(catalog)
        loose = journal.loose()
        if schema is not FIRST:
            one = loose.pop("v")
            assert (one.caller, one.sources, bool(one.identity)) == ("ann", frozenset({"ages"}), True)
        if not again:
            catalog.put(ENTRY)
            mine = {"w": LooseValue("ben", frozenset(), frozenset())}
            assert journal.end(b"r" * 16, mine, [], 5) == (True, [])
        else:
            assert found["patients"] == ENTRY
            assert loose.keys() == {"w"}
        catalog.close()
