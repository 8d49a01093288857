"""Backups made up by who can write to the medium, and places that are not as they should be."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import sqlite3
import struct
from pathlib import Path

import attrs
import pytest
import trio

from tercet.errors import ConfigError, StorageError
from tercet.members.audit import AuditLog
from tercet.members.config import ClusterFile, Former
from tercet.members.keys import MemberKeys
from tercet.members.seals import Head
from tercet.nodes import backup as backups
from tercet.nodes import manifest as manifests
from tercet.nodes import program
from tercet.nodes import restore as restores
from tercet.nodes.backup import back_up
from tercet.nodes.manifest import MARK, Manifest, check_backup
from tercet.nodes.program import Settings
from tercet.nodes.restore import restore
from tercet.nodes.roster import note_start
from tercet.nodes.vault import Vault
from tercet.transports.identity import make_identity


@pytest.fixture
def home(nodes_at_rest):
    """Where a node is that has run."""
    path = nodes_at_rest.root / "n0"
    settings = Settings.read(path / "node.toml")
    vault = Vault(settings.file)
    note_start(settings.file.cluster, settings.cluster, vault.journal, vault.catalog)
    log = AuditLog(path / "audit.log", MemberKeys(settings.identity))
    log.append("runs", caller="ann")
    log.settle()
    vault.catalog.close()
    return path


@pytest.fixture
def saved(home, tmp_path):
    """A backup of it, and nothing else."""
    back_up(home / "node.toml", tmp_path / "saved")
    cluster = Settings.read(home / "node.toml").file.cluster
    for path in home.iterdir():
        if path.name not in ("node.toml", "node.key", "storage.key") and path != cluster:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return tmp_path / "saved"


def without_list(home):
    """Let the list of members be in the backup only."""
    Settings.read(home / "node.toml").file.cluster.unlink()


def sign(saved, identity, cluster=None, head=Head()):  # noqa: B008 - it cannot be changed
    """Sign a backup anew, with whatever key."""
    where = saved / "manifest.json"
    manifest, _ = Manifest.parse(where.read_bytes(), "")
    manifest = attrs.evolve(manifest, head=head)
    if cluster is not None:
        (saved / "members/cluster.toml").write_text(cluster.to_text())
    files = {name: backups._content(saved / name) for name in manifest.files}
    lake = manifest.lake if cluster is None else cluster.lake.hex()
    where.write_text(attrs.evolve(manifest, files=files, lake=lake).to_text(MemberKeys(identity)))


def with_former(cluster, name, former):
    nodes = [attrs.evolve(one, former=(former,)) if one.name == name else one for one in cluster.nodes]
    return attrs.evolve(cluster, nodes=tuple(nodes))


def test_a_list_in_a_backup_names_no_key_that_signs_it(saved, home):
    """Whoever can write to the medium says that the node had their key before."""
    forger = make_identity("n0")
    cluster = ClusterFile.read(saved / "members/cluster.toml")
    (saved / "audit/audit.log").write_bytes(b"")
    with contextlib.closing(sqlite3.connect(saved / "catalog.sqlite")) as catalog, catalog:
        catalog.execute("DELETE FROM audit")
        catalog.execute("DELETE FROM lake_file")
    sign(saved, forger, with_former(cluster, "n0", Former(forger.certificate_pem)))
    without_list(home)
    check_backup(saved)
    with pytest.raises(StorageError, match=r"manifest\.json was not signed with the key of n0"):
        restore(saved, home / "node.toml")
    assert not (home / "catalog.sqlite").exists()
    assert not (home / MARK).exists()


@pytest.mark.parametrize("revoked", [True, False])
def test_a_key_that_was_revoked_signs_no_backup(saved, home, revoked):
    """By the list beside `node.toml`, which has followed since. What other earlier keys signed counts."""
    settings = Settings.read(home / "node.toml")
    there, old = settings.file.cluster, make_identity("n0")
    entry = attrs.evolve(settings.cluster.nodes[0], former=(Former(old.certificate_pem, revoked=revoked),))
    sign(saved, old)
    manifest, signature = Manifest.parse((saved / "manifest.json").read_bytes(), "")
    with contextlib.nullcontext() if not revoked else pytest.raises(StorageError, match="revoked since"):
        manifest.require_signed(signature, entry.trusted, str(there))


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("node", "n0\x1b[2J"),
        ("node", ""),
        ("node", ["n0"]),
        ("release", "1" * 1000),
        ("lake", "ab\n"),
        ("made", "yesterday"),
        ("made", 3),
        ("storage_key", "../../etc"),
        ("head", {"lines": 1e999, "digest": "0" * 64}),
        ("head", {"lines": "7", "digest": "0" * 64}),
        ("head", {"lines": 1 << 80, "digest": "0" * 64}),
        ("head", {"lines": 0, "digest": "0" * 65}),
        ("files", {"catalog.sqlite": {"size": float("inf"), "sha256": "0" * 64}}),
        ("files", {"catalog.sqlite": {"size": True, "sha256": "0" * 64}}),
        ("files", {"catalog.sqlite": {"size": -1, "sha256": "0" * 64}}),
        ("files", {"catalog.sqlite": {"size": 1, "sha256": 3}}),
        ("files", {"audit/audit-\u0661\u0661\u0661\u0661\u0661\u0661.log": {"size": 1, "sha256": "0" * 64}}),
        ("files", {"/etc/passwd": {"size": 1, "sha256": "0" * 64}}),
        ("files", {"shares/../../node.key": {"size": 1, "sha256": "0" * 64}}),
        ("files", ["catalog.sqlite"]),
        ("signature", "xyz"),
        ("signature", None),
        ("format", {}),
    ],
)
def test_manifests_that_no_backup_has(saved, key, told):
    fields = json.loads((saved / "manifest.json").read_text())
    with pytest.raises(StorageError) as found:
        Manifest.parse(json.dumps({**fields, key: told}).encode(), "manifest.json")
    assert str(found.value).isprintable()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": 1, "files": ' + '{"a":' * 100_000, "\xff", "1" * 9999]
)
def test_what_is_no_manifest_at_all(text):
    with pytest.raises(StorageError, match="is no manifest"):
        Manifest.parse(text.encode("latin-1"), "manifest.json")


def test_a_manifest_without_end(saved, monkeypatch):
    monkeypatch.setattr(manifests, "MOST_BYTES", 100)
    with pytest.raises(StorageError, match="has more than 100 bytes"):
        check_backup(saved)


@pytest.mark.parametrize(
    "name",
    ["members/cluster.next.toml", "audit/audit-000001.log", "catalog.sqlite-journal", "catalog.sqlite-wal"],
)
def test_files_that_somebody_puts_beside(saved, home, name):
    """Such as a list with a number to which nobody can count, or changes for the catalog."""
    (saved / name).write_text((saved / "members/cluster.toml").read_text())
    (saved / "readme.txt").write_text("of the operator")
    without_list(home)
    with pytest.raises(StorageError, match="is not of the backup"):
        restore(saved, home / "node.toml")
    assert not (home / MARK).exists()
    (saved / name).unlink()
    restore(saved, home / "node.toml")


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO checkpoints VALUES ('text', 1, x'00', 'ann', x'00', 'handle', 1.0)",
        "INSERT INTO checkpoints VALUES (x'00', 1, x'00', 'ann', x'00', x'ff', 1.0)",
        "INSERT INTO loose (handle, caller, sources, rows) VALUES (x'00', 'ann', '', '')",
        "INSERT INTO audit VALUES ('many', x'00')",
        "DROP TABLE handles",
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'nonsense'",
    ],
)
def test_catalogs_that_no_node_writes(saved, home, change):
    """Signed by somebody with a list of their own: said in a sentence."""
    with contextlib.closing(sqlite3.connect(saved / "catalog.sqlite")) as catalog, catalog:
        catalog.executescript(change)
    sign_by_a_list_of_their_own(saved)
    with pytest.raises(StorageError):
        check_backup(saved)


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT"


@pytest.mark.parametrize(
    "change",
    [
        f"DROP TABLE catalog_version; CREATE VIEW catalog_version AS {ENDLESS} max(x) AS version_num FROM n",
        "DELETE FROM catalog_version; ALTER TABLE results DROP COLUMN made; INSERT INTO results (number, "
        "run, receiver, body) VALUES (1, x'00', 'ann', x''); CREATE TRIGGER big BEFORE UPDATE ON "
        "results BEGIN INSERT INTO data_key WITH x AS (SELECT 1 UNION SELECT 2) SELECT zeroblob(9e8) FROM x; "
        "END",
        "ALTER TABLE handles ADD COLUMN big AS (hex(zeroblob(400000000)))",
        "DROP INDEX ix_results_receiver; CREATE INDEX slow ON results (hex(receiver))",
        "CREATE VIRTUAL TABLE more USING fts5(x)",
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET type = 'table', sql = 'CREATE/**/VIEW handles "
        f"AS {ENDLESS} x AS handle, x AS kind, x AS name FROM n' WHERE name = 'handles'",
    ],
)
def test_catalogs_that_are_programs(saved, change):
    """A check of the backup ran what they say, or may."""
    with contextlib.closing(sqlite3.connect(saved / "catalog.sqlite")) as catalog, catalog:
        catalog.executescript(change)
    sign_by_a_list_of_their_own(saved)
    with pytest.raises(StorageError, match=r"that no node makes|is no proper catalog"):
        check_backup(saved)


def test_a_catalog_whose_pages_are_no_tree(saved):
    """Twelve pages, each of which leads to the next a hundred times, and the last to one row."""
    path = saved / "catalog.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as catalog:
        (root,) = catalog.execute("SELECT rootpage FROM sqlite_master WHERE name = 'loose'").fetchone()
        (size,) = catalog.execute("PRAGMA page_size").fetchone()
    pages = bytearray(path.read_bytes())
    first = len(pages) // size + 1
    for below in range(first + 1, first + 13):
        pages += tree_page(size, [struct.pack(">IB", below, 1)] * 100, below)
    pages += tree_page(size, [b"\x08\x01\x08" + bytes(7)])  # seven columns of nothing
    pages[(root - 1) * size : root * size] = tree_page(size, [struct.pack(">IB", first, 1)] * 100, first)
    pages[28:32] = (len(pages) // size).to_bytes(4, "big")
    path.write_bytes(pages)
    sign_by_a_list_of_their_own(saved)
    with pytest.raises(StorageError, match="is damaged"):
        check_backup(saved)


def tree_page(size, cells, last=None):
    """A page of the tree of a table, as SQLite's format has it: inside if it has a `last` page below."""
    page, start = bytearray(size), size - sum(map(len, cells))
    head = struct.pack(">BHHHB", 13 if last is None else 5, 0, len(cells), start, 0)
    head += b"" if last is None else struct.pack(">I", last)
    places = itertools.accumulate(map(len, cells[:-1]), initial=start)
    head += b"".join(struct.pack(">H", place) for place in places)
    page[: len(head)], page[start:] = head, b"".join(cells)
    return page


