"""Catalogs of earlier releases are brought forward whole or not at all; those of later ones are refused."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import attrs
import msgpack
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from tercet.errors import StorageError
from tercet.storage import (
    catalog_copies,
    data_key,
    job_rows,
    journal,
    migrations,
    peer_rows,
    step_journal,
    study_journal,
)
from tercet.storage.catalog import METADATA, Catalog, Entry

ALL_TABLES = (catalog_copies, data_key, job_rows, journal, peer_rows, step_journal, study_journal)
ENTRY = Entry("table", "ages", "clinic", b"body", b"rules", ("a#1",))
URL = "sqlite:///catalog.sqlite"
LATEST = migrations.known()[-1]


@pytest.fixture
def url(request, tmp_path):
    """An empty database."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield f"sqlite:///{tmp_path}/catalog.sqlite"
        return
    found = request.getfixturevalue("postgres")
    _empty(found)
    yield found
    _empty(found)  # others share it


def _empty(url):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()


BOTH = pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def revisions(tmp_path, monkeypatch):
    """Revisions of a release to come, which a test may add: a name and what it does."""
    there = tmp_path / "migrations"
    shutil.copytree(migrations.HERE / "versions", there / "versions")
    monkeypatch.setattr(migrations, "HERE", there)
    number = f"{int(LATEST) + 1:04d}"

    def add(body: str) -> str:
        text = f"revision, down_revision = {number!r}, {LATEST!r}\n\ndef upgrade(op):\n    {body}\n"
        (there / "versions" / f"v{number}_to_come.py").write_text(text)
        shutil.rmtree(there / "versions" / "__pycache__", ignore_errors=True)
        return number

    return add


def schema(url):
    """Tables, columns and versions of a database."""
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            there = sa.inspect(connection)
            tables = {
                name: [(one["name"], str(one["type"])) for one in there.get_columns(name)]
                for name in there.get_table_names()
            }
            versions = connection.execute(sa.text("SELECT version_num FROM catalog_version")).scalars().all()
    finally:
        engine.dispose()
    return tables, versions


def open_and_close(url, tmp_path, **options):
    Catalog(url, base=tmp_path, **options).close()


def with_an_entry(url, tmp_path):
    catalog = Catalog(url, base=tmp_path)
    catalog.put(ENTRY)
    catalog.close()


def entries(url, tmp_path, **options):
    catalog = Catalog(url, base=tmp_path, **options)
    try:
        return catalog.entries()
    finally:
        catalog.close()


def without_version(tmp_path):
    """Let the database be one of before there were versions, with less in it."""
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as database:
        database.execute("DROP TABLE catalog_version")
        database.execute("DROP TABLE peer_logs")
        database.execute("ALTER TABLE submitted DROP COLUMN step")
        database.commit()


def test_revisions_follow_each_other():
    found = list(ScriptDirectory(str(migrations.HERE)).walk_revisions())[::-1]
    assert [one.revision for one in found] == migrations.known()
    assert [one.down_revision for one in found] == [None, *migrations.known()[:-1]]


@BOTH
def test_revisions_make_what_the_code_reads(url, tmp_path):
    """Whoever changes a table adds a revision."""
    assert ALL_TABLES
    open_and_close(url, tmp_path)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert (
            compare_metadata(
                MigrationContext.configure(connection, opts={"version_table": migrations.VERSION.name}),
                METADATA,
            )
            == []
        )
    engine.dispose()
    assert schema(url)[1] == [LATEST]


@BOTH
def test_a_catalog_of_a_later_release_is_refused(url, tmp_path):
    with_an_entry(url, tmp_path)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE catalog_version SET version_num = '9999'"))
        connection.execute(sa.text("ALTER TABLE entries ADD COLUMN later TEXT"))
    engine.dispose()
    before = schema(url)
    for may_change in (True, False):
        with pytest.raises(StorageError, match=f"has version '9999', and this release .* up to {LATEST}"):
            Catalog(url, base=tmp_path, may_change=may_change)
    assert schema(url) == before


