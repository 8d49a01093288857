"""Backups of a node: whole or no backup, put back whole or not at all, and what has gone meanwhile."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys

import fsspec
import numpy as np
import pytest
from typer.testing import CliRunner

from tercet.actors.values import Stored, cut, join
from tercet.cli import app
from tercet.errors import ConfigError, ConsentError, StorageError
from tercet.members.audit import AuditLog, log_lines
from tercet.members.audit_lines import parse
from tercet.members.config import ClusterFile
from tercet.members.keys import MemberKeys
from tercet.members.seals import Head, segment_path
from tercet.members.succession import draft, place, sign
from tercet.nodes import backup as backups
from tercet.nodes import restore as restores
from tercet.nodes.backup import back_up
from tercet.nodes.manifest import MARK, Manifest, check_backup
from tercet.nodes.preflight import check_node
from tercet.nodes.program import Settings
from tercet.nodes.restore import restore
from tercet.nodes.roster import note_start
from tercet.nodes.vault import Vault, renew_storage_key
from tercet.plans import Form, Type
from tercet.protocols.base import Share
from tercet.storage import sealed
from tercet.storage.catalog import Entry
from tercet.storage.catalog_copies import Restored, restored_from
from tercet.storage.journal import Checkpoint, LooseValue
from tercet.storage.share_files import file_name
from tercet.storage.shared import SealedParts, SharedStorage
from tercet.transports import Identity

HANDLES = ["ages#1", "ages#2"]


def value(seed=7):
    words = np.random.default_rng(seed).integers(0, 1 << 64, (2, 300), dtype=np.uint64)
    return Stored(Type(Form.RING, (300,), 0, 2.0**40), cut(Share(Form.RING.domain, words, 0), 64), 64)


class Home:
    """A node that has run before: two values of a table, a loose one, one of a checkpoint, and a log."""

    def __init__(self, path):
        self.path = path
        settings = Settings.read(self.toml)
        self.vault = Vault(settings.file)
        note_start(settings.file.cluster, settings.cluster, self.vault.journal, self.vault.catalog)
        self.log = AuditLog(path / "audit.log", MemberKeys(settings.identity), segment_lines=5)
        for handle in [*HANDLES, "loose", "point"]:
            self.vault.files.save(handle, value())
        self.vault.catalog.put(Entry("table", "ages", "hospital", b"facts", b"rules", tuple(HANDLES)))
        journal = self.vault.journal
        journal.end(b"r" * 16, {"loose": LooseValue("ann", frozenset(), frozenset())}, [], 9)
        journal.reach(Checkpoint(b"s" * 24, 3, b"s" * 16, "ann", bytes(32), ("point",)))
        for number in range(7):
            self.log.append("runs", caller="ann", number_of_run=number)
            self.log.rotate()
        self.log.settle()
        journal.note(self.log.head.lines, self.log.head.digest)

    @property
    def toml(self):
        return self.path / "node.toml"

    def close(self):
        self.vault.catalog.close()

    def empty(self):
        """Let everything go but what an operator keeps apart."""
        self.close()
        for path in self.path.iterdir():
            if path.name not in ("node.toml", "node.key", "storage.key"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def home(nodes_at_rest):
    made = Home(nodes_at_rest.root / "n0")
    yield made
    made.close()


@pytest.fixture
def saved(home, tmp_path):
    """A backup of it, and nothing else."""
    back_up(home.toml, tmp_path / "saved")
    home.empty()
    return tmp_path / "saved"


def state(path):
    return {one: one.read_bytes() for one in path.rglob("*") if one.is_file()}


def require_as_before(home):
    """That everything is there."""
    assert [one for one in check_node(home.toml) if not one.good] == []
    settings = Settings.read(home.toml)
    vault = Vault(settings.file)
    try:
        assert vault.catalog.find("table", "ages").handles == tuple(HANDLES)
        for handle in [*HANDLES, "loose", "point"]:
            np.testing.assert_array_equal(join(vault.files.load(handle).tiles).data, join(value().tiles).data)
        noted = Head(*vault.journal.noted())
    finally:
        vault.catalog.close()
    log = AuditLog(home.path / "audit.log", MemberKeys(settings.identity), noted=noted)
    events = [parse(line)["event"] for line in log_lines(home.path / "audit.log")]
    assert events == ["runs"] * 7 + ["restored"]
    assert log.head.lines == 8
    assert not (home.path / MARK).exists()


# -- making one ----------------------------------------------------------------------------------------------


def test_a_backup_and_back(home, tmp_path):
    before = state(home.path)
    manifest = back_up(home.toml, tmp_path / "saved")
    assert state(home.path) == before
    assert (manifest.node, manifest.head) == ("n0", home.log.head)
    assert check_backup(tmp_path / "saved").manifest == manifest
    home.empty()
    restore(tmp_path / "saved", home.toml)
    require_as_before(home)
    settings = Settings.read(home.toml)
    vault = Vault(settings.file)
    assert restored_from(vault.catalog) == Restored("n0", manifest.made)
    vault.catalog.close()


def write_in_parts(home, handle):
    """Let two workers write a value of the table, in the place of the node."""
    files, stored = home.vault.files, value()
    files.remove(handle)
    storage = SharedStorage("memory://lake", 1 << 20)
    storage.connect()
    parts, written = SealedParts(files, handle, 2), {}
    for worker, tiles in enumerate(([0, 1, 2], [3, 4])):
        part = storage.part(parts.places[worker])
        written[worker] = [part.write(tile, stored.tiles[tile], len(tiles)) for tile in tiles][-1]
    files.save(handle, parts.stored(stored.type, stored.tile_rows, written))
    entry = home.vault.catalog.find("table", "ages")
    home.vault.catalog.put(entry, {handle: 8 * stored.type.shape[0] * 2})


def test_shares_that_lie_elsewhere(nodes_at_rest, tmp_path):
    store = fsspec.filesystem("memory")
    nodes_at_rest.configure(0, storage="memory://lake")
    home = Home(nodes_at_rest.root / "n0")
    write_in_parts(home, HANDLES[0])
    back_up(home.toml, tmp_path / "saved")
    (part,) = store.glob(f"/lake/{file_name(HANDLES[0])}-*0001")
    store.rm(part)
    with pytest.raises(StorageError, match="was cut, or lacks a part, and the catalog names it"):
        back_up(home.toml, tmp_path / "lacking")
    home.empty()
    with pytest.raises(StorageError, match="files of shares in /lake is there"):
        restore(tmp_path / "saved", home.toml)
    store.rm("/lake", recursive=True)
    restore(tmp_path / "saved", home.toml)
    require_as_before(home)
    store.rm("/lake", recursive=True)


def test_keys_stay_where_they_are_and_nobody_else_reads(home, tmp_path):
    back_up(home.toml, tmp_path / "saved")
    for path in (tmp_path / "saved").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    files = state(tmp_path / "saved").values()
    for name in ("storage.key", "node.key"):
        secret = (home.path / name).read_bytes().strip()
        assert not any(secret in one for one in files)


def test_the_commands(home, tmp_path):
    runner, to = CliRunner(), str(tmp_path / "saved")
    for words, told in [
        (["backup", str(home.toml), to], "has node n0 as of"),
        (["backup", "--check", to], "Its audit log has 7 lines"),
        (["restore", to, str(home.toml)], "error: .*overwrites nothing"),
        (["backup", str(home.toml), to], "error: .*is not empty"),
        (["backup", to], "error: give node.toml and a directory"),
        (["backup", str(home.toml), "--check", to], "error: --check looks at one backup"),
    ]:
        done = runner.invoke(app, words)
        assert done.exit_code == (1 if told.startswith("error") else 0), done.output
        assert told.partition("*")[2] or told in done.output
    home.empty()
    assert "Node n0 is as it was" in runner.invoke(app, ["restore", to, str(home.toml)]).output
    require_as_before(home)


def test_what_goes_while_it_is_copied(home, tmp_path, monkeypatch):
    """A value that vanishes, one that another takes the place of, under the same name, and one that comes."""
    copy, catalog = backups._Maker._copy, home.vault.catalog
    rounds = []

    def meanwhile(maker, storage, handle):
        rounds.append(handle)
        if len(rounds) == 1:
            home.vault.journal.forget(["loose"])
            home.vault.files.remove("loose")
        found = copy(maker, storage, handle)
        if len(rounds) == 4:
            home.vault.files.save("new", value())
            catalog.drop(catalog.find("table", "ages"))
            for one in HANDLES:
                home.vault.files.remove(one)
            home.vault.files.save(HANDLES[0], value(8))
            catalog.put(Entry("table", "ages", "hospital", b"", b"", (HANDLES[0], "new")))
        return found

    monkeypatch.setattr(backups._Maker, "_copy", meanwhile)
    manifest = back_up(home.toml, tmp_path / "saved")
    assert len(rounds) == 6  # what was copied and is the same still is not copied again
    kept = {name for name in manifest.files if name.startswith("shares/")}
    assert kept == {f"shares/{file_name(one)}" for one in (HANDLES[0], "new", "point")}
    name = file_name(HANDLES[0])
    assert (tmp_path / "saved/shares" / name).read_bytes() == (home.path / "data" / name).read_bytes()


def test_a_node_on_which_values_never_rest(home, tmp_path, monkeypatch):
    copy = backups._Maker._copy
    count = iter(range(1000))

    def meanwhile(maker, storage, handle):
        found = copy(maker, storage, handle)
        name = f"loose {next(count)}"
        for old in home.vault.journal.loose():
            home.vault.journal.forget([old])
            home.vault.files.remove(old)
        home.vault.files.save(name, value())
        value_of = LooseValue("ann", frozenset(), frozenset())
        home.vault.journal.end(os.urandom(16), {name: value_of}, [], 9)
        return found

    monkeypatch.setattr(backups._Maker, "_copy", meanwhile)
    with pytest.raises(StorageError, match="have come and gone 16 times"):
        back_up(home.toml, tmp_path / "saved")
    with pytest.raises(StorageError, match=r"has no manifest\.json"):
        check_backup(tmp_path / "saved")


def test_the_log_becomes_a_segment_meanwhile(home, tmp_path, monkeypatch):
    exists, calls = segment_path(home.path / "audit.log", 2), []

    def meanwhile(path, number):
        if not calls:
            calls.append(number)
            for _ in range(5):
                home.log.append("runs")
            with (home.path / "audit.log").open("ab") as file:
                file.write(b"half a li")
            home.log.path.rename(exists)
        return segment_path(path, number)

    monkeypatch.setattr(backups, "segment_path", meanwhile)
    manifest = back_up(home.toml, tmp_path / "saved")
    assert exists.exists()
    assert manifest.head.lines == 12
    names = {name for name in manifest.files if name.startswith("audit/")}
    assert names == {"audit/audit-000001.log", "audit/audit-000001.seal", "audit/audit.log"}


def test_what_cannot_be_saved(home, nodes_at_rest, tmp_path):
    (home.path / "data" / file_name("loose")).unlink()
    with pytest.raises(StorageError, match="is missing, and the catalog names it"):
        back_up(home.toml, tmp_path / "one")
    with pytest.raises(StorageError, match="has not run yet"):
        back_up(nodes_at_rest.root / "n1" / "node.toml", tmp_path / "two")
    text = home.toml.read_text()
    home.toml.write_text(text.replace("sqlite:///catalog.sqlite", "postgresql+psycopg://me@host/lake"))
    with pytest.raises(StorageError, match="`pg_dump` first, then the files of the storage, then the segm"):
        back_up(home.toml, tmp_path / "three")
    assert not (tmp_path / "three").exists()


def test_a_log_that_was_changed_is_not_saved(home, tmp_path):
    path = home.path / "audit.log"
    path.write_text(path.read_text().replace('"ann"', '"bob"'))
    with pytest.raises(ConsentError, match="was not signed by this node's key"):
        back_up(home.toml, tmp_path / "saved")


# -- what is wrong with one ----------------------------------------------------------------------------------


def spoil(saved, home, what):
    """Spoil a backup or the place where it is to come; what is said."""
    share = next((saved / "shares").iterdir())
    match what:
        case "a byte of shares":
            data = bytearray(share.read_bytes())
            data[100] ^= 1
            share.write_bytes(data)
            return f"{share.name} is not as it was saved"
        case "a byte of the catalog":
            data = bytearray((saved / "catalog.sqlite").read_bytes())
            data[5000] ^= 1
            (saved / "catalog.sqlite").write_bytes(data)
            return "catalog.sqlite is not as it was saved"
        case "a file":
            share.unlink()
            return f"{share.name} is missing from the backup"
        case "manifest":
            text = (saved / "manifest.json").read_text()
            (saved / "manifest.json").write_text(text.replace('"node": "n0"', '"node": "n1"'))
            return "was not signed with the key of n1"
        case "no manifest":
            (saved / "manifest.json").rename(saved / "manifest.json.part")
            return "one that did not come to its end"
        case "a path":
            told = json.loads((saved / "manifest.json").read_text())
            told["files"]["../../node.key"] = {"size": 1, "sha256": ""}
            (saved / "manifest.json").write_text(json.dumps(told))
            return "which is no file of a backup"
    raise AssertionError(what)


@pytest.mark.parametrize(
    "what", ["a byte of shares", "a byte of the catalog", "a file", "manifest", "no manifest", "a path"]
)
def test_a_backup_that_is_not_whole(saved, home, what):
    said = spoil(saved, home, what)
    before = state(home.path)
    for look in (check_backup, lambda path: restore(path, home.toml)):
        with pytest.raises(StorageError, match=said):
            look(saved)
    assert state(home.path) == before


@pytest.mark.parametrize("fields", [{}, [], {"format": 2}, {"format": 1, "files": {"shares": 3}}])
def test_what_is_no_manifest(fields):
    with pytest.raises(StorageError):
        Manifest.parse(json.dumps(fields).encode(), "manifest.json")


def test_other_places(saved, home, nodes_at_rest, tmp_path):
    root = nodes_at_rest.root
    with pytest.raises(ConfigError, match=r"is of node n0, and .* is the key of n1"):
        restore(saved, root / "n1" / "node.toml")
    key = (home.path / "storage.key").read_text()
    (home.path / "storage.key").write_text("ab" * 32)
    with pytest.raises(StorageError, match=r"the backup opens with [0-9a-f]{16}: put that one in its place"):
        restore(saved, home.toml)
    (home.path / "storage.key").write_text(key)
    for name in ("audit.log", "audit-000001.log", "catalog.sqlite", "catalog.sqlite-journal"):
        (home.path / name).write_text("x")
        with pytest.raises(StorageError, match=f"{name} is there, and a restore overwrites nothing"):
            restore(saved, home.toml)
        (home.path / name).unlink()
    (home.path / "data").mkdir()
    (home.path / "data" / ("a" * 40)).write_text("x")
    with pytest.raises(StorageError, match=r"files of shares in .* is there"):
        restore(saved, home.toml)
    (home.path / "data" / ("a" * 40)).unlink()
    host, port = Settings.of(*places(home, root)).file.listen.split(":")
    with socket.create_server((host, int(port))), pytest.raises(StorageError, match="stop the node before"):
        restore(saved, home.toml)
    restore(saved, home.toml)
    require_as_before(home)


def places(home, root):
    shutil.copy(root / "cluster.toml", home.path / "cluster.toml")
    return places_of(home)


def places_of(home):
    read = Settings.read(home.toml)
    return read.file, read.cluster


def test_a_backup_of_another_lake(saved, home, tmp_path, nodes_at_rest):
    shutil.copy(nodes_at_rest.root / "cluster.toml", home.path / "cluster.toml")
    text = (home.path / "cluster.toml").read_text()
    (home.path / "cluster.toml").write_text(text.replace('name = "olga"', 'name = "olaf"'))
    with pytest.raises(ConfigError, match="is of another lake"):
        restore(saved, home.toml)


def test_a_storage_key_that_was_renewed_since(home, tmp_path):
    back_up(home.toml, tmp_path / "saved")
    home.close()
    before = renew_storage_key(Settings.read(home.toml).file)
    back_up(home.toml, tmp_path / "later")
    kept = before.read_text()
    home.empty()
    with pytest.raises(StorageError, match=r"perhaps the storage\.key\.before"):
        restore(tmp_path / "saved", home.toml)
    restore(tmp_path / "later", home.toml)
    require_as_before(home)
    home.empty()
    (home.path / "storage.key").write_text(kept)
    restore(tmp_path / "saved", home.toml)
    require_as_before(home)


# -- lists of members ----------------------------------------------------------------------------------------


def followed(home, root, days=-1):
    """What follows the list of members in so many days, signed by two nodes."""
    before = ClusterFile.read(root / "cluster.toml")
    after = draft(before, removed=["insurer"], takes_effect=dt.datetime.now(dt.UTC) + dt.timedelta(days=days))
    for name in ("n0", "n1"):
        after = sign(before, after, MemberKeys(Identity.read(root / name / "node.key")))
    packed = after.to_text().encode()
    place(home.path / "cluster.toml", packed)
    return packed


def test_lists_of_members_come_back(home, nodes_at_rest, tmp_path):
    root = nodes_at_rest.root
    followed(home, root)
    (file, cluster), journal = places_of(home), home.vault.journal
    assert cluster.number == 2
    journal.note_lake_file(cluster.to_text().encode())
    back_up(home.toml, tmp_path / "saved")
    home.empty()
    shutil.copy(root / "cluster.toml", file.cluster)
    with pytest.raises(
        ConfigError, match=r"number 1 of the lake's.*gone by number 2.*lists of members in mem"
    ):
        restore(tmp_path / "saved", home.toml)
    file.cluster.unlink()
    restore(tmp_path / "saved", home.toml)
    require_as_before(home)
    assert ClusterFile.read(file.cluster).number == 2
    assert (home.path / "cluster-000001.toml").read_bytes() == (root / "cluster.toml").read_bytes()


def test_a_list_that_has_followed_since_stays(home, nodes_at_rest, tmp_path):
    back_up(home.toml, tmp_path / "saved")
    home.empty()
    shutil.copy(nodes_at_rest.root / "cluster.toml", home.path / "cluster.toml")
    packed = followed(home, nodes_at_rest.root)
    restore(tmp_path / "saved", home.toml)
    assert (home.path / "cluster.toml").read_bytes() == packed
    require_as_before(home)


def test_what_waits_to_follow_is_saved_too(home, nodes_at_rest, tmp_path):
    packed = followed(home, nodes_at_rest.root, days=1)
    back_up(home.toml, tmp_path / "saved")
    assert "members/cluster.next.toml" in check_backup(tmp_path / "saved").manifest.files
    home.empty()
    restore(tmp_path / "saved", home.toml)
    assert (home.path / "cluster.next.toml").read_bytes() == packed
    require_as_before(home)


# -- restores that do not come to their end ------------------------------------------------------------------

KILLED = """
import os, signal, sys
from tercet.nodes import restore as restores

