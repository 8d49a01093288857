"""A node that goes back to an earlier state: its peers notice, say so, and go on with what it has."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import trio

import tercet
from tercet.actors.party import Party
from tercet.errors import ProtocolError, SchemaError, StorageError
from tercet.members.audit import AuditLog, log_lines
from tercet.members.audit_lines import parse
from tercet.members.keys import MemberKeys
from tercet.members.seals import Head
from tercet.nodes import backup as backups
from tercet.nodes import peer_logs
from tercet.nodes.peer_logs import PeerLogs
from tercet.nodes.program import Settings
from tercet.nodes.restore import restore
from tercet.nodes.roster import Roster
from tercet.nodes.vault import Vault
from tercet.protocols import registry
from tercet.storage.catalog_copies import Restored
from tercet.storage.peer_rows import PeerRow

TABLE = {"id": np.arange(100), "age": np.linspace(20, 80, 100)}


class End:
    """What a node knows of its peers, without the rest of it."""

    def __init__(self, nodes, index):
        self.index, self.settings = index, Settings.read(nodes.root / f"n{index}" / "node.toml")
        self.vault = Vault(self.settings.file)
        keys = MemberKeys(self.settings.identity)
        self.audit = AuditLog(self.settings.file.directory / "audit.log", keys)
        self.words = []
        self.party = Party(index, parties=3, protocol=registry.get("replicated"))
        self.party.tell = lambda to, word, about="job": self.words.append((to, about, word))
        self.roster = Roster(self.settings.file, index, self.settings.cluster)
        self.logs = PeerLogs(self.party, self.roster, self.vault, self.audit)

    async def write(self, count):
        for _ in range(count):
            self.audit.append("runs", caller="ann")
        self.audit.settle()
        self.vault.journal.note(self.audit.head.lines, self.audit.head.digest)
        await self.logs.tell()

    async def take(self):
        """Take what was heard."""
        heard, self.logs._heard = self.logs._heard, {}
        for (index, _), word in heard.items():
            await self.logs._take(index, word)

    def told(self):
        return [parse(line) for line in log_lines(self.audit.path)]

    def copy(self, to):
        self.vault.catalog.close()
        shutil.copytree(self.settings.file.directory, to)

    def back(self, nodes, there):
        """The same node, as it was copied."""
        self.vault.catalog.close()
        shutil.rmtree(self.settings.file.directory)
        shutil.copytree(there, self.settings.file.directory)
        return End(nodes, self.index)


def linked(party, index):
    """What a party tells all who want to know of a new link."""
    for told in party.on_linked:
        told(index)


async def deliver(*ends):
    """Until nobody says anything any more."""
    said = True
    while said:
        said = False
        for end in ends:
            words, end.words = end.words, []
            for to, about, word in words:
                assert about == "log"
                for other in ends:
                    if other.index == to:
                        other.party.on_log(end.index, word)
                        said = True
        for end in ends:
            await end.take()


async def link(one, other):
    linked(one.party, other.index)
    linked(other.party, one.index)
    for end in (one, other):
        await end.take()
    await deliver(one, other)


@pytest.fixture
def two(nodes_at_rest):
    made = End(nodes_at_rest, 0), End(nodes_at_rest, 1)
    yield made
    for one in made:
        one.vault.catalog.close()


async def test_a_log_that_goes_on(two):
    one, other = two
    await link(one, other)
    for _ in range(3):
        await other.write(2)
        await one.write(1)
        await deliver(one, other)
        await link(one, other)
    assert one.logs._rows.find("n1").lines == 6
    assert (one.roster.went_back, other.roster.went_back) == ([], [])
    assert {line["event"] for line in one.told()} == {"runs"}


@pytest.mark.parametrize("more", [0, 1, 4, 5, 9])
async def test_a_log_that_goes_back(two, nodes_at_rest, tmp_path, more, caplog):
    one, other = two
    await link(one, other)
    await other.write(2)
    await deliver(one, other)
    other.copy(tmp_path / "then")
    other = End(nodes_at_rest, 1)
    await link(one, other)
    await other.write(4)
    await deliver(one, other)
    assert one.logs._rows.find("n1").lines == 6

    other = other.back(nodes_at_rest, tmp_path / "then")
    await other.write(more)  # also as many lines as before, or more of them
    other.words.clear()
    await link(one, other)
    ((name, had, has, when),) = one.roster.went_back
    assert (name, had, has) == ("n1", 6, 2 + more)
    assert when.endswith(" UTC")
    last = one.told()[-1]
    assert (last["event"], last["node"], last["had"], last["has"]) == ("went_back", "n1", 6, 2 + more)
    assert f"n1 has come back with {2 + more} lines of its audit log, and had 6" in caplog.text
    assert ("this node has gone back to an earlier state" in caplog.text) == (more < 4)
    assert other.roster.went_back == []
    back = other.vault.restored  # by which it says what it lacks, also where nobody has restored a backup
    assert back == (Restored("n1", "an earlier time, as n0 says") if more < 4 else None)

    count = len(one.told())
    await link(one, other)
    await other.write(3)
    await deliver(one, other)
    assert len(one.told()) == count  # it is said once
    assert one.logs._rows.find("n1").lines == 5 + more
    one.vault.catalog.close()
    again = End(nodes_at_rest, 0)
    assert again.roster.went_back == one.roster.went_back
    again.vault.catalog.close()
    other.vault.catalog.close()


async def test_what_a_peer_has_said_before_it_answers_waits(two):
    one, other = two
    await other.write(5)
    other.words.clear()
    one.logs._rows.put(PeerRow("n1", 3, "a" * 64))
    linked(one.party, 1)
    one.party.on_log(1, ["now", 5, other.audit.head.digest])
    await one.take()
    assert one.logs._rows.find("n1").lines == 3
    one.party.on_log(1, ["had", 3, other.logs._digest_at(3), 5])
    await one.take()
    assert one.logs._rows.find("n1").lines == 5
    assert [line["event"] for line in one.told()] == ["went_back"]


async def test_a_peer_that_goes_back_and_forth_fills_no_log(two):
    one, _ = two
    for number in range(50):
        one.party.on_log(1, ["now", 100 - number % 2, "ab" * 32])
        await one.take()
    assert len(one.told()) == 1


async def test_a_peer_that_says_much_is_looked_at_now_and_then(two, monkeypatch, autojump_clock, caplog):
    """Ten thousand words in ten seconds are twenty writes to the catalog, and one line in each log."""
    one, _ = two
    puts, put = [], one.logs._rows.put
    monkeypatch.setattr(one.logs._rows, "put", lambda row: (puts.append(row), put(row)))

    async def thread(call, *args):
        return call(*args)

    monkeypatch.setattr(peer_logs, "in_thread", thread)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.logs.run)
        for number in range(1000):
            for word in (["now", number % 7, "ab" * 32], ["at", 1000 + number]):
                for _ in range(5):
                    one.party.on_log(1, word)
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert 10 <= len(puts) <= 21
    assert len(one.words) <= 21
    assert [line["event"] for line in one.told()] == ["went_back"]
    assert caplog.text.count("n1 has come back with") == 1
    assert caplog.text.count("n1 knows of") == 1


async def test_a_clock_that_was_ahead_hides_nothing(two):
    one, _ = two
    one.logs._rows.put(PeerRow("n1", 9, "a" * 64, 3, 2, time.time() + 1e6))
    one.party.on_log(1, ["now", 5, "b" * 64])
    await one.take()
    assert [line["event"] for line in one.told()] == ["went_back"]


async def test_a_log_that_was_cut_while_the_node_runs_ends_no_node(two):
    one, _ = two
    await one.write(3)
    one.audit.path.write_text("")
    one.party.on_log(1, ["at", 2])
    with pytest.raises(StorageError, match="has lost line 1 while"):  # which is told in the node's log
        await one.take()


@pytest.mark.parametrize(
    "word",
    [
        [],
        ["now"],
        ["now", -1, "a" * 64],
        ["now", True, "a" * 64],
        ["now", 1, "a" * 65],
        ["now", 1, ""],
        ["now", 1, "a" * 63],
        ["now", 1, "\0" * 64],
        ["had", 1, "A" * 64, 1],
        ["now", 1 << 60, "a" * 64],
        ["at", "1"],
        ["at", 1, 2],
        ["had", 1, "", -1],
        ["linked"],
        [b"now", 1, "a" * 64],
    ],
)
def test_words_that_nobody_says(two, word):
    with pytest.raises(ProtocolError, match="which nobody says"):
        two[0].party.on_log(1, word)


def test_lines_of_a_log_by_number(two):
    end = two[0]
    heads = [Head()]
    for _ in range(3):
        end.audit.append("runs")
        heads.append(end.audit.head)
    assert [end.logs._digest_at(head.lines) for head in heads] == [head.digest for head in heads]
    assert end.logs._digest_at(4) == ""


async def test_a_node_that_was_put_back_and_lacks_nothing(two, nodes_at_rest, tmp_path):
    """Peers hear of lines that come after the catalog was copied and before the log was."""
    one, other = two
    other.audit.append("runs")
    other.vault.journal.note_lake_file(other.settings.cluster.to_text().encode())
    log = backups._Maker._log

    def meanwhile(maker, path):
        for _ in range(4):
            other.audit.append("runs")
        other.audit.settle()
        other.vault.journal.note(other.audit.head.lines, other.audit.head.digest)
        log(maker, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backups._Maker, "_log", meanwhile)
        backups.back_up(nodes_at_rest.root / "n1" / "node.toml", tmp_path / "saved")
    await link(one, other)
    assert one.logs._rows.find("n1").lines == 5
    home = other.settings.file.directory
    other.vault.catalog.close()
    for name in ("catalog.sqlite", "audit.log"):
        (home / name).unlink()
    restore(tmp_path / "saved", home / "node.toml")
    other = End(nodes_at_rest, 1)
    await link(one, other)
    assert (one.roster.went_back, one.told()) == ([], [])
    assert one.logs._rows.find("n1").lines == 6
    other.vault.catalog.close()


# -- with real nodes -----------------------------------------------------------------------------------------


def connect(nodes, member="hospital"):
    return tercet.connect(nodes.cluster, identity=nodes.key(member))


def known_of(nodes, index):
    """How many lines of n1's log another node knows of."""
    path = nodes.root / f"n{index}" / "catalog.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as catalog:
        rows = catalog.execute("SELECT lines FROM peer_logs WHERE node = 'n1'").fetchall()
    return max((lines for (lines,) in rows), default=0)


