"""What `tercet prune` frees, what it leaves alone, and that the audit log stays whole."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from tercet.cli import app
from tercet.errors import ConfigError, StorageError
from tercet.members import succession
from tercet.members.audit import log_lines
from tercet.members.audit_lines import parse
from tercet.members.seals import segment_path
from tercet.nodes import prune as prunes
from tercet.nodes.preflight import check_node
from tercet.nodes.program import Settings
from tercet.nodes.prune import prune
from tercet.nodes.running import running
from tercet.nodes.vault import Vault
from tercet.storage.catalog import Entry
from tercet.storage.job_rows import JOBS, JobEnd, JobRow
from tercet.storage.journal import RESULTS, LooseValue
from tercet.storage.sealed import SealedFiles
from tercet.storage.share_files import file_name
from tests.nodes.test_amending import following
from tests.nodes.test_backup import Home, value

LONG_AGO = time.time() - 100 * 86400
OLD, NEW, WAITING = b"o" * 16, b"n" * 16, b"w" * 16


@pytest.fixture
def home(nodes_at_rest):
    """A node that has run, with old and new results and jobs, which does not run now."""
    made = Home(nodes_at_rest.root / "n0")
    journal = made.vault.journal
    for run in (OLD, NEW):
        journal.put_job(JobRow(run, "ann", b"asked", LONG_AGO if run == OLD else time.time()))
        journal.end(run, {}, [("hospital", b"sealed" * 1000)], 9, job=JobEnd(run, b"answer" * 1000))
    journal.put_job(JobRow(WAITING, "ann", b"asked", LONG_AGO))
    with made.vault.catalog.begin() as connection:
        connection.execute(RESULTS.update().where(RESULTS.c.run == OLD).values(made=LONG_AGO))
    made.vault.files.save("claims#1", value())
    made.vault.catalog.put(Entry("table", "claims", "insurer", b"f", b"r", ("claims#1",)), {"claims#1": 4800})
    made.close()
    yield made
    made.close()


def counts(found):
    return [one.amount.count for one in found]


def state(home):
    return {one: one.read_bytes() for one in home.path.rglob("*") if one.is_file()}


def without(home, name):
    """What the node's file of shares is called there."""
    return home.path / "data" / file_name(name)


def events(home):
    return [parse(line)["event"] for line in log_lines(home.path / "audit.log")]


def require_whole(home):
    assert [one for one in check_node(home.toml) if not one.good] == []


def test_nothing_is_removed_unless_it_is_said(home):
    before = state(home)
    found = prune(home.toml, days=90)
    assert counts(found) == [1, 1, 0, 0, 0]
    assert [one.amount.size for one in found[:2]] == [6000, 6005]
    assert state(home) == before


def test_what_is_old_and_over_goes_and_the_rest_stays(home):
    copies = [home.path / f"catalog.sqlite.version-{number}" for number in ("0001", "0002", "mine")]
    for copy in copies:
        copy.write_bytes(bytes(500))
    for copy in copies[::2]:
        os.utime(copy, (LONG_AGO, LONG_AGO))
    assert counts(prune(home.toml, days=90, really=True)) == [1, 1, 0, 1, 0]
    assert [one.exists() for one in copies] == [False, True, True]
    vault = Vault(Settings.read(home.toml).file)
    with vault.catalog.begin() as connection:
        assert connection.execute(sa.select(RESULTS.c.run)).scalars().all() == [NEW]
        assert set(connection.execute(sa.select(JOBS.c.run)).scalars()) == {NEW, WAITING}
    assert vault.swept == []
    vault.catalog.close()
    require_whole(home)
    assert events(home)[-1] == "pruned"
    before = state(home)
    assert counts(prune(home.toml, days=90, really=True)) == [0, 0, 0, 0, 0]
    assert {path: one for path, one in state(home).items() if path.suffix != ".sqlite"} == {
        path: one for path, one in before.items() if path.suffix != ".sqlite"
    }


