"""Where parties may be malicious, a run counts once it has ended well at all of them, and else nowhere."""

from __future__ import annotations

import numpy as np
import pytest
import trio
import trio.testing

from tercet.actors import course, jobs, session
from tercet.actors.gate import Gate
from tercet.actors.rounds import Lockstep
from tercet.actors.scheduler import Scheduler
from tercet.errors import PeerLost, ProtocolError, TercetError
from tercet.plans import Builder, Form, Type
from tests.protocols.quad import Quad

KIND = Type(Form.RING, (10,), 8, 2.0**20)
WORDS = np.arange(10, dtype=np.uint64) << np.uint64(8)


class SemiHonestQuad(Quad):
    malicious = False


def storing():
    b = Builder("storing", tile_rows=64)
    x = b.input("x", KIND)
    y = (x * x).rescale(8).bounded(2.0**20, "test")
    y.checkpoint(1, "y")
    y.store("y")
    (y - x).reveal("difference", to="analyst")
    return b.plan()


class Noting(Gate):
    """Notes what of a run is kept before it has ended everywhere."""

    def __init__(self, kept):
        self.kept = kept

    async def reached(self, caller, session, point, values):
        self.kept.append(("checkpoint", point))

    async def after_run(self, caller, session, plan, outcome):
        self.kept.append(("outcome", sorted(outcome.stored)))
        return outcome


@pytest.fixture(params=["scheduler", "lockstep"])
def runners(request, monkeypatch):
    """Has runs at one party end badly, a second after all others have ended well."""
    lockstep = request.param == "lockstep"
    monkeypatch.setattr(session, "runs_in_lockstep", lambda _: lockstep)

    def late(party, why):
        for cls in (Lockstep, Scheduler):

            async def run(self, cls=cls):
                outcome = await cls.run(self)
                if self.protocol.party == party:
                    await trio.sleep(1)
                    raise ProtocolError(why)
                return outcome

            monkeypatch.setattr(course, cls.__name__, type("Late", (cls,), {"run": run}))

    return late


@pytest.fixture
def answered(monkeypatch):
    """What nodes answer."""
    given, plain = [], jobs.answer

    def noted(outcome):
        given.append([name for name, *_ in outcome.revealed])
        return plain(outcome)

    monkeypatch.setattr(jobs, "answer", noted)
    return given


async def until_over(nodes):
    for one in nodes.parties:
        await one.until_idle()


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("protocol", [Quad, SemiHonestQuad])
async def test_nobody_keeps_anything_of_a_run_that_failed_last_at_one_party(
    protocol, alone, open_cluster_of_nodes, runners, answered, autojump_clock, monkeypatch
):
    kept = []
    runners(1, "the last check failed")
    monkeypatch.setattr(Gate, "reached", Noting(kept).reached)
    monkeypatch.setattr(Gate, "after_run", Noting(kept).after_run)
    async with open_cluster_of_nodes(protocol) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        with pytest.raises(ProtocolError, match="the last check failed"):
            if alone:
                await client.fetch(await client.submit(storing()))
            else:
                await client.run(storing())
        await until_over(nodes)
        stored = [sorted(party.store) for party in nodes.parties]
        if protocol is SemiHonestQuad:  # what is told apart here
            assert len(answered) == 3
            assert [one for one in kept if one[0] == "outcome"] == [("outcome", ["y"])] * 3
            return
        assert stored == [["x"]] * 4
        assert answered == []
        assert kept == []
        assert [party.failed for party in nodes.parties] == [1] * 4


async def test_a_run_that_ends_well_at_all_is_answered(open_cluster_of_nodes, answered):
    async with open_cluster_of_nodes(Quad) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        result = await client.run(storing())
        np.testing.assert_array_equal(result.revealed["difference"], np.arange(10.0) ** 2 - np.arange(10))
        assert answered == [["difference"]] * 4
        assert [sorted(party.store) for party in nodes.parties] == [["x", "y"]] * 4


def spoil_ends(party, peer, how):
    line = party._peers[peer].line
    post = line.post

    def posting(message):
        if message[0] == "start" and how == "before the start":
            post(["done", message[1]])
        post(message)
        if message[0] == "done" and how == "twice":
            post(message)
        if message[0] == "start" and how == "of another session":
            post(["done", b"never"])

    def silent(message):
        if message[0] != "done":
            post(message)

    line.post = silent if how == "never" else posting


@pytest.mark.parametrize(
    ("how", "error", "why"),
    [
        ("never", PeerLost, "party 2 did not say that its run has ended well within 16"),
        ("twice", ProtocolError, "party 2 ended the session twice"),
        ("before the start", TercetError, "party 2"),
        ("of another session", PeerLost, "party 2"),
    ],
)
async def test_ends_that_are_wrong_end_the_run_badly(
    how, error, why, open_cluster_of_nodes, autojump_clock, answered
):
    async with open_cluster_of_nodes(Quad) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        spoil_ends(nodes.parties[2], 0, how)
        if how == "twice":
            spoil_ends(nodes.parties[3], 0, "never")
        with trio.fail_after(60), pytest.raises(error, match=why):
            await client.run(storing())
        await until_over(nodes)
        assert sorted(nodes.parties[0].store) == ["x"]
        assert len(answered) < 4


async def test_semi_honest_protocols_say_nothing_at_the_end(open_cluster_of_nodes):
    async with open_cluster_of_nodes(SemiHonestQuad) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        line, said = nodes.parties[2]._peers[0].line, []
        post = line.post
        line.post = lambda message: (said.append(message[0]), post(message))
        await client.run(storing())
        assert "start" in said
        assert "done" not in said
        post(["done", b"name"])
        await trio.testing.wait_all_tasks_blocked()
        assert "that no party sends" in str(nodes.parties[0]._peers[2].line.lost)
