"""Checking a lake from outside: whatever a node answers or not is told in a line, and hides no other node."""

from __future__ import annotations

import datetime as dt

import pytest
import trio

from tercet.client import node_checks
from tercet.client.node_checks import check_nodes, fetch_amendment
from tercet.client.reach import who_am_i
from tercet.errors import ConfigError
from tercet.members.succession import current
from tests.nodes.test_amending import following

SOON = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)


@pytest.fixture
def asks(in_process):
    """The lake, its file, and who asks."""
    made = in_process.made
    cluster = current(made.cluster)
    return in_process, cluster, who_am_i(cluster, made.key("aud"), made.cluster).identity


def answer(node, verb, say, monkeypatch):
    """Have a node answer a request otherwise."""
    whole = node.gate.answer

    async def answered(caller, asked, args):
        told = await whole(caller, asked, args)
        return await say(told) if asked == verb else told

    monkeypatch.setattr(node.gate, "answer", answered)


def saying(**facts):
    async def say(told):
        return {**told, **facts}

    return say


async def nothing(_):
    return {}


async def never(_):
    await trio.sleep_forever()


@pytest.mark.parametrize(
    "say",
    [
        nothing,
        saying(missing_parties=[7]),
        saying(missing_parties=[-1]),
        saying(missing_parties=["n0"]),
        saying(missing_parties=3),
        saying(free_bytes=[1]),
        saying(free_bytes={"audit log": "much"}),
        saying(free_bytes={str(number): 0 for number in range(99)}),
        saying(coming=[2]),
        saying(coming="soon"),
        saying(runs=None),
        saying(audit=[]),
        saying(release=5),
    ],
)
async def test_what_is_no_status_is_told(asks, monkeypatch, say):
    lake, cluster, aud = asks
    answer(lake.nodes[1], "status", say, monkeypatch)
    found = await check_nodes(cluster, aud)
    assert [one.good for one in found] == [True, False, True]
    assert found[1].where == "n1 (party 1)"
    assert "makes no sense" in found[1].what


async def test_what_a_node_says_stays_in_its_line(asks, monkeypatch):
    lake, cluster, aud = asks
    evil = "1\x1b[2J\nok   n0 (party 0): ready" + "!" * 5000
    for node, facts in zip(
        lake.nodes, ({"release": evil}, {"free_bytes": {evil: 0}}, {"coming": [2, evil, evil]}), strict=True
    ):
        answer(node, "status", saying(**facts), monkeypatch)
    for one in await check_nodes(cluster, aud):
        assert one.what.isprintable()
        assert len(one.what) <= 512


async def test_a_node_that_never_answers_is_told(asks, monkeypatch):
    lake, cluster, aud = asks
    monkeypatch.setattr(node_checks, "ANSWER_S", 0.5)
    answer(lake.nodes[0], "status", never, monkeypatch)
    with trio.fail_after(60):
        found = await check_nodes(cluster, aud)
    assert [one.good for one in found] == [False, True, True]
    assert "n0 (party 0) did not answer within 0.5 s" in found[0].what


async def test_what_follows_is_taken_from_a_node_that_has_it(asks, monkeypatch):
    lake, cluster, aud = asks
    right, other = (following(lake.made, at=SOON, removed=names) for names in ((), ("insurer",)))
    alone = following(lake.made, nodes=(0,), at=SOON).to_text().encode()
    for node, packed in zip(lake.nodes, (alone, b"\xff", right.to_text().encode()), strict=True):
        answer(node, "amendment", saying(packed=packed), monkeypatch)
    assert await fetch_amendment(cluster, aud) == right.to_text().encode()
    answer(lake.nodes[1], "amendment", saying(packed=other.to_text().encode()), monkeypatch)
    with pytest.raises(ConfigError, match=r"the nodes have different files.*n1 \(party 1\).*n2 \(party 2\)"):
        await fetch_amendment(cluster, aud)
    for node in lake.nodes[1:]:
        answer(node, "amendment", saying(packed=alone), monkeypatch)
    with pytest.raises(ConfigError, match="signatures of 1 nodes"):
        await fetch_amendment(cluster, aud)
    for node in lake.nodes:
        answer(node, "amendment", saying(packed=b""), monkeypatch)
    with pytest.raises(ConfigError, match="no node has a file that follows"):
        await fetch_amendment(cluster, aud)


async def test_different_files_that_follow_are_told(asks):
    lake, cluster, aud = asks
    one = following(lake.made, at=SOON)
    other = following(lake.made, at=SOON, removed=["insurer"])
    for node, after in zip(lake.nodes, (one, other, None), strict=True):
        if after is not None:
            await node.gate.answer("olga", "amend", [after.to_text().encode()])
    bad = [found for found in await check_nodes(cluster, aud) if not found.good]
    assert [found.where for found in bad] == ["n0", "n1"]
    for found in bad:
        assert f"n0 {one.digest().hex()[:16]}, n1 {other.digest().hex()[:16]}" in found.what