def test_the_catalog_gives_its_room_back(home):
    catalog = Vault(Settings.read(home.toml).file).catalog
    with catalog.begin() as connection:
        connection.execute(RESULTS.update().where(RESULTS.c.run == OLD).values(body=bytes(1 << 20)))
    catalog.close()
    before = (home.path / "catalog.sqlite").stat().st_size
    prune(home.toml, days=90, really=True)
    assert (home.path / "catalog.sqlite").stat().st_size < before - (1 << 20) + 20000


def test_what_members_who_are_gone_have_kept(home, nodes_at_rest):
    assert counts(prune(home.toml, days=90, gone=True))[2] == 0  # nobody is
    after = following(nodes_at_rest, removed=["insurer"]).to_text().encode()
    succession.place(home.path / "cluster.toml", after)
    assert counts(prune(home.toml, days=90))[2] == 0
    assert prune(home.toml, days=90, gone=True)[2].amount == prunes.Amount(1, 4800)
    parts = [f"{file_name(name)}-{'0' * 16}" for name in ("claims#1", "ages#1")]
    for name in parts:
        home.vault.files.files.write(name, [memoryview(b"words of a worker")])
    assert without(home, "claims#1").exists()
    prune(home.toml, days=90, gone=True, really=True)
    assert not without(home, "claims#1").exists()
    assert [(home.path / "data" / name).exists() for name in parts] == [False, True]
    assert all(without(home, name).exists() for name in ("ages#1", "ages#2", "loose", "point"))
    require_whole(home)


def test_segments_that_are_archived_become_links(home, tmp_path):
    archive = tmp_path / "archive"
    archive.mkdir()
    log = home.path / "audit.log"
    segment = segment_path(log, 1)
    before = list(log_lines(log))
    assert counts(prune(home.toml, days=90, archive=archive))[4] == 0  # it is not there yet
    shutil.copy(segment, archive)
    for _ in range(2):
        prune(home.toml, days=90, archive=archive, really=True)
    assert segment.readlink() == archive / segment.name
    assert list(log_lines(log))[: len(before)] == before
    require_whole(home)


@pytest.mark.parametrize("there", ["others", "a link", "the same file"])
def test_segments_of_which_the_archive_has_no_copy_stay(home, tmp_path, there):
    segment = segment_path(home.path / "audit.log", 1)
    archive = tmp_path / "archive"
    archive.mkdir()
    match there:
        case "others":
            (archive / segment.name).write_bytes(segment.read_bytes()[:-1] + b" ")
        case "a link":
            (archive / segment.name).symlink_to(segment)
        case "the same file":
            (archive / segment.name).hardlink_to(segment)
    before = state(home)
    for really in (False, True):
        with pytest.raises(StorageError, match=r"is not the same as|is no copy of its own of"):
            prune(home.toml, days=90, archive=archive, really=really)
    assert state(home) == before


def test_a_prune_that_was_interrupted_is_made_again(home, monkeypatch, nodes_at_rest):
    after = following(nodes_at_rest, removed=["insurer"]).to_text().encode()
    succession.place(home.path / "cluster.toml", after)
    removed = monkeypatch.setattr(prunes, "file_name", None)
    assert removed is None
    with pytest.raises(TypeError):  # after the catalog, before the files
        prune(home.toml, days=90, gone=True, really=True)
    monkeypatch.undo()
    require_whole(home)
    vault = Vault(Settings.read(home.toml).file)
    assert vault.swept == [file_name("claims#1")]
    vault.catalog.close()


def test_a_node_that_runs_is_not_pruned(home):
    host, _, port = Settings.read(home.toml).file.listen.rpartition(":")
    before = state(home)
    with socket.create_server((host, int(port))):
        assert counts(prune(home.toml, days=90)) == [1, 1, 0, 0, 0]
        with pytest.raises(StorageError, match="stop the node before it is pruned"):
            prune(home.toml, days=90, really=True)
    assert state(home) == before


@pytest.fixture
def insurer_gone(home, nodes_at_rest):
    """The owner of the table is no member any more."""
    after = following(nodes_at_rest, removed=["insurer"]).to_text().encode()
    succession.place(home.path / "cluster.toml", after)


