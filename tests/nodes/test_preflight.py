"""`tercet node --check`: what a start would refuse is named, one by one, and nothing is changed."""

from __future__ import annotations

import datetime as dt
import re
import socket

import pytest
from typer.testing import CliRunner

from tercet.cli import app
from tercet.members import succession
from tercet.members.audit import AuditLog
from tercet.members.config import ClusterFile
from tercet.members.keys import MemberKeys
from tercet.nodes import preflight
from tercet.nodes.preflight import check_node
from tercet.nodes.program import Settings
from tercet.nodes.roster import note_start
from tercet.nodes.vault import Vault
from tercet.storage.catalog import Entry
from tercet.transports import Identity
from tercet.transports.identity import replace_identities
from tests.nodes.test_amending import following


@pytest.fixture
def home(nodes_at_rest):
    return nodes_at_rest.root / "n0"


@pytest.fixture
def used(home):
    """A node that has run before."""
    settings = Settings.read(home / "node.toml")
    vault = Vault(settings.file)
    note_start(settings.file.cluster, settings.cluster, vault.journal, vault.catalog)
    log = AuditLog(home / "audit.log", MemberKeys(settings.identity))
    for _ in range(3):
        log.append("started")
    vault.journal.note(log.head.lines, log.head.digest)
    vault.catalog.close()
    return home


def bad(home):
    return [f"{one.where}: {one.what}" for one in check_node(home / "node.toml") if not one.good]


def state(home):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in home.rglob("*") if path.is_file()}


def test_a_node_that_can_start(home, nodes_at_rest):
    before = state(home)
    assert bad(home) == []
    assert state(home) == before
    done = CliRunner().invoke(app, ["node", str(home / "node.toml"), "--check"])
    assert done.exit_code == 0, done.output
    assert done.output.count("ok  ") >= 7
    assert "the catalog is a new one" in done.output


def test_a_node_that_has_run(used):
    before = state(used)
    assert bad(used) == []
    assert state(used) == before
    told = [one.what for one in check_node(used / "node.toml")]
    assert any(one.startswith("3 lines, whole") for one in told)


def test_a_list_that_is_due_stays_where_it_is(used, nodes_at_rest):
    for number in (2, 3):
        after = following(nodes_at_rest).to_text().encode()
        for path in (used / "cluster.toml", nodes_at_rest.cluster):
            succession.place(path, after)
        before = state(used)
        assert bad(used) == []
        assert state(used) == before
        assert (used / "cluster.next.toml").exists()
        told = [one.what for one in check_node(used / "node.toml")]
        assert f"node n0, by number {number} of cluster.toml" in told


def test_a_list_that_is_due_stays_where_it_is_while_somebody_audits(used, nodes_at_rest):
    succession.place(used / "cluster.toml", following(nodes_at_rest).to_text().encode())
    before = state(used)
    done = CliRunner().invoke(app, ["audit", "--verify", str(used / "node.toml")])
    assert done.exit_code == 0, done.output
    assert "3 lines, whole" in done.output
    assert {path: one for path, one in state(used).items() if path.name != "node.audited.json"} == before


def test_what_is_left_of_who_is_gone(used, nodes_at_rest):
    catalog = Vault(Settings.read(used / "node.toml").file).catalog
    for name, owner in (("ages", "hospital"), ("costs", "insurer"), ("claims", "insurer")):
        catalog.put(Entry("table", name, owner, b"", b"", ()))
    catalog.close()
    after = following(nodes_at_rest, removed=["insurer"]).to_text().encode()
    succession.place(used / "cluster.toml", after)
    told = [one.what for one in check_node(used / "node.toml") if one.where == "storage"]
    assert [one.partition(",")[0] for one in told[1:]] == ["2 tables and the like of insurer"]


def spoil(home, what):
    """Spoil something; what is said."""
    match what:
        case "storage key":
            (home / "storage.key").write_text("ab" * 32)
            return "storage.key: .* is not the one that this node's shares"
        case "log":
            text = (home / "audit.log").read_text()
            (home / "audit.log").write_text(text[: text.index("\n") + 1])
            return "audit.log: .* had 3 lines"
        case "list":
            file = ClusterFile.read(home / "cluster.toml")
            ClusterFile("replicated", file.nodes, file.members[1:]).write(home / "cluster.toml")
            assert bad(home) == []  # while it keeps nothing
            catalog = Vault(Settings.read(home / "node.toml").file).catalog
            catalog.put(Entry("table", "ages", "hospital", b"", b"", ()))
            return "cluster.toml: .* another number 1 than this node has gone by"
        case "catalog":
            (home / "data").mkdir(exist_ok=True)
            (home / "data" / ("a" * 40)).write_bytes(b"T3SHARES\x01")
            (home / "catalog.sqlite").unlink()
            return "storage: the catalog at .* is empty, but there are files of shares"
        case "node.toml":
            (home / "node.toml").write_text("listen = 5\n")
            return "node.toml: .*not of kind str"
        case "listen":
            text = (home / "node.toml").read_text()
            (home / "node.toml").write_text(text.replace('listen = "127.0.0.1', 'listen = "203.0.113.9'))
            return r"203\.0\.113\.9:\d+: this machine cannot listen at 203"
        case "TLS":
            other = Identity.read(home.parent / "n1" / "node.key")
            own = Identity.read(home / "node.key")
            mixed = Identity(own.name, own.certificate_pem, other.key_pem)
            replace_identities(home / "node.key", [mixed])
            return r"TLS with node\.key: .* do not belong together"
        case "key":
            (home / "node.key").chmod(0o644)
            return "can be read by others"
    raise AssertionError(what)


@pytest.mark.parametrize(
    "what", ["storage key", "log", "list", "catalog", "node.toml", "listen", "TLS", "key"]
)
def test_what_is_wrong_is_named(used, what):
    expected = spoil(used, what)
    (found,) = bad(used)
    assert re.search(expected, found), found
    done = CliRunner().invoke(app, ["node", str(used / "node.toml"), "--check"])
    assert done.exit_code == 1


def test_several_things_at_once(used, monkeypatch):
    spoil(used, "storage key")
    spoil(used, "log")
    monkeypatch.setattr(preflight, "LITTLE_DISK", 1 << 80)
    monkeypatch.setattr(preflight, "expiry", lambda _: dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert len(bad(used)) == 6


def test_a_node_that_runs_is_no_reason(used):
    address = Settings.read(used / "node.toml").file.listen
    host, port = address.split(":")
    with socket.create_server((host, int(port))):
        assert bad(used) == []