def test_a_node_is_put_back_while_the_others_go_on(nodes, command, tmp_path):
    """A backup while plans run, a table that comes after it, and the node put back in an empty place."""
    home, saved = nodes.root / "n1", tmp_path / "saved"
    with connect(nodes) as lake, ThreadPoolExecutor(1) as aside:
        early = lake.upload(TABLE, name="early", key="id", owner="hospital")
        saving = aside.submit(command, "backup", "node.toml", saved, cwd=home)
        while not saving.done():
            np.testing.assert_allclose(early.reveal("age")["age"], TABLE["age"], atol=1e-3)
        assert "has node n1 as of" in saving.result()
        assert "runs already" in command("restore", saved, "node.toml", cwd=home, code=1)
        late = lake.upload(TABLE, name="late", key="id", owner="hospital")
        nodes.stop(1)
        nodes.start(1)
        lines = len(list(log_lines(home / "audit.log")))
        for index in (0, 2):  # they are told when there are links again
            nodes.wait_for(lambda index=index: known_of(nodes, index) >= lines, "told")
        nodes.stop(1)
        for path in (home / "data", home / "catalog.sqlite", home / "audit.log"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert "Node n1 is as it was" in command("restore", saved, "node.toml", cwd=home)
        assert "BAD" not in command("node", "node.toml", "--check", cwd=home)
        nodes.start(1)
        nodes.wait_until_ready()
        for index in (0, 2):
            log = nodes.root / f"n{index}" / "log"
            nodes.wait_for(lambda log=log: "n1 has come back with" in log.read_text(), "noticed")
        found = command("check", "--identity", nodes.key("olga"), cwd=nodes.root, code=1)
        assert found.count("n1 came back to it on ") == found.count("BAD") == 2
        np.testing.assert_allclose(lake.table("early").reveal("age")["age"], TABLE["age"], atol=1e-3)
        with pytest.raises(SchemaError, match=r"node n1 was put back as it was at .*has no table 'late'"):
            late.reveal("age")
        with pytest.raises(StorageError, match=r"'late' is not the same at all nodes \(.*; n1 lacks it\)"):
            lake.table("late")
        lake.upload(TABLE, name="late", key="id", owner="hospital")
        np.testing.assert_allclose(lake.table("late").reveal("age")["age"], TABLE["age"], atol=1e-3)
    assert "whole; head" in command("audit", "--verify", "node.toml", cwd=home)
    assert "restored" in [parse(line)["event"] for line in log_lines(home / "audit.log")]
