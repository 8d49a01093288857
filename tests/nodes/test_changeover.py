"""What goes wrong while a node goes over to another list of members: it goes on, says so, and tries again."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from functools import partial

import attrs
import trio
import trio.testing

from tercet.errors import ConfigError, ConsentError, PeerLost, StorageError
from tercet.members import succession
from tercet.members.config import ClusterFile
from tercet.members.succession import current
from tercet.nodes import program
from tercet.nodes.setup import keys_of_node, renew_key
from tests.attacks.lake import TIMEOUT_S
from tests.nodes.test_amending import adopted, amend, events, following, give


async def test_a_client_that_is_just_leaving(in_process, monkeypatch):
    """What it leaves is being cleared away when its key is found renewed: nobody is left to be told."""
    lake, node = in_process, in_process.nodes[0]
    leaving, may_go, left = trio.Event(), trio.Event(), node.gate.left

    async def slowly(*args):
        leaving.set()
        await may_go.wait()
        await left(*args)

    monkeypatch.setattr(node.gate, "left", slowly)
    (service,) = node._services["ann"]
    await lake.ann.cluster.client._nodes[0].line.link.aclose()
    await leaving.wait()
    assert service in node._services["ann"]
    after = await amend(lake, renew_key(lake.made.root / "ann.key", current(lake.made.cluster)))
    may_go.set()
    assert [one.gate.roster.cluster.number for one in lake.nodes] == [after.number] * 3


async def test_whatever_fails_is_told_and_tried_again(in_process, monkeypatch, caplog):
    lake, node = in_process, in_process.nodes[1]
    go_by, tries = node.go_by, []

    def failing(*args, **options):
        tries.append(args)
        if len(tries) < 2:
            raise ZeroDivisionError("for no reason")
        go_by(*args, **options)

    monkeypatch.setattr(node, "go_by", failing)
    after = following(lake.made, renew_key(lake.made.root / "n1" / "node.key", current(lake.made.cluster)))
    told = await give(lake.made, after)
    assert all(one.good for one in told), told
    with trio.fail_after(TIMEOUT_S):
        while len(tries) < 2:  # noqa: ASYNC110
            await trio.sleep(0.02)
    await adopted(lake, after)
    assert "the list that follows could not be gone by (ZeroDivisionError: for no reason)" in caplog.text
    assert len(events(node, "renewed")) == 1


async def test_what_follows_is_written_once_however_many_ask(in_process, monkeypatch):
    lake, written = in_process, []
    to_text = ClusterFile.to_text

    def counted(file):
        written.append(threading.current_thread())
        return to_text(file)

    after = following(lake.made, at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    monkeypatch.setattr(ClusterFile, "to_text", counted)
    node = lake.nodes[0]
    await node.gate.answer("olga", "amend", [to_text(after).encode()])
    before = len(written)
    for _ in range(9):
        told = await node.gate.answer("ann", "amendment", [])
        assert ClusterFile.parse(told["packed"], "it") == after
    assert len(written) - before <= 1  # when the node looks for files itself
    assert threading.current_thread() not in written


async def test_all_jobs_of_who_is_gone_end(in_process, monkeypatch, caplog):
    lake, node = in_process, in_process.nodes[0]
    table = await lake.victim(plans="approved", min_count=2)
    end, ended = node.gate.jobs.end, []

    async def failing(job):
        ended.append(job)
        await end(job)
        if len(ended) == 1:
            raise StorageError("the catalog failed")

    async def ask():
        with contextlib.suppress(ConsentError, PeerLost, ConfigError):
            await table.describe()

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(ask)
        with trio.fail_after(TIMEOUT_S):
            while len(node.gate.board.plans) < 2:  # noqa: ASYNC110
                await trio.sleep(0.02)
        monkeypatch.setattr(node.gate.jobs, "end", failing)
        after = await amend(lake, removed=["ann"])
        with trio.fail_after(TIMEOUT_S):
            while node.gate.jobs.of("ann"):  # noqa: ASYNC110
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert len(ended) >= 2
    assert "of ann: the catalog failed" in caplog.text
    assert node.gate.roster.cluster.number == after.number


async def test_the_audit_log_tells_a_change_once_whatever_fails(in_process, monkeypatch, caplog):
    lake, node = in_process, in_process.nodes[0]
    note, tries = node.gate.vault.journal.note_lake_file, []

    def failing(packed):
        tries.append(packed)
        if len(tries) < 3:
            raise StorageError("the catalog failed")
        note(packed)

    monkeypatch.setattr(node.gate.vault.journal, "note_lake_file", failing)
    await amend(lake, removed=["insurer"])
    assert "the catalog failed" in caplog.text
    assert len(tries) == 3
    assert len(events(node, "amended")) == 1


async def test_a_change_while_a_node_was_off_is_in_its_log(nodes_at_rest):
    made, home = nodes_at_rest, nodes_at_rest.root / "n0"
    made.configure(0, metrics="")

    async def lines():
        async with trio.open_nursery() as nursery:
            serve = partial(program.serve, program.Settings.read(home / "node.toml"), signals=False)
            node = await nursery.start(serve)
            found = [(line["event"], line.get("file")) for line in events(node, "started", "amended")]
            nursery.cancel_scope.cancel()
        return found

    assert await lines() == [("started", 1)]
    for path in (home / "cluster.toml", made.cluster):
        after = following(made, removed=["insurer"]).to_text().encode()
        succession.place(path, after)
    assert await lines() == [("started", 1), ("amended", 2), ("started", 2)]
    assert await lines() == [("started", 1), ("amended", 2), ("started", 2), ("started", 2)]


async def test_nodes_with_two_lists_of_one_number_part(in_process, caplog):
    lake, made = in_process, in_process.made
    one = following(made, removed=["insurer"])
    other = following(made, nodes=(1, 2), revoked=["ann"])
    for index, after in enumerate((one, other, other)):
        succession.place(made.root / f"n{index}" / "cluster.toml", after.to_text().encode())
    for node in lake.nodes:
        node.gate.roster.changed.set()
    with trio.fail_after(TIMEOUT_S):
        while [node.party.missing() for node in lake.nodes] != [[1, 2], [0], [0]]:  # noqa: ASYNC110
            await trio.sleep(0.02)
        while "two were signed" not in caplog.text:  # noqa: ASYNC110
            await trio.sleep(0.02)
    assert [node.gate.roster.cluster for node in lake.nodes] == [one, other, other]
    assert "goes by another number 2 of the lake's cluster.toml than party" in caplog.text


async def test_nodes_with_one_list_stay_linked(in_process, caplog):
    """Also where one of them goes over later, or has other signatures under it."""
    lake, made = in_process, in_process.made
    one = following(made, removed=["insurer"])
    same = attrs.evolve(one, signatures=())
    for index in (2, 1):
        before = succession.current(made.cluster)
        keys = keys_of_node(made.root / f"n{index}" / "node.key", before)
        same = succession.sign(before, same, keys)
    peers = [dict(node.party._peers) for node in lake.nodes]
    for node, after in zip(lake.nodes, (one, same, same), strict=True):
        succession.place(node.gate.roster.file.cluster, after.to_text().encode())
        node.gate.roster.changed.set()
        with trio.fail_after(TIMEOUT_S):
            while node.gate.roster.cluster.number == 1:  # noqa: ASYNC110
                await trio.sleep(0.02)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert [node.party._peers for node in lake.nodes] == peers
    assert not any(node.party.missing() for node in lake.nodes)