@BOTH
@pytest.mark.parametrize("kept", [True, False], ids=["copy", "no copy"])
def test_a_catalog_is_brought_forward_and_a_copy_kept(url, tmp_path, revisions, kept):
    with_an_entry(url, tmp_path)
    before = schema(url)
    number = revisions("op.execute(\"CREATE TABLE to_come AS SELECT 'here' AS word\")")
    open_and_close(url, tmp_path, keep_copy=kept)
    assert schema(url)[1] == [number]
    assert entries(url, tmp_path) == [ENTRY]
    copies = list(tmp_path.glob("catalog.sqlite.*"))
    if not kept or url.startswith("postgresql"):
        assert copies == []
        return
    assert [one.name for one in copies] == [f"catalog.sqlite.version-{LATEST}"]
    assert copies[0].stat().st_mode & 0o077 == 0
    assert schema(f"sqlite:///{copies[0]}") == before
    copies[0].replace(tmp_path / "catalog.sqlite")  # the way back
    assert entries(url, tmp_path) == [ENTRY]


@BOTH
def test_what_fails_on_the_way_leaves_the_catalog_as_it_was(url, tmp_path, revisions):
    with_an_entry(url, tmp_path)
    before = schema(url)
    step = "op.execute('ALTER TABLE entries ADD COLUMN later TEXT')"
    revisions(f"{step}; op.execute('DELETE FROM entries'); op.execute('SELECT * FROM nowhere')")
    with pytest.raises(StorageError, match=r"(?s)nowhere.*look at that database"):
        Catalog(url, base=tmp_path)
    assert schema(url) == before
    number = revisions(step)
    assert entries(url, tmp_path) == [ENTRY]
    tables, versions = schema(url)
    assert ("later", "TEXT") in tables["entries"]
    assert versions == [number]


def test_a_process_that_is_killed_on_the_way_leaves_the_catalog_as_it_was(url, tmp_path, revisions):
    with_an_entry(url, tmp_path)
    before = schema(url)
    step = "op.execute('ALTER TABLE entries ADD COLUMN later TEXT')"
    revisions(f"{step}; op.execute('DELETE FROM entries'); import os; os.kill(os.getpid(), 9)")
    code = (
        "import sys; from pathlib import Path; from tercet.storage import catalog, migrations; "
        "migrations.HERE = Path(sys.argv[1]); catalog.Catalog(sys.argv[2], base=Path())"
    )
    command = [sys.executable, "-c", code, str(migrations.HERE), url]
    done = subprocess.run(command, env=os.environ, timeout=120, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert schema(url) == before
    number = revisions(step)
    assert entries(url, tmp_path) == [ENTRY]
    assert schema(url)[1] == [number]


def of_an_earlier_release(url, tmp_path):
    """A catalog from before versions, with a row that each revision changes."""
    catalog = Catalog(url, base=tmp_path)
    body = msgpack.packb({"format": "f", "objective": {"penalty": "l2", "C": 1.0}, "steps": 6})
    for entry in (ENTRY, attrs.evolve(ENTRY, kind="model", name="risk", body=body, handles=("r",))):
        catalog.put(entry)
    journal.Journal(catalog).end(b"r" * 16, {}, [("ann", b"sealed")], 9)
    catalog.close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for table in ("catalog_version", "peer_logs"):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        for table, column in (("results", "made"), ("submitted", "step"), ("entries", "identity")):
            connection.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        connection.execute(sa.text("ALTER TABLE entries ADD COLUMN past TEXT"))
    engine.dispose()


@BOTH
@pytest.mark.cases("sqlite")
def test_a_process_that_is_killed_at_any_statement_leaves_the_catalog_as_it_was(url, tmp_path):
    of_an_earlier_release(url, tmp_path)
    command = [sys.executable, "-m", "tests.storage.interrupted", url]
    done = subprocess.run(command, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10  # so often it was killed
    catalog = Catalog(url, base=tmp_path)
    found = {one.name: one for one in catalog.entries()}
    assert found["ages"] == attrs.evolve(
        ENTRY, created=found["ages"].created, identity=found["ages"].identity
    )
    assert list(msgpack.unpackb(found["risk"].body)["objective"]) == ["C", "penalty"]
    assert all(one.identity for one in found.values())
    assert journal.Journal(catalog).results("ann", 0, 9, 99) == [(1, b"sealed")]
    catalog.close()
    assert schema(url)[1] == [LATEST]
    left = {one.name for one in tmp_path.glob("catalog.sqlite.*")}
    assert left == (set() if url.startswith("postgresql") else {"catalog.sqlite.version-0000"})


@BOTH
def test_processes_open_a_catalog_at_once(url, tmp_path):
    """As a node does that starts, and a command that changes its storage key."""
    of_an_earlier_release(url, tmp_path)
    code = (
        "import sys; from pathlib import Path; from tercet.storage import catalog; "
        "import alembic.operations, alembic.script; print(flush=True); input(); "
        "catalog.Catalog(sys.argv[1], base=Path()).close()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:
        opening = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", code, url], **pipes))
            for _ in range(3)
        ]
        for one in opening:
            one.stdout.readline()
        for one in opening:
            one.stdin.write("\n")
            one.stdin.flush()
        said = [one.communicate(timeout=60)[1] for one in opening]
    assert [one.returncode for one in opening] == [0] * 3, said
    assert schema(url)[1] == [LATEST]
    assert len(entries(url, tmp_path)) == 2


@BOTH
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM catalog_version",
        "UPDATE catalog_version SET version_num = ''",
        "INSERT INTO catalog_version VALUES ('0001')",
    ],
)
def test_a_version_that_is_lost_is_not_guessed(url, tmp_path, statement):
    """Taken for one of before versions, the catalog would lose what later ones have added."""
    with_an_entry(url, tmp_path)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()
    before = schema(url)
    for may_change in (True, False):
        with pytest.raises(StorageError, match=r"catalog_version"):
            Catalog(url, base=tmp_path, may_change=may_change)
    assert schema(url) == before


