"""Lakes that earlier releases have kept go on with this one: see `earlier/make.py` for what is in them."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import attrs
import numpy as np
import pytest

import tercet
from tercet.nodes.backup import back_up
from tercet.nodes.preflight import check_node
from tercet.nodes.restore import restore
from tercet.storage import migrations
from tests.nodes.network import Loopback
from tests.nodes.on_disk import NodesOnDisk

pytestmark = [pytest.mark.early, pytest.mark.cases("lake-2951afe")]
LAKES = sorted((Path(__file__).parent / "earlier").glob("lake-*.tar.xz"))


@attrs.define(eq=False)
class Earlier(NodesOnDisk):
    """The nodes of a lake that an earlier release has kept, and what is to be found there."""

    expected: dict = attrs.field(factory=dict)

    @classmethod
    def unpack(cls, archive: Path, root: Path) -> Earlier:
        """On loopback, at ports that are free now: addresses are what may be changed in a list of members."""
        with tarfile.open(archive) as packed:
            packed.extractall(root, filter="data")
        network = Loopback.make(3)
        cluster = (root / "cluster.toml").read_text()
        before = re.findall(r'(?m)^address = "(.*)"$', cluster)
        for old, new in zip(before, network.addresses, strict=True):
            cluster = cluster.replace(f'"{old}"', f'"{new}"')
        for place in (root, *(root / f"n{index}" for index in range(3))):
            (place / "cluster.toml").write_text(cluster)
        for key in root.glob("**/*.key"):
            key.chmod(0o600)
        made = cls(root, network, expected=json.loads((root / "expected.json").read_text()))
        for index in range(3):
            made.configure(index, listen=network.addresses[index], metrics=network.metrics[index])
        return made

    def connect(self, member: str):
        return tercet.connect(self.cluster, identity=self.key(member))


@pytest.fixture(scope="module", params=LAKES, ids=lambda path: path.name.split(".")[0])
def kept(request, tmp_path_factory):
    """A lake of an earlier release, before anything was done to it."""
    return Earlier.unpack(request.param, tmp_path_factory.mktemp("kept"))


def state(place):
    return {one.relative_to(place): one.read_bytes() for one in place.rglob("*") if one.is_file()}


def version(place):
    with closing(sqlite3.connect(place / "catalog.sqlite")) as database:
        return database.execute("SELECT version_num FROM catalog_version").fetchall()


@pytest.fixture(scope="module")
def saved(kept, tmp_path_factory):
    """A backup of a node whose catalog is still that of the earlier release."""
    to = tmp_path_factory.mktemp("backups") / "saved"
    before = state(kept.root / "n0")
    assert [one for one in check_node(kept.root / "n0" / "node.toml") if not one.good] == []
    back_up(kept.root / "n0" / "node.toml", to)
    assert state(kept.root / "n0") == before  # neither of them has changed anything
    return to


@pytest.fixture(scope="module")
def nodes(kept, saved):
    """Its nodes, as they run today."""
    kept.start(0, 1, 2)
    try:
        kept.wait_until_ready()
        yield kept
    finally:
        kept.close()


def notebook(lake):
    """As the one that was signed."""
    return lake.table("asking").join(lake.table("costs"), on="id").describe()


def test_everything_is_there_and_runs(nodes, command):
    expected = nodes.expected
    for index in range(3):
        home = nodes.root / f"n{index}"
        assert version(home) == [(migrations.known()[-1],)]
        assert (home / "catalog.sqlite.version-0000").exists()
        assert any("was brought from version 0000" in line["message"] for line in nodes.log(index))
    told = command("tables", "--identity", "hospital.key", cwd=nodes.root)
    assert all(name in told for name in ("ages", "asking", "costs"))
    with nodes.connect("ann") as lake:
        table = lake.table("ages")
        assert table.rows == expected["rows"]
        assert table.describe(["age"])["age"]["mean"] == pytest.approx(expected["mean age"], abs=1e-3)
        coefficients = lake.model("risk").reveal().coef_[0]
        np.testing.assert_allclose(coefficients, [expected["coefficient"]], atol=1e-6)
        with pytest.raises(
            tercet.ConsentError, match="lets results of table 'ages' go to ann, hospital only"
        ):
            table.describe(["age"], to="insurer")
    with nodes.connect("hospital") as lake:
        sent = lake.received()
    assert {(one.sender, one.plan) for one in sent} == {("ann", "describe ages")}
    assert "mean of 'age' on 'ages'" in {one.name for one in sent}


def test_what_was_signed_is_signed(nodes):
    expected = nodes.expected
    with nodes.connect("ann") as lake:
        known = {one.number: one for one in lake.studies()}
        assert (known[expected["study"]].missing, known[expected["study"]].runs) == ((), 1)
        assert known[expected["half"]].missing == ("hospital",)
        for _ in range(2):
            with lake.study(nodes.root / "signed.json"):
                assert notebook(lake) is not None
        with pytest.raises(tercet.ConsentError, match="has been run 3 times of 3"):
            lake.study(nodes.root / "signed.json")
    with nodes.connect("hospital") as lake:
        lake.approve_study(lake.show_study(expected["half"]))
    with nodes.connect("ann") as lake, lake.study(nodes.root / "half.json"):
        assert notebook(lake) is not None


def test_jobs_are_there(nodes):
    expected = nodes.expected
    with nodes.connect("ann") as lake:
        jobs = {one.number: one for one in lake.jobs()}
        assert jobs.keys() == {expected["ended"], expected["asking"], expected["long"]}
        found = jobs[expected["ended"]].result().revealed["sum"]
        in_units = expected["mean age"] * expected["rows"] / 16  # ages are stored in units of 16 years
        np.testing.assert_allclose(found, [in_units], rtol=1e-3)
        with nodes.connect("hospital") as owner:
            nodes.wait_for(owner.plans, "waiting for the hospital")
            owner.approve(expected["asking"])
        np.testing.assert_allclose(jobs[expected["asking"]].result().revealed["sum"], found, rtol=1e-6)
        jobs[expected["long"]].result()


def test_audit_logs_go_on(nodes, command):
    told = command("audit", "--identity", "aud.key", "--verify", cwd=nodes.root)
    assert told.count("lines, whole") == 3
    for index in range(3):
        assert [one for one in check_node(nodes.root / f"n{index}" / "node.toml") if not one.good] == []


def test_a_backup_of_an_earlier_release_is_put_back(nodes, saved):
    """Made by the earlier release's catalog, and put back by this one, which goes on with the others."""
    nodes.stop(0)
    home = nodes.root / "n0"
    for path in home.iterdir():
        if path.name not in ("node.toml", "node.key", "storage.key", "cluster.toml"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    restore(saved, home / "node.toml")
    assert version(home) == [(migrations.known()[-1],)]
    nodes.start(0)
    nodes.wait_until_ready()
    with nodes.connect("ann") as lake:
        assert lake.table("ages").describe(["age"])["age"]["mean"] == pytest.approx(
            nodes.expected["mean age"], abs=1e-3
        )
