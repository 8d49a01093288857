"""Keys of a session: of pairs, from what the two alone have said, and of groups, once all of them agree."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import trio.testing

from tercet.actors.group_keys import GroupKeys, group_key
from tercet.actors.party import Party
from tercet.actors.session import Start
from tercet.errors import PeerLost, ProtocolError, TercetError
from tercet.plans import Builder, Form, Type
from tercet.protocols.replicated import Replicated
from tercet.protocols.shamir import Shamir
from tests.protocols.quad import Quad

KIND = Type(Form.RING, (10,), 8, 2.0**30)
WORDS = np.arange(10, dtype=np.uint64) << np.uint64(8)


def revealing():
    b = Builder("revealing", tile_rows=64)
    b.input("x", KIND).reveal("x", to="analyst")
    return b.plan()


def spoil_posts(party, peer, spoil):
    """Have a party post other messages to a peer: `spoil` gives a list of them for each."""
    line = party._peers[peer].line
    post = line.post

    def posting(message):
        for one in spoil(message):
            post(one)

    line.post = posting


def resealed(party, peer, message, **changes):
    """A start message of a party to a peer that says something else, as it would if the party meant it."""
    _, name, *fields = message
    said = attrs.evolve(Start.read(*fields, groups=len(fields[2])), **changes)
    return ["start", name, *said.sealed(party._peers[peer].key, name, party.index).to_wire()]


def noting_keys(cls, noted):
    """The protocol, whose instances put the keys that they are given into `noted`, by party."""

    def init(self, *, party, parties, keys):
        cls.__init__(self, party=party, parties=parties, keys=keys)
        noted.setdefault(party, []).append(dict(keys))

    return type("Noting", (cls,), {"__init__": init})


# -- of pairs ------------------------------------------------------------------------------------------------


async def test_what_a_third_party_says_changes_no_key_of_a_pair(open_cluster_of_nodes):
    noted = {}
    async with open_cluster_of_nodes(noting_keys(Replicated, noted)) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        noted.clear()

        def another(message):
            if message[0] != "start":
                return [message]
            return [resealed(nodes.parties[2], 0, message, nonce=bytes(32))]

        spoil_posts(nodes.parties[2], 0, another)
        await client.run(revealing())
    (zero,), (one,), (two,) = (
        [keys for keys in noted[party] if keys[(party + 1) % 3] != bytes(32)] for party in range(3)
    )
    assert zero[1] == one[0]
    assert one[2] == two[1]
    assert zero[2] != two[0]


@pytest.mark.parametrize("place", [3, 5])
async def test_a_start_that_was_damaged_on_its_way_ends_the_run(place, open_cluster_of_nodes):
    """Else two parties would have different keys, and could compute something else without a word."""
    async with open_cluster_of_nodes(Replicated) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)

        def damaged(message):
            changed = bytes([message[place][0] ^ 1]) + message[place][1:] if message[0] == "start" else b""
            return [[*message[:place], changed, *message[place + 1 :]] if changed else message]

        spoil_posts(nodes.parties[2], 0, damaged)
        with pytest.raises(ProtocolError, match="what party 2 said to start the plan did not reach party 0"):
            await client.run(revealing())


# -- of groups -----------------------------------------------------------------------------------------------


class Grouped(Shamir):
    group_keys = True


class GroupedOfFive(Shamir):
    sizes = (5,)
    group_keys = True


@pytest.fixture
def noted_groups(monkeypatch):
    """The keys of groups that runs had, by party."""
    noted = {}

    def witness(_, protocol, __, ___):
        noted.setdefault(protocol.party, []).append(dict(protocol.groups))

    monkeypatch.setattr(Party, "witness", staticmethod(witness))
    return noted


@pytest.mark.parametrize("protocol", [Quad, Grouped, GroupedOfFive])
async def test_all_but_one_have_a_key_that_is_new_in_each_session(
    protocol, open_cluster_of_nodes, noted_groups
):
    parties = protocol.sizes[0]
    async with open_cluster_of_nodes(protocol) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        for _ in range(2):
            result = await client.run(revealing())
            np.testing.assert_array_equal(result.revealed["x"], np.arange(10.0))
    found = set()
    for run in range(2):
        for missing in range(parties):
            members = [party for party in range(parties) if party != missing]
            keys = {noted_groups[party][run][missing] for party in members}
            assert len(keys) == 1
            assert missing not in noted_groups[missing][run]
            found |= keys
    assert len(found) == 2 * parties


async def test_protocols_without_keys_of_groups_say_nothing_of_them(open_cluster_of_nodes, noted_groups):
    async with open_cluster_of_nodes(Replicated) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        said = []

        def noting(message):
            said.append(message)
            return [message]

        spoil_posts(nodes.parties[2], 0, noting)
        await client.run(revealing())
    assert noted_groups == {party: [{}] for party in range(3)}
    assert [message[0] for message in said if message[0] != "beat"] == ["start"]
    assert said[0][4] == []


def test_the_key_of_a_group_hangs_on_every_part():
    keys = {
        group_key(b"a", 3, {0: b"x", 1: b"y"}),
        group_key(b"b", 3, {0: b"x", 1: b"y"}),
        group_key(b"a", 2, {0: b"x", 1: b"y"}),
        group_key(b"a", 3, {0: b"y", 1: b"x"}),
        group_key(b"a", 3, {0: b"xy", 1: b""}),
    }
    assert len(keys) == 5
    assert group_key(b"a", 3, {1: b"y", 0: b"x"}) in keys


def test_a_digest_is_for_one_pair_and_direction():
    made = [GroupKeys(b"session", party, 4) for party in range(4)]
    for one in made:
        for peer, other in enumerate(made):
            if one is not other:
                one.hear(peer, other.seeds_for(made.index(one)))
    for one in made:
        one.make()
    assert made[0].digests(0, 1) == made[1].digests(0, 1)
    told = [made[0].digests(*pair) for pair in ((0, 1), (1, 0), (0, 2), (0, 3))]
    assert len({digest for digests in told for digest in digests}) == 8
    made[0].check({peer: made[peer].digests(peer, 0) for peer in (1, 2, 3)})
    with pytest.raises(ProtocolError, match="party 0 and party 2 do not have the same keys"):
        made[0].check({1: made[1].digests(1, 0), 2: made[0].digests(0, 2), 3: made[3].digests(3, 0)})


async def test_a_party_that_tells_two_others_different_seeds_is_caught_before_a_key_is_used(
    open_cluster_of_nodes, noted_groups
):
    async with open_cluster_of_nodes(Quad) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)

        def another(message):
            if message[0] != "start":
                return [message]
            return [resealed(nodes.parties[2], 0, message, seeds=(bytes(32), message[4][1]))]

        spoil_posts(nodes.parties[2], 0, another)
        with pytest.raises(ProtocolError, match="do not have the same keys") as caught:
            await client.run(revealing())
        assert "one of the parties 0, 2, 3 is faulty" in str(caught.value)
        await trio.testing.wait_all_tasks_blocked()
        assert [party.running for party in nodes.parties] == [0] * 4
    assert noted_groups.keys() <= {1}, "only the one who is not in the group may have gone on"


def spoilt_confirmation(how):
    def spoil(message):
        kind, name, *rest = message
        if kind == "start" and how == "before the start":
            return [["confirm", name, [bytes(32)] * 2], message]
        if kind != "confirm":
            return [message]
        (digests,) = rest
        changed = {
            "another digest": [[*digests[:-1], bytes(32)]],
            "twice": [digests, digests],
            "too few": [digests[:-1]],
            "too many": [[*digests, bytes(32)]],
            "too short": [[digest[:-1] for digest in digests]],
            "of another type": [["a" * 32 for _ in digests]],
            "no list": [{"digests": 2}],
            "never": [],
        }.get(how, [digests])
        return [[kind, name, one] for one in changed]

    return spoil


@pytest.mark.parametrize(
    ("how", "error", "why"),
    [
        ("another digest", ProtocolError, "party 0 and party 2 do not have the same keys"),
        ("twice", ProtocolError, "party 2 confirmed keys twice"),
        ("before the start", TercetError, "party 2"),
        ("too few", ProtocolError, "of party 2 has 2 strings of 32 bytes"),
        ("too many", ProtocolError, "of party 2 has 2 strings of 32 bytes"),
        ("too short", ProtocolError, "of party 2 has strings of 32 bytes"),
        ("of another type", ProtocolError, "of party 2 has strings of 32 bytes"),
        ("no list", ProtocolError, "of party 2 has 2 strings of 32 bytes"),
        ("never", PeerLost, "party 2 did not confirm its keys within 16 s"),
    ],
)
async def test_confirmations_that_are_wrong_end_the_run(
    how, error, why, open_cluster_of_nodes, autojump_clock, noted_groups
):
    async with open_cluster_of_nodes(Quad) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        spoil_posts(nodes.parties[2], 0, spoilt_confirmation(how))
        with trio.fail_after(60), pytest.raises(error, match=why):
            await client.run(revealing())
        await trio.testing.wait_all_tasks_blocked()
        assert [party.running for party in nodes.parties] == [0] * 4
    assert 0 not in noted_groups or how == "twice"


@pytest.mark.parametrize("seeds", [[], [bytes(32)], [bytes(32)] * 3, [bytes(31)] * 2, [1, 2], None])
async def test_a_start_with_other_seeds_than_are_due_ends_the_line(seeds, open_cluster_of_nodes):
    async with open_cluster_of_nodes(Quad) as nodes:
        nodes.parties[2]._peers[0].line.post(["start", b"name", bytes(32), bytes(32), seeds, b"", bytes(32)])
        await trio.testing.wait_all_tasks_blocked()
        lost = nodes.parties[0]._peers[2].line.lost
        assert "a start message has" in str(lost)
        assert lost.peer == "party 2"
