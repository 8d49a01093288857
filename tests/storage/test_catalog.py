"""The catalog: entries come and go whole, in SQLite and in PostgreSQL, also after it was closed."""

from __future__ import annotations

import attrs
import pytest

from tercet.errors import StorageError
from tercet.storage.catalog import Catalog, Entry

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
        made.drop(entry.kind, entry.name)
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
    assert catalog.drop("table", "patients") == ("q#1",)
    assert catalog.drop("table", "patients") == ()
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
