"""Backups made up by who can write to the medium, and places that are not as they should be."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3

import attrs
import pytest

from tercet.errors import StorageError
from tercet.members.audit import AuditLog, Head
from tercet.members.config import ClusterFile, Former
from tercet.members.keys import MemberKeys
from tercet.nodes import backup as backups
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


def sign(saved, identity, cluster=None):
    """Sign a backup anew, with whatever key."""
    where = saved / "manifest.json"
    manifest, _ = Manifest.parse(where.read_bytes(), "")
    manifest = attrs.evolve(manifest, head=Head())
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
    """By the list beside `node.toml`, which has followed since; what another earlier key has signed counts."""
    settings = Settings.read(home / "node.toml")
    there, old = settings.file.cluster, make_identity("n0")
    entry = attrs.evolve(settings.cluster.nodes[0], former=(Former(old.certificate_pem, revoked=revoked),))
    sign(saved, old)
    manifest, signature = Manifest.parse((saved / "manifest.json").read_bytes(), "")
    with contextlib.nullcontext() if not revoked else pytest.raises(StorageError, match="revoked since"):
        manifest.require_signed(signature, entry.trusted, str(there))
