"""What one party that may do anything tries around the protocol: on clients, stores and lines."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import trio
import trio.testing

from tercet.actors import party as parties
from tercet.errors import PeerLost, PlanError, ProtocolError, TercetError, from_wire
from tercet.plans import Builder, Form, Type
from tercet.protocols.rep4 import Rep4
from tests.protocols.quad import Quad

KIND = Type(Form.RING, (10,), 8, 2.0**20)
WORDS = np.arange(10, dtype=np.uint64) << np.uint64(8)


def two_figures():
    b = Builder("two figures", tile_rows=64)
    x = b.input("x", KIND)
    (x + x).reveal("twice", to="analyst")
    (x + 1.0).reveal("more", to="analyst")
    return b.plan()


def kept_as(handle, value):
    b = Builder("kept", tile_rows=64)
    b.input(value, KIND).bounded(2.0**20, "test").store(handle)
    return b.plan()


def product(left, right):
    b = Builder("product", tile_rows=64)
    x, y = b.input(left, KIND), b.input(right, KIND)
    (x * y).rescale(8).bounded(2.0**20, "test").reveal("product", to="analyst")
    return b.plan()


# -- one node's word on a result -----------------------------------------------------------------------------


def other_scale(outcome):
    (name, to, kind, arrays), *rest = outcome.revealed
    return attrs.evolve(
        outcome, revealed=[(name, to, attrs.evolve(kind, scale=kind.scale - 1), arrays), *rest]
    )


def other_names(outcome):
    one, two = outcome.revealed
    return attrs.evolve(outcome, revealed=[(two[0], *one[1:]), (one[0], *two[1:])])


def other_rows(outcome):
    return attrs.evolve(outcome, symbols={"join.rows": 3})


def other_stored(outcome):
    return attrs.evolve(outcome, stored={})


@pytest.mark.parametrize("liar", [0, 2])
@pytest.mark.parametrize("lie", [other_scale, other_names, other_rows])
async def test_no_node_alone_says_what_a_result_is(lie, liar, open_cluster_of_nodes):
    async with open_cluster_of_nodes(Rep4) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        plain = nodes.parties[liar].run_plan

        async def lying(*args, **more):
            return lie(await plain(*args, **more))

        nodes.parties[liar].run_plan = lying
        accused = "1" if liar == 0 else "2"
        with pytest.raises(ProtocolError, match=f"party 0 and party {accused} say different things of"):
            await client.run(two_figures())


async def test_no_node_alone_says_what_was_stored(open_cluster_of_nodes):
    async with open_cluster_of_nodes(Rep4) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        plain = nodes.parties[0].run_plan

        async def lying(*args, **more):
            return other_stored(await plain(*args, **more))

        nodes.parties[0].run_plan = lying
        with pytest.raises(ProtocolError, match="say different things of what was stored"):
            await client.run(kept_as("y", "x"))


# -- a store that differs ------------------------------------------------------------------------------------


async def run_all(nodes, name, plan):
    """Run a plan at every node at once, as a client that colludes does; the errors by party."""
    errors = {}

    async def run(party):
        try:
            await party.run_plan(name, plan.to_bytes())
        except TercetError as error:
            errors[party.index] = error

    async with trio.open_nursery() as nursery:
        for party in nodes.parties:
            nursery.start_soon(run, party)
    return errors


def tells_the_end_to(party, some):
    """A corrupt party says that a run has ended well to some of the others alone."""
    for peer in party._peers.values():
        plain = getattr(peer.line, "plain", peer.line.post)
        peer.line.plain = plain

        def post(message, index=peer.index, plain=plain):
            if message[0] not in ("done", "stop") or index in some:
                plain(message)

        peer.line.post = post


@pytest.mark.parametrize("liar", range(4))
async def test_honest_nodes_with_different_values_under_one_handle_do_not_compute_with_them(
    liar, open_cluster_of_nodes, autojump_clock
):
    """One node keeps what one run stored, the others what another one did, by a choice of who hears the end.

    Were they to go on, two honest nodes would tell the corrupt one words that differ by a product with a
    component that it lacks.
    """
    async with open_cluster_of_nodes(Rep4) as nodes:
        client = await nodes.client()
        for handle, words in (("a", WORDS), ("b", WORDS + np.uint64(1)), ("y", WORDS)):
            await client.put(handle, KIND, words)
        victim = (liar + 1) % 4
        others = [index for index in range(4) if index not in (liar, victim)]
        tells_the_end_to(nodes.parties[liar], [victim])
        await run_all(nodes, b"one", kept_as("h", "b"))
        tells_the_end_to(nodes.parties[liar], others)
        await run_all(nodes, b"two", kept_as("h", "a"))
        assert all("h" in nodes.parties[index].store for index in (victim, *others))

        heard = []
        for index in (victim, *others):
            party = nodes.parties[index]
            plain = party.send_frames

            async def noted(name, number, frames, index=index, plain=plain):
                heard.append((index, number))
                await plain(name, number, frames)

            party.send_frames = noted
        errors = await run_all(nodes, b"three", product("h", "y"))
        assert all(index in errors for index in (victim, *others))
        assert heard == []


# -- words that never end ------------------------------------------------------------------------------------


async def test_a_flood_of_stops_is_passed_on_to_nobody_and_forgets_no_session(
    open_cluster_of_nodes, monkeypatch
):
    monkeypatch.setattr(parties, "REMEMBERED", 8)
    async with open_cluster_of_nodes(Quad) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        await client.run(two_figures())
        (name,) = nodes.parties[0]._over
        posted = []
        for index in (0, 1, 2):
            for peer in nodes.parties[index]._peers.values():
                plain = peer.line.post
                peer.line.post = lambda message, plain=plain: (posted.append(message[0]), plain(message))
        line = nodes.parties[3]._peers[0].line
        for number in range(50):
            line.post(["stop", b"%d" % number, ProtocolError("no").to_wire()])
        await trio.testing.wait_all_tasks_blocked()
        assert "stop" not in posted
        nodes.parties[1]._peers[0].line.post(["done", name])  # a straggler of an honest party
        await trio.testing.wait_all_tasks_blocked()
        assert nodes.parties[0]._peers[1].line.lost is None
        assert len(nodes.parties[0]._peers[3].stopped) <= 8
        assert list(nodes.parties[0]._over) == [name]


async def test_a_session_that_was_stopped_before_it_came_stays_so_over_a_new_link(open_cluster_of_nodes):
    async with open_cluster_of_nodes(Quad) as nodes:
        one = nodes.parties[0]
        nodes.parties[1]._peers[0].line.post(["stop", b"session", PlanError("too large").to_wire()])
        await trio.testing.wait_all_tasks_blocked()
        before = one._peers[1]
        one.add_peer(1, before.line.link, before.key)
        with pytest.raises(PlanError, match=r"^party 1 says: too large$"):
            one._check_unused(b"session")


@pytest.mark.parametrize("peer", [["party 1"], {"a": 1}, 5, "party 1\nand all", "x" * 1000])
def test_who_is_lost_is_a_short_name(peer):
    told = from_wire({**PeerLost("gone", peer="party 1").to_wire(), "peer": peer})
    assert told.peer == ""


def test_a_sentence_from_elsewhere_is_one_line_and_not_without_end():
    forged = "it is nothing\nparty 1 says: I lied\x1b[2K\u202e"
    told = from_wire(ProtocolError(forged).to_wire()).heard("party 2")
    assert str(told).startswith("party 2 says: it is nothing party 1 says")
    assert str(told).isprintable()
    assert len(str(from_wire(ProtocolError("x" * (1 << 20)).to_wire()))) < 1 << 14


# -- who is to blame -----------------------------------------------------------------------------------------


def one_round():
    b = Builder("one round", tile_rows=64)
    x = b.input("x", KIND)
    (x * x).reveal("squares", to="analyst")
    return b.plan()


async def test_whoever_waits_for_a_corrupt_party_is_not_blamed_alone(open_cluster_of_nodes, autojump_clock):
    """Party 3 keeps its words from party 2, which then cannot say that its run has ended well."""
    async with open_cluster_of_nodes(Rep4) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        corrupt = nodes.parties[3]
        plain = corrupt.send_frames

        async def silent(name, number, frames):
            await plain(name, number, {peer: words for peer, words in frames.items() if peer != 2})

        corrupt.send_frames = silent
        errors = await run_all(nodes, b"session", one_round())
        assert "party 2 did not say that its run has ended well" in str(errors[0])
        assert "it, or one that it waits for, stalled" in str(errors[0])
