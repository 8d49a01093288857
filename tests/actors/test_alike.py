"""What an owner deals reaches all nodes alike, or no plan reads it."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import trio.testing

from tercet.actors import alike
from tercet.actors.values import Stored
from tercet.errors import ProtocolError
from tercet.plans import Builder, Form, Type
from tercet.protocols.domains import BITS, Z64
from tercet.protocols.replicated import Replicated
from tercet.protocols.shamir import Shamir
from tercet.testing.lockstep import parties, share
from tests.protocols.quad import Quad

KIND = Type(Form.RING, (200,), 8, 2.0**30)
WORDS = np.arange(200, dtype=np.uint64) << np.uint64(8)


def storing(*handles):
    """A plan that reveals nothing, so that nothing else notices what was dealt wrongly."""
    b = Builder("storing", tile_rows=64)
    for handle in handles:
        (b.input(handle, KIND) + 1).store(f"{handle} and one")
    return b.plan()


def dealing_wrongly(client, party, part=0):
    """A client that sends one node another word in a part of what it deals."""
    deal = client.protocol.deal

    def wrong(values, *, domain, parties):
        dealt = deal(values, domain=domain, parties=parties)
        dealt[party][part] = dealt[party][part].copy()
        dealt[party][part].reshape(-1)[-1] ^= np.uint64(1)
        return dealt

    client.protocol = type("Wrong", (client.protocol,), {"deal": staticmethod(wrong)})


@pytest.mark.parametrize("domain", [Z64, BITS])
@pytest.mark.parametrize("protocol", [Replicated, Quad])
def test_both_parties_of_a_pair_say_the_same_of_what_they_hold(protocol, domain):
    session = parties(protocol)
    shares = share(session, WORDS, domain=domain)
    held = [one.held_alike(x) for one, x in zip(session, shares, strict=True)]
    for party, found in enumerate(held):
        assert set(found) == set(range(len(session))) - {party}
        for peer, words in found.items():
            np.testing.assert_array_equal(words, held[peer][party])


def test_protocols_without_words_in_common_say_nothing():
    session = parties(Shamir)
    assert [one.held_alike(x) for one, x in zip(session, share(session, WORDS), strict=True)] == [{}] * 3


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("party", range(3))
async def test_an_upload_that_nodes_have_got_differently_is_read_by_no_plan(
    party, part, open_cluster_of_nodes
):
    async with open_cluster_of_nodes(Replicated) as nodes:
        client = await nodes.client()
        await client.put("good", KIND, WORDS)
        dealing_wrongly(client, party, part)
        await client.put("bad", KIND, WORDS)
        with pytest.raises(
            ProtocolError, match="hold different words of what was uploaded as 'bad'"
        ) as caught:
            await client.run(storing("bad"))
        assert f"party {party}" in str(caught.value)
        with pytest.raises(ProtocolError, match="hold different words of what was uploaded as 'bad', 'good'"):
            await client.run(storing("good", "bad"))
        await client.run(storing("good"))
        await client.drop(["bad"])
        await (await nodes.client()).put("bad", KIND, WORDS)
        await client.run(storing("bad"))


@pytest.mark.parametrize("party", range(4))
async def test_among_four(party, open_cluster_of_nodes):
    async with open_cluster_of_nodes(Quad) as nodes:
        client = await nodes.client()
        dealing_wrongly(client, party, 1)
        await client.put("bad", KIND, WORDS)
        with pytest.raises(ProtocolError, match="hold different words of what was uploaded as 'bad'"):
            await client.run(storing("bad"))
        await trio.testing.wait_all_tasks_blocked()
        assert [sorted(one.store) for one in nodes.parties] == [["bad"]] * 4


async def test_a_value_that_one_node_has_not_been_dealt_is_missed(open_cluster_of_nodes):
    async with open_cluster_of_nodes(Replicated) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        nodes.parties[1].store["x"] = attrs.evolve(nodes.parties[1].store["x"], dealt=False)
        with pytest.raises(ProtocolError, match="hold different words"):
            await client.run(storing("x"))


async def test_words_are_looked_through_once_and_only_those_that_were_dealt(
    open_cluster_of_nodes, monkeypatch
):
    looked = []

    class Noting(Replicated):
        def held_alike(self, x):
            looked.append((self.party, x.shape))
            return super().held_alike(x)

    async with open_cluster_of_nodes(Noting) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        for _ in range(3):
            result = await client.run(storing("x"))
        assert sorted(looked) == sorted((p, (rows,)) for p in range(3) for rows in (64, 64, 64, 8))
        looked.clear()
        b = Builder("reading", tile_rows=64)
        b.input("x and one", result.stored["x and one"]).reveal("y", to="analyst")
        await client.run(b.plan())
        assert looked == []


def test_a_digest_is_for_one_link_session_and_direction():
    said = {
        alike.sealed(digest, key, session, sender)
        for digest in (b"a" * 32, b"b" * 32)
        for key in (b"c" * 32, b"d" * 32)
        for session in (b"e", b"f")
        for sender in (0, 1)
    }
    assert len(said) == 16
    assert alike.sealed(b"", bytes(32), b"e", 0) == b""


def test_the_digest_of_several_values_hangs_on_each_and_on_its_handle():
    (one, *_) = parties(Replicated)
    x, y = (share(parties(Replicated), words)[0] for words in (WORDS, WORDS + np.uint64(1)))

    def digest(**values):
        held = {handle: Stored(KIND, [tile], 256, dealt=True) for handle, tile in values.items()}
        return alike.all_digests(one, held)[1]

    assert len({digest(x=x), digest(x=y), digest(y=x), digest(x=x, y=y), digest(x=y, y=x)}) == 5