def sign_by_a_list_of_their_own(saved):
    forger = make_identity("n0")
    cluster = ClusterFile.read(saved / "members/cluster.toml")
    manifest, _ = Manifest.parse((saved / "manifest.json").read_bytes(), "")
    sign(saved, forger, with_former(cluster, "n0", Former(forger.certificate_pem)), head=manifest.head)


@pytest.mark.parametrize(
    "name", ["manifest.json", "catalog.sqlite", "audit/audit.log", "members/cluster.toml"]
)
@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_what_is_no_file_is_not_read(saved, name, put):
    """It would be read for ever."""
    (saved / name).unlink()
    put(saved / name)
    with pytest.raises(StorageError, match="it is no file"):
        check_backup(saved)


@pytest.mark.parametrize("text", ["{}b = 1", "[{}b]", "c = {{{}b = 1}}"])
def test_lists_that_take_all_memory(saved, text):
    """Before anybody has looked whether the list counts."""
    (saved / "members/cluster.toml").write_text(text.format("a." * 1000))
    sign(saved, make_identity("n0"))
    with pytest.raises(ConfigError, match="dots in a line"):
        check_backup(saved)


# -- places --------------------------------------------------------------------------------------------------


def test_no_room_for_the_mark(saved, home, monkeypatch):
    """What is written of it then counts for nothing, and the restore can be made again."""
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        restore(saved, home / "node.toml")
    assert not (home / MARK).exists()
    restore(saved, home / "node.toml")
    assert not (home / MARK).exists()
    assert (home / "catalog.sqlite").exists()


