"""Errors say whose word they are: the same sentence everywhere, and nobody's word as another's."""

from __future__ import annotations

import numpy as np
import pytest
import trio
import trio.testing

from tercet.actors import session
from tercet.actors.line import gravest_cause
from tercet.client.answers import verdict
from tercet.errors import PeerLost, PlanError, ProtocolError, StorageError, TercetError, from_wire
from tercet.plans import Builder, Form, Type
from tests.protocols.quad import Quad

KIND = Type(Form.RING, (10,), 8, 2.0**20)
WORDS = np.arange(10, dtype=np.uint64) << np.uint64(8)
LIE = "party 0 and party 1 hold different words; one of them is faulty"


def squares():
    b = Builder("squares", tile_rows=64)
    x = b.input("x", KIND)
    (x * x).rescale(8).bounded(2.0**20, "test").reveal("squares", to="analyst")
    return b.plan()


def passed_on(error, *tellers):
    for teller in tellers:
        error = from_wire(error.to_wire()).heard(teller)
    return error


# -- whose word it is ----------------------------------------------------------------------------------------


def test_an_error_that_is_passed_on_names_who_said_it_and_who_was_last():
    error = ProtocolError(LIE)
    assert str(error) == LIE
    assert str(passed_on(error, "party 3")) == f"party 3 says: {LIE}"
    assert str(passed_on(error, "party 3", "party 3")) == f"party 3 says: {LIE}"
    again = passed_on(error, "party 3", "party 1", "party 2")
    assert str(again) == f"party 2 passes on that party 3 says: {LIE}"
    assert again.sentence == LIE
    assert isinstance(again, ProtocolError)
    assert str(passed_on(StorageError("a file").at("party 1"), "party 1")) == "party 1: a file"
    lost = passed_on(PeerLost("gone", peer="party 2"), "party 1")
    assert (lost.peer, str(lost)) == ("party 2", "party 1 says: gone")


@pytest.mark.parametrize("name", ["you", "party 0 and party 1", "party 12345", "", None, 3, ["party 0"]])
def test_who_said_it_is_a_party(name):
    told = from_wire({**ProtocolError("why").to_wire(), "said_by": name, "passed_on_by": name})
    assert (told.said_by, told.passed_on_by) == ("", "")
    assert str(told.heard("party 2")) == "party 2 says: why"


def test_the_verdict_prefers_what_a_node_found_itself():
    own, cancelled = ProtocolError("own"), TercetError("the run was cancelled")
    heard = ProtocolError("own").heard("party 1")
    lost, other = PeerLost("gone", peer="party 1"), PeerLost("gone too", peer="party 0").heard("party 3")
    assert str(verdict({0: lost, 2: cancelled, 3: heard, 1: own})) == "party 1 says: own"
    assert str(verdict({0: lost, 2: cancelled, 3: ProtocolError("own").heard("party 1")})) == (
        "party 3 passes on that party 1 says: own"
    )
    assert verdict({0: lost, 2: cancelled}) is cancelled
    assert verdict({0: other, 2: lost}) is lost


def test_a_lost_peer_is_not_the_gravest_cause():
    lost, own = PeerLost("gone", peer="party 1"), ProtocolError("why")
    group = BaseExceptionGroup("", [lost, BaseExceptionGroup("", [own])])
    assert gravest_cause(group) is own
    assert gravest_cause(BaseExceptionGroup("", [lost])) is lost
    assert gravest_cause(own) is own


# -- at nodes ------------------------------------------------------------------------------------------------


async def all_run(nodes, plan):
    """What each party raises for a plan."""
    errors = {}

    async def run(party):
        try:
            await party.run_plan(b"session", plan.to_bytes())
        except TercetError as error:
            errors[party.index] = error

    async with trio.open_nursery() as nursery:
        for party in nodes.parties:
            nursery.start_soon(run, party)
    return errors


def notices(*parties):
    """A protocol whose truncations fail at these parties, after a round, each with a sentence of its own."""

    class Notices(Quad):
        def truncate(self, x, bits):
            if self.party in parties:
                yield from self.opening(x)
                raise ProtocolError(f"something is wrong, as party {self.party} has found")
            return (yield from super().truncate(x, bits))

    return Notices


@pytest.fixture(params=["scheduler", "lockstep"])
def runners(request, monkeypatch):
    """Either of the two that run plans."""
    monkeypatch.setattr(session, "runs_in_lockstep", lambda _: request.param == "lockstep")


@pytest.mark.parametrize("finders", [(1,), (0, 2), (0, 1, 2, 3)])
async def test_what_one_party_finds_arrives_everywhere(finders, open_cluster_of_nodes, runners):
    async with open_cluster_of_nodes(notices(*finders)) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        errors = await all_run(nodes, squares())
        node = next(i for i, one in enumerate(squares().nodes) if one.kind == "truncate")
        found = [
            f"node {node} (truncate), round 1: something is wrong, as party {one} has found"
            for one in finders
        ]
        assert set(errors) == {0, 1, 2, 3}
        for party, error in errors.items():
            assert type(error) is ProtocolError
            assert error.sentence in found
            own = error.sentence.endswith(f"as party {party} has found")
            assert own == (error.said_by == "")
            assert own or error.said_by in [f"party {one}" for one in finders]
        with trio.fail_after(60), pytest.raises(ProtocolError) as caught:
            await client.run(squares())
        assert str(caught.value) in [
            f"party {one} says: {sentence}" for one, sentence in zip(finders, found, strict=True)
        ]


async def test_a_forged_stop_is_nobody_elses_finding(open_cluster_of_nodes, autojump_clock):
    async with open_cluster_of_nodes(Quad) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        corrupt = nodes.parties[3]

        async def lie(name, number, frames):
            for forged in ({}, {"said_by": "party 1"}):
                fields = {**ProtocolError(LIE).to_wire(), **forged}
                corrupt._peers[2 if forged else 0].line.post(["stop", name, fields])
            await trio.sleep_forever()

        corrupt.send_frames = lie
        with pytest.raises(ProtocolError) as caught:
            await client.run(squares())
        assert caught.value.sentence == LIE
        for party in nodes.parties:
            await party.until_idle()
        told = [str(error) for party in nodes.parties[:3] for error in party._over.values()]
    assert told[0] == f"party 3 says: {LIE}"
    assert told[1] in [
        f"party 0 passes on that party 3 says: {LIE}",
        f"party 2 passes on that party 1 says: {LIE}",
    ]
    assert told[2] == f"party 3 passes on that party 1 says: {LIE}"
    assert str(caught.value) != LIE


async def test_a_party_that_leaves_when_it_is_caught_does_not_change_what_is_said(
    open_cluster_of_nodes, autojump_clock
):
    async with open_cluster_of_nodes(notices(1)) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        caught_out, plain = nodes.parties[3], nodes.parties[3].peer_stops

        def stops(peer, name, error):
            plain(peer, name, error)
            for peer in caught_out._peers.values():
                peer.line._scope.cancel()

        caught_out.peer_stops = stops
        with trio.fail_after(60), pytest.raises(ProtocolError, match="as party 1 has found"):
            await client.run(squares())


async def test_a_plan_that_was_stopped_before_it_came_says_why(open_cluster_of_nodes):
    async with open_cluster_of_nodes(Quad) as nodes:
        await (await nodes.client()).put("x", KIND, WORDS)
        nodes.parties[1]._peers[0].line.post(["stop", b"session", PlanError("it is too large").to_wire()])
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(PlanError, match=r"^party 1 says: it is too large$"):
            await nodes.parties[0].run_plan(b"session", squares().to_bytes())