count = int(sys.argv[3])

def counted(real):
    def call(*args):
        global count
        count -= 1
        if not count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)
    return call

for name in ("_put", "_put_shares", "_say_so", "sync", "copy_to"):
    setattr(restores, name, counted(getattr(restores, name)))
restores.restore(restores.Path(sys.argv[1]), restores.Path(sys.argv[2]))
"""


@pytest.mark.parametrize("count", [1, 3, 9, 14, 18, 20, 22])
def test_a_restore_that_was_killed(saved, home, tmp_path, count):
    command = [sys.executable, "-c", KILLED, str(saved), str(home.toml), str(count)]
    done = subprocess.run(command, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr[-500:])
    assert (home.path / MARK).exists()
    with pytest.raises(StorageError, match="run `tercet restore` again"):
        Settings.read(home.toml)
    assert any("run `tercet restore` again" in one.what for one in check_node(home.toml) if not one.good)
    with pytest.raises(StorageError, match="run `tercet restore` again"):
        back_up(home.toml, tmp_path / "another")
    restore(saved, home.toml)
    require_as_before(home)


def test_a_restore_goes_on_from_the_same_backup_only(saved, home, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("no room")

    monkeypatch.setattr(restores, "_say_so", fails)
    with pytest.raises(OSError, match="no room"):
        restore(saved, home.toml)
    monkeypatch.undo()
    other = tmp_path / "other"
    shutil.copytree(saved, other)
    told = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(told))
    with pytest.raises(StorageError, match="a restore from another backup did not come to its end"):
        restore(other, home.toml)
    restore(saved, home.toml)
    require_as_before(home)


def test_files_of_shares_are_written_once(home):
    """What backups rest on: a file appears whole, and is never written to again."""
    files = sealed.SealedFiles("data", bytes(32), base=home.path)
    name, path = "0" * 40, home.path / "data" / ("0" * 40)
    writer = files.begin(name)
    assert not path.exists()
    writer.commit()
    inode = path.stat().st_ino
    files.write(name, [])
    assert path.stat().st_ino != inode