def test_a_node_that_does_not_listen_where_it_says_is_not_pruned(home):
    """It is starting or ending, is in a container, or its node.toml was changed."""
    before = state(home)
    with running(Settings.read(home.toml).file):
        assert counts(prune(home.toml, days=90)) == [1, 1, 0, 0, 0]
        with pytest.raises(StorageError, match="runs already, or is being pruned or restored"):
            prune(home.toml, days=90, really=True)
    assert state(home) == before


def test_no_node_starts_while_it_is_pruned(home, monkeypatch):
    settings = Settings.read(home.toml)
    found = []

    def starting(*arguments):
        with pytest.raises(StorageError, match="runs already, or is being pruned"), running(settings.file):
            pass
        found.append(True)

    monkeypatch.setattr(prunes, "_say_so", starting)
    prune(home.toml, days=90, really=True)
    assert found == [True]
    with running(settings.file):
        pass


@pytest.mark.usefixtures("insurer_gone")
def test_files_of_another_node_stay(home):
    """Nodes of a lake have files of the same names, and node.toml may name the wrong storage."""
    theirs = SealedFiles("../n1/data", bytes(range(32)), base=home.path)
    theirs.write(file_name("claims#1"), [memoryview(b"shares of n1")])
    home.toml.write_text(re.sub(r"(?m)^storage = .*$", 'storage = "../n1/data"', home.toml.read_text()))
    found = prune(home.toml, days=90, gone=True, really=True)
    assert found[-1].what.startswith("files of these tables and models stay")
    assert found[-1].amount == prunes.Amount(1, theirs.size(file_name("claims#1")))
    assert b"".join(theirs.read(file_name("claims#1"))) == b"shares of n1"
    vault = Vault(Settings.read(home.toml).file)  # as a start does
    vault.catalog.close()
    assert (vault.swept, vault.strange) == ([], [file_name("claims#1")])
    assert b"".join(theirs.read(file_name("claims#1"))) == b"shares of n1"


@pytest.mark.usefixtures("insurer_gone")
def test_nothing_is_left_loose_of_what_is_pruned(home):
    """A node that ended just after a table was kept has its values noted twice."""
    vault = Vault(Settings.read(home.toml).file)
    loose = LooseValue("insurer", frozenset(), frozenset())
    vault.journal.end(b"k" * 16, {"claims#1": loose}, [], 9)
    vault.catalog.close()
    prune(home.toml, days=90, gone=True, really=True)
    vault = Vault(Settings.read(home.toml).file)
    assert sorted(vault.journal.loose()) == ["loose"]
    vault.catalog.close()


@pytest.mark.usefixtures("insurer_gone")
def test_a_prune_is_killed_at_any_moment(home, tmp_path):
    """Whatever it was doing, the node is whole, and the next one does what is left."""
    archive = tmp_path / "archive"
    archive.mkdir()
    segment = segment_path(home.path / "audit.log", 1)
    shutil.copy(segment, archive)
    old = home.path / "catalog.sqlite.version-0001"
    old.write_bytes(bytes(500))
    os.utime(old, (LONG_AGO, LONG_AGO))
    home.close()
    saved = tmp_path / "saved"
    shutil.copytree(home.path, saved)
    command = [sys.executable, "-m", "tests.nodes.killed", str(home.toml), str(archive), str(saved)]
    done = subprocess.run(command, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20  # so often it was killed


def test_the_command(home):
    with pytest.raises(ConfigError, match="younger than 7 days is not pruned"):
        prune(home.toml, days=1)
    done = CliRunner().invoke(app, ["prune", str(home.toml)])
    assert done.exit_code == 0, done.output
    assert "results that were not fetched for 90 days" in done.output
    assert "Nothing was removed; stop the node, and say --yes." in done.output
    done = CliRunner().invoke(app, ["prune", str(home.toml), "--yes"])
    assert done.exit_code == 0, done.output
    assert events(home)[-1] == "pruned"