def test_descriptions_of_models_come_to_be_the_same_everywhere(tmp_path):
    options = [{"penalty": "l2", "C": 1.0}, {"C": 1.0, "penalty": "l2"}]
    found = []
    for index, objective in enumerate(options):
        place = tmp_path / str(index)
        place.mkdir()
        catalog = Catalog(URL, base=place)
        body = msgpack.packb({"format": "f", "objective": objective, "steps": 6})
        catalog.put(attrs.evolve(ENTRY, kind="model", name="risk", body=body))
        catalog.put(attrs.evolve(ENTRY, kind="model", name="none", body=b"\xc1", handles=("n",)))
        catalog.put(attrs.evolve(ENTRY, handles=("t",)))
        catalog.close()
        with closing(sqlite3.connect(place / "catalog.sqlite")) as database:
            database.execute("UPDATE catalog_version SET version_num = '0001'")
            database.execute("ALTER TABLE results DROP COLUMN made")
            database.commit()
        found.append({one.name: one.body for one in entries(URL, place)})
    assert found[0] == found[1]
    assert msgpack.unpackb(found[0]["risk"]) == {"format": "f", "objective": options[0], "steps": 6}
    assert (found[0]["none"], found[0]["ages"]) == (b"\xc1", ENTRY.body)


def test_reading_alone_changes_nothing(tmp_path):
    with_an_entry(URL, tmp_path)
    without_version(tmp_path)
    before = (tmp_path / "catalog.sqlite").read_bytes()
    catalog = Catalog(URL, base=tmp_path, may_change=False)
    assert catalog.entries() == [ENTRY]
    assert journal.Journal(catalog).jobs() == []
    assert peer_rows.PeerRows(catalog).all() == []
    catalog.close()
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("catalog.sqlite", before)]
    assert entries(URL, tmp_path) == [ENTRY]
    assert (tmp_path / "catalog.sqlite.version-0000").exists()
