"""What goes wrong while a node goes over to another list of members: it goes on, says so, and tries again."""

from __future__ import annotations

import datetime as dt
import threading

import trio

from tercet.members.config import ClusterFile
from tercet.members.succession import current
from tercet.nodes.setup import renew_key
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