@pytest.mark.parametrize("name", ["audit.log", "catalog.sqlite.part", MARK])
def test_links_lead_nowhere_else(saved, home, tmp_path, name):
    """What a link points to that lies where the node comes is not written to."""
    other = tmp_path / "other"
    (home / name).symlink_to(other)
    with contextlib.suppress(OSError):
        restore(saved, home / "node.toml")
    assert not other.exists()


def test_a_directory_to_which_others_could_write(home, tmp_path, monkeypatch):
    """They put a link there after it was found to be empty."""
    chmod, to = Path.chmod, tmp_path / "saved"

    def meanwhile(path, mode):
        (to / "manifest.json.part").symlink_to(tmp_path / "other")
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", meanwhile)
    with pytest.raises(StorageError, match="somebody has put something"):
        back_up(home / "node.toml", to)
    assert not (tmp_path / "other").exists()


def test_a_node_that_is_started_as_a_restore_begins(saved, home, monkeypatch):
    real = restores.write

    def meanwhile(path, data):
        found = real(path, data)
        if path.name.startswith(MARK):
            Vault(Settings.read(home / "node.toml").file).catalog.close()
        return found

    monkeypatch.setattr(restores, "write", meanwhile)
    with pytest.raises(StorageError, match=r"catalog\.sqlite is there, and a restore overwrites nothing"):
        restore(saved, home / "node.toml")
    assert not (home / MARK).exists()
    assert not (home / "audit.log").exists()


async def test_a_restore_that_begins_as_a_node_is_started(home, monkeypatch):
    def meanwhile(file):
        (home / MARK).write_text("{}")
        return Vault(file)

    monkeypatch.setattr(program, "Vault", meanwhile)
    lines = (home / "audit.log").read_text()
    with pytest.raises(StorageError, match="run `tercet restore` again"), trio.fail_after(60):
        await program.serve(Settings.read(home / "node.toml"), signals=False)
    assert (home / "audit.log").read_text() == lines
